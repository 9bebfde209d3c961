//! What one change costs the control plane: CPU of the real program for an endpoint's new weight, in a small mesh and in a
//! large one.
//!
//! Everything is part of it but sidecars, of which none is connected: the file is saved, noticed, read, checked, compiled,
//! published, reported and kept for a restart. Small and large are measured in turn, so that a busy machine is busy for
//! both. Guarantees: nothing remains when it ends.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Parser;
use selvedge_benches::{mesh, process::Process, run};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::{sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than the source waits for the end of a burst, so that each change is one.
const PAUSE: Duration = Duration::from_millis(250);
/// After how long a thread that has nothing to do has ended, with what it used.
const IDLE_THREADS: Duration = Duration::from_secs(12);
/// Services of the small mesh: 120 objects. The large one has 12 000.
const FEW: usize = 10;
/// How much a change in the large mesh may cost, in milliseconds, and how many times one in the small mesh.
const LIMIT: (f64, f64) = (5.0, 2.0);

/// Measure the CPU time of one endpoint's change in meshes of 120 and of 12 000 objects.
#[derive(Parser)]
#[command(name = "changes")]
struct Arguments {
    /// A fifth of the changes.
    #[arg(long)]
    quick: bool,
    /// How often an endpoint changes in each mesh, in each of five rounds.
    #[arg(long, default_value_t = 40)]
    changes: u32,
    /// Folder of `selvedge`; that of this program when absent.
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let binaries = run::binaries(arguments.binaries.as_deref())?;
    let rounds = if arguments.quick { 1 } else { 5 };
    let mut small = Brain::start(&binaries, FEW).await?;
    let mut large = Brain::start(&binaries, mesh::SERVICES).await?;
    sleep(IDLE_THREADS).await;
    for _ in 0..rounds {
        small.measure(arguments.changes).await?;
        large.measure(arguments.changes).await?;
    }
    let (small, large) = (small.milliseconds(), large.milliseconds());
    println!("CPU of one endpoint's change, {} changes each:", rounds * arguments.changes);
    println!("    120 objects   {small:>7.2} ms");
    println!(" 12 000 objects   {large:>7.2} ms, {:.2} times as much", large / small);
    ensure!(large <= LIMIT.0, "more than {} ms", LIMIT.0);
    ensure!(large <= small * LIMIT.1, "more than {} times as much", LIMIT.1);
    Ok(())
}

/// A control plane with a mesh of its own.
struct Brain {
    folder: TempDir,
    process: Process,
    admin: SocketAddr,
    services: usize,
    weight: u32,
    /// CPU time of changes so far, and how many there were.
    spent: (u64, u32),
}

impl Brain {
    /// Starts one with so many services, and waits until it has all of them.
    async fn start(binaries: &Path, services: usize) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("selvedge-changes-").tempdir().context("a temporary folder")?;
        let (config, ports) = (folder.path().join("config"), folder.path().join("ports.json"));
        fs::create_dir(&config)?;
        for service in 0..services {
            fs::write(config.join(format!("{service}.yaml")), mesh::file(service, 1))?;
        }
        let mut command = Command::new(binaries.join("selvedge"));
        command
            .args(["control-plane", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ports-file"])
            .arg(&ports);
        command.arg("--config-dir").arg(&config).arg("--state-dir").arg(folder.path().join("state"));
        let mut process = Process::start("control-plane", &mut command, folder.path())?;
        let ready = async {
            loop {
                process.check()?;
                if let Some(admin) = admin(&ports)
                    && get(admin, "/ready").await.is_ok_and(|answer| answer.contains("200 OK"))
                {
                    return anyhow::Ok(admin);
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let admin = timeout(PATIENCE, ready).await.context("the control plane does not get ready")??;
        Ok(Self { folder, process, admin, services, weight: 1, spent: (0, 0) })
    }

    /// Changes an endpoint so often, and notes the CPU time beyond what the program uses at rest.
    async fn measure(&mut self, changes: u32) -> anyhow::Result<()> {
        let before = self.snapshot().await?;
        let began = self.process.cpu_nanos();
        sleep(PAUSE * changes).await;
        let at_rest = self.process.cpu_nanos() - began;
        let began = self.process.cpu_nanos();
        for _ in 0..changes {
            self.change()?;
            sleep(PAUSE).await;
        }
        let used = self.process.cpu_nanos() - began;
        self.process.check()?;
        let published = self.snapshot().await? - before;
        ensure!(
            published == u64::from(changes),
            "{changes} changes were {published} snapshots: is the machine too busy?"
        );
        self.spent = (self.spent.0 + used.saturating_sub(at_rest), self.spent.1 + changes);
        Ok(())
    }

    /// Saves the file of a service in the middle as an editor does: whole, by rename.
    fn change(&mut self) -> anyhow::Result<()> {
        self.weight = self.weight % 100 + 1;
        let service = self.services / 2;
        let (draft, config) = (self.folder.path().join("draft"), self.folder.path().join("config"));
        fs::write(&draft, mesh::file(service, self.weight))?;
        fs::rename(&draft, config.join(format!("{service}.yaml")))?;
        Ok(())
    }

    async fn snapshot(&self) -> anyhow::Result<u64> {
        let metrics = get(self.admin, "/metrics").await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix("selvedge_control_plane_snapshot "));
        Ok(line.context("the metric of the snapshot is not there")?.trim().parse()?)
    }

    fn milliseconds(&self) -> f64 {
        let (nanos, changes) = self.spent;
        Duration::from_nanos(nanos).as_secs_f64() * 1000.0 / f64::from(changes)
    }
}

fn admin(ports: &Path) -> Option<SocketAddr> {
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(ports).ok()?).ok()?;
    ports["admin"].as_str()?.parse().ok()
}

/// The whole answer of the admin port.
async fn get(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
