//! A real sidecar: how soon it is ready, and what it occupies, alone and with idle connections.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::Context;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use selvedge_benches::{mesh, process::Process};
use selvedge_proxy::{TlsContext, join, new_key};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    process::Command,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::brain::Brain;

const STARTS: usize = 7;
const CONNECTIONS: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// What was measured of a sidecar.
pub(crate) struct Measured {
    mesh: String,
    /// Milliseconds from start to ready with nothing but a token, and with a certificate on disk; medians.
    joining: f64,
    restarting: f64,
    idle: u64,
    per_connection: u64,
}

/// Measures a sidecar of the first workload in `what`.
pub(crate) async fn measure(brain: &Brain, binaries: &Path, what: &str) -> anyhow::Result<Measured> {
    let (mut joining, mut restarting) = (Vec::new(), Vec::new());
    for start in 0..STARTS {
        let home = Home::make(brain, &format!("{what} {start}"))?;
        joining.push(home.start(binaries).await?.ready_after);
        restarting.push(home.start(binaries).await?.ready_after);
    }
    let home = Home::make(brain, what)?;
    let running = home.start(binaries).await?;
    sleep(Duration::from_secs(1)).await;
    let idle = running.process.resident_bytes();
    let held = connections(brain, running.inbound).await?;
    sleep(Duration::from_secs(1)).await;
    let per_connection = running.process.resident_bytes().saturating_sub(idle) / CONNECTIONS;
    drop(held);
    Ok(Measured {
        mesh: what.to_owned(),
        joining: median(joining),
        restarting: median(restarting),
        idle,
        per_connection,
    })
}

struct Home<'a> {
    brain: &'a Brain,
    folder: std::path::PathBuf,
}

struct Running {
    process: Process,
    inbound: SocketAddr,
    ready_after: f64,
}

impl<'a> Home<'a> {
    fn make(brain: &'a Brain, name: &str) -> anyhow::Result<Self> {
        let folder = brain.folder(name)?;
        fs::write(folder.join("token"), brain.token(&mesh::namespace(0))?)?;
        let bootstrap = format!(
            "workload: {}\ncontrolPlane: {}\njoinTokenFile: {home}/token\nstateDir: {home}/state\nportsFile: {home}/ports\n\
             admin: 127.0.0.1:0\nmetrics: 127.0.0.1:0\naccessLogFile: {home}/access.log\ninbound:\n\
             - {{listen: '127.0.0.1:0', forward: '127.0.0.1:9', port: 8080}}\n",
            mesh::workload(0, 0),
            brain.address,
            home = folder.display()
        );
        fs::write(folder.join("sidecar.yaml"), bootstrap)?;
        Ok(Self { brain, folder })
    }

    async fn start(&self, binaries: &Path) -> anyhow::Result<Running> {
        let ports = self.folder.join("ports");
        let _absent = fs::remove_file(&ports);
        let mut command = Command::new(binaries.join("selvedge-proxy"));
        command.arg("run").arg("--config").arg(self.folder.join("sidecar.yaml"));
        let started = Instant::now();
        let process = Process::start("sidecar", &mut command, &self.folder)?;
        let ready = async {
            loop {
                if let Some(inbound) = is_ready(&ports).await {
                    return inbound;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        let inbound = timeout(PATIENCE, ready).await;
        let inbound =
            inbound.with_context(|| format!("no sidecar of {}: {}", self.brain.address, process.last_words()))?;
        Ok(Running { process, inbound, ready_after: started.elapsed().as_secs_f64() * 1e3 })
    }
}

/// Its inbound address, once it says that it is ready.
async fn is_ready(ports: &Path) -> Option<SocketAddr> {
    let ports: Value = serde_json::from_str(&fs::read_to_string(ports).ok()?).ok()?;
    let admin: SocketAddr = ports["admin"].as_str()?.parse().ok()?;
    let stream = TcpStream::connect(admin).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request =
        http::Request::get("/ready").header("host", admin.to_string()).body(Empty::<bytes::Bytes>::new()).ok()?;
    let ready = sender.send_request(request).await.ok()?.status().is_success();
    ready.then(|| ports["inbound"][0].as_str()?.parse().ok())?
}

/// Connections for requests of a peer in the mesh that carry nothing.
async fn connections(brain: &Brain, inbound: SocketAddr) -> anyhow::Result<Vec<impl Sized + use<>>> {
    let (namespace, address) = (mesh::namespace(1), brain.address.to_string());
    let token = brain.token(&namespace)?;
    let credentials = join(&address, &format!("{namespace}/any"), &token, &new_key()?).await?;
    let svid = &credentials.svid;
    let tls = TlsConnector::from(TlsContext::new(svid, &credentials.roots, &svid.identity.trust_domain)?.frames);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(tls.connect(ServerName::try_from("s0.n0")?, TcpStream::connect(inbound).await?).await?);
    }
    Ok(held)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A Markdown table of the measurements.
pub(crate) fn table(measured: &[Measured]) -> String {
    let mut table =
        "| a sidecar in | ready after start, first time, ms | with a certificate on disk, ms | idle MiB | KiB an idle \
                     mTLS connection |\n|---|---|---|---|---|\n"
            .to_owned();
    for Measured { mesh, joining, restarting, idle, per_connection } in measured {
        let (idle, each) = (*idle as f64 / f64::from(1 << 20), *per_connection as f64 / 1024.0);
        table += &format!("| {mesh} | {joining:.0} | {restarting:.0} | {idle:.1} | {each:.1} |\n");
    }
    table + "\n"
}
