//! The sidecars of a mesh, each with a discovery stream, and how soon they hear of a change.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustls::ClientConfig;
use selvedge_benches::mesh;
use selvedge_proxy::{join, new_key, to_control_plane};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{brain::Brain, member::Member};

/// Services each sidecar calls.
const CALLS: usize = 20;
/// The service all of them call; one of its endpoints changes.
const HOT: usize = 500;
/// Handshakes at a time.
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two changes, for each to be heard of alone.
const PAUSE: Duration = Duration::from_millis(500);

/// All sidecars connected so far.
pub(crate) struct Fleet {
    brain: std::net::SocketAddr,
    /// By namespace: workloads of one account share a certificate.
    tls: Vec<Arc<ClientConfig>>,
    connected: usize,
    tell: mpsc::UnboundedSender<Instant>,
    told: mpsc::UnboundedReceiver<Instant>,
    connecting: Duration,
}

/// What was measured with so many sidecars.
pub(crate) struct Pushed {
    sidecars: usize,
    connected_in: Duration,
    resident: u64,
    /// Milliseconds from the change of a file to each sidecar having the endpoints, all changes together.
    all: Vec<f64>,
    /// The same to the last sidecar, by change.
    last: Vec<f64>,
    cpu_per_change: Duration,
}

impl Fleet {
    /// No sidecar yet, but a certificate for each namespace.
    pub(crate) async fn join(brain: &Brain) -> anyhow::Result<Self> {
        let mut tls = Vec::new();
        for namespace in (0..mesh::NAMESPACES).map(mesh::namespace) {
            let (address, token) = (brain.address.to_string(), brain.token(&namespace)?);
            let key = new_key()?;
            let credentials = join(&address, &format!("{namespace}/any"), &token, &key).await?;
            tls.push(to_control_plane(&credentials)?);
        }
        let (tell, told) = mpsc::unbounded_channel();
        Ok(Self { brain: brain.address, tls, connected: 0, tell, told, connecting: Duration::ZERO })
    }

    /// Connects sidecars until there are `count`.
    pub(crate) async fn grow(&mut self, count: usize) -> anyhow::Result<()> {
        ensure!(count <= mesh::SERVICES * mesh::WORKLOADS_EACH, "there are not so many workloads");
        let started = Instant::now();
        let members = (self.connected..count).map(|number| self.member(number).start(self.tell.clone()));
        let all = stream::iter(members).buffer_unordered(AT_ONCE).try_collect::<()>();
        timeout(PATIENCE * 5, all).await.context("the sidecars do not get what they ask for")??;
        self.connected = self.connected.max(count);
        self.connecting += started.elapsed();
        Ok(())
    }

    fn member(&self, number: usize) -> Member {
        let (service, n) = (number % mesh::SERVICES, number / mesh::SERVICES);
        let others = (1..CALLS).map(|call| (number * CALLS + call) % mesh::SERVICES).filter(|other| *other != HOT);
        Member {
            control_plane: self.brain,
            address: Ipv4Addr::new(
                127,
                1,
                u8::try_from(number / 250).unwrap_or(0),
                u8::try_from(number % 250).unwrap_or(0) + 1,
            ),
            tls: Arc::clone(&self.tls[service % mesh::NAMESPACES]),
            workload: mesh::workload(service, n),
            calls: [HOT].into_iter().chain(others).map(mesh::service).collect(),
        }
    }

    /// Changes one endpoint `changes` times and waits until every sidecar has heard of each.
    pub(crate) async fn measure(&mut self, brain: &mut Brain, changes: usize) -> anyhow::Result<Pushed> {
        brain.at_rest().await?;
        let mut pushed = Pushed {
            sidecars: self.connected,
            connected_in: self.connecting,
            resident: brain.process.resident_bytes(),
            all: Vec::new(),
            last: Vec::new(),
            cpu_per_change: Duration::ZERO,
        };
        let before = brain.process.cpu_nanos();
        for change in 0..changes {
            let started = Instant::now();
            brain.write(HOT, 2 + u32::try_from(change % 90)?)?;
            let heard = timeout(PATIENCE, self.heard()).await.context("not every sidecar heard of the change")?;
            let millis = heard.iter().map(|at| at.duration_since(started).as_secs_f64() * 1e3);
            pushed.all.extend(millis.clone());
            pushed.last.push(millis.fold(0.0, f64::max));
            sleep(PAUSE).await;
        }
        pushed.cpu_per_change = Duration::from_nanos((brain.process.cpu_nanos() - before) / changes as u64);
        Ok(pushed)
    }

    /// When each of the sidecars heard of something.
    async fn heard(&mut self) -> Vec<Instant> {
        let mut heard = Vec::with_capacity(self.connected);
        while heard.len() < self.connected && self.told.recv_many(&mut heard, self.connected).await > 0 {}
        heard
    }
}

/// A Markdown table of the measurements.
pub(crate) fn table(measured: &[Pushed]) -> String {
    let mut table =
        "| sidecars connected | all connected in | control plane MiB | change heard, p50 ms | p99 ms | by the last, \
                     median ms | worst ms | control plane CPU a change, ms |\n|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for pushed in measured {
        let (all, last) = (sorted(&pushed.all), sorted(&pushed.last));
        table += &format!(
            "| {} | {:.1} s | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |\n",
            pushed.sidecars,
            pushed.connected_in.as_secs_f64(),
            pushed.resident as f64 / f64::from(1 << 20),
            quantile(&all, 0.5),
            quantile(&all, 0.99),
            quantile(&last, 0.5),
            quantile(&last, 1.0),
            pushed.cpu_per_change.as_secs_f64() * 1e3,
        );
    }
    table
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// The value below which the share `at` of `values` lies; 0 of none.
fn quantile(values: &[f64], at: f64) -> f64 {
    let index = (values.len() as f64 * at) as usize;
    values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
