//! The sidecars of a mesh, each with a discovery stream, and how soon they hear of a change.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustls::ClientConfig;
use selvedge_benches::{curve, mesh, spread::Spread};
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
/// How the names of the threads begin that serve sidecars.
const SERVING: &str = "sidecars-";
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two changes, for each to be heard of alone.
const PAUSE: Duration = Duration::from_millis(500);

/// Sidecars that are connected.
pub(crate) struct Fleet {
    connected: usize,
    at_once: usize,
    told: mpsc::UnboundedReceiver<Instant>,
    connecting: Duration,
    /// CPU time of the control plane meanwhile, in nanoseconds.
    connecting_cpu: u64,
}

/// What was measured with so many sidecars.
pub(crate) struct Pushed {
    /// Of the control plane.
    processors: u32,
    sidecars: usize,
    /// How many of them connected at a time.
    at_once: usize,
    connected_in: Duration,
    /// Microseconds of CPU that the control plane took for each that connected.
    connected_by: f64,
    resident: u64,
    peak: u64,
    /// Milliseconds from the change of a file to each sidecar having the endpoints, all changes together.
    all: Vec<f64>,
    /// The same to the last sidecar, by change.
    last: Vec<f64>,
    cpu_per_change: Duration,
    /// Microseconds of CPU of the threads that serve sidecars, for each sidecar, by change.
    each: Vec<f64>,
}

impl Fleet {
    /// Connects `count` sidecars, so many `at_once`.
    pub(crate) async fn connect(brain: &Brain, count: usize, at_once: usize) -> anyhow::Result<Self> {
        ensure!(count <= u16::MAX.into(), "there are not so many addresses");
        let tls = join_all(brain).await?;
        let (tell, told) = mpsc::unbounded_channel();
        let (started, before) = (Instant::now(), brain.process.cpu_nanos());
        let members = (0..count).map(|number| member(brain, &tls, number).start(tell.clone()));
        let all = stream::iter(members).buffer_unordered(at_once).try_collect::<()>();
        timeout(PATIENCE * 5, all).await.context("the sidecars do not get what they ask for")??;
        let (connecting, connecting_cpu) = (started.elapsed(), brain.process.cpu_nanos() - before);
        Ok(Self { connected: count, at_once: at_once.min(count), told, connecting, connecting_cpu })
    }

    /// Changes one endpoint `changes` times and waits until every sidecar has heard of each.
    pub(crate) async fn measure(&mut self, brain: &mut Brain, changes: usize) -> anyhow::Result<Pushed> {
        brain.at_rest().await?;
        let mut pushed = Pushed {
            processors: brain.processors,
            sidecars: self.connected,
            at_once: self.at_once,
            connected_in: self.connecting,
            connected_by: self.connecting_cpu as f64 / 1e3 / self.connected as f64,
            resident: brain.process.resident_bytes(),
            peak: brain.process.peak_bytes(),
            all: Vec::new(),
            last: Vec::new(),
            cpu_per_change: Duration::ZERO,
            each: Vec::new(),
        };
        let before = brain.process.cpu_nanos();
        for change in 0..changes {
            let serving = brain.process.cpu_nanos_of(SERVING);
            let started = Instant::now();
            brain.write(HOT, 2 + u32::try_from(change % 90)?)?;
            let heard = timeout(PATIENCE, self.heard()).await.context("not every sidecar heard of the change")?;
            let millis = heard.iter().map(|at| at.duration_since(started).as_secs_f64() * 1e3);
            pushed.all.extend(millis.clone());
            pushed.last.push(millis.fold(0.0, f64::max));
            sleep(PAUSE).await;
            let serving = brain.process.cpu_nanos_of(SERVING) - serving;
            pushed.each.push(serving as f64 / 1e3 / self.connected as f64);
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

/// A certificate for each namespace: workloads of one account share it.
async fn join_all(brain: &Brain) -> anyhow::Result<Vec<Arc<ClientConfig>>> {
    let mut tls = Vec::new();
    for namespace in (0..mesh::NAMESPACES).map(mesh::namespace) {
        let (address, token) = (brain.address.to_string(), brain.token(&namespace)?);
        let key = new_key()?;
        let credentials = join(&address, &format!("{namespace}/any"), &token, &key).await?;
        tls.push(to_control_plane(&credentials)?);
    }
    Ok(tls)
}

/// The sidecar of this number, with an address and a workload of its own.
fn member(brain: &Brain, tls: &[Arc<ClientConfig>], number: usize) -> Member {
    let (service, n) = (number % mesh::SERVICES, number / mesh::SERVICES % mesh::WORKLOADS_EACH);
    let others = (1..CALLS).map(|call| (number * CALLS + call) % mesh::SERVICES).filter(|other| *other != HOT);
    let [high, low] = u16::try_from(number).unwrap_or(0).to_be_bytes();
    Member {
        control_plane: brain.address,
        address: Ipv4Addr::new(127, 1, high, low),
        tls: Arc::clone(&tls[service % mesh::NAMESPACES]),
        workload: mesh::workload(service, n),
        calls: [HOT].into_iter().chain(others).map(mesh::service).collect(),
    }
}

/// A picture of what a sidecar costs at a change while there are more and more.
pub(crate) fn picture(measured: &[Pushed]) -> String {
    let points = measured.iter().filter_map(|pushed| Some((pushed.sidecars, Spread::new(pushed.each.clone())?)));
    let points: Vec<_> = points.collect();
    curve::svg("sidecars", "CPU us of the control plane per sidecar and change", &points)
}

/// A Markdown table of the measurements.
pub(crate) fn table(measured: &[Pushed]) -> String {
    let mut table = "| processors | sidecars | at a time | all connected in | control plane CPU each, us | MiB | at most | change heard, \
                     p50 ms | p99 ms | by the last, median ms | worst ms | control plane CPU a change, ms | of that for each \
                     sidecar, us |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for pushed in measured {
        let (all, last) = (sorted(&pushed.all), sorted(&pushed.last));
        table += &format!(
            "| {} | {} | {} | {:.1} s | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} |\n",
            pushed.processors,
            pushed.sidecars,
            pushed.at_once,
            pushed.connected_in.as_secs_f64(),
            pushed.connected_by,
            pushed.resident as f64 / f64::from(1 << 20),
            pushed.peak as f64 / f64::from(1 << 20),
            quantile(&all, 0.5),
            quantile(&all, 0.99),
            quantile(&last, 0.5),
            quantile(&last, 1.0),
            pushed.cpu_per_change.as_secs_f64() * 1e3,
            quantile(&sorted(&pushed.each), 0.5),
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
