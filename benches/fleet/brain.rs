//! The control plane under measurement, with the files it reads.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use rustix::thread::CpuSet;
use selvedge_benches::{
    mesh,
    process::{Process, bind},
};
use selvedge_control_plane::{
    clock,
    identity::{Authority, Grant, LEAF_LIFETIME},
};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(60);
const TRUST_DOMAIN: &str = "mesh.local";

/// The program and its folder.
pub(crate) struct Brain {
    folder: PathBuf,
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// How many processors it has.
    pub(crate) processors: u32,
}

impl Brain {
    /// Starts it with one service, in `folder`, on these processors.
    pub(crate) async fn start(binaries: &Path, folder: &Path, processors: &CpuSet) -> anyhow::Result<Self> {
        fs::create_dir(folder.join("config"))?;
        let ports = folder.join("ports.json");
        let mut command = Command::new(binaries.join("selvedge"));
        command.args(["control-plane", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--ports-file"]).arg(&ports);
        command.arg("--config-dir").arg(folder.join("config")).arg("--state-dir").arg(folder.join("state"));
        let mut process = Process::start("control-plane", &mut command, folder)?;
        // Before it counts them.
        bind(process.id(), processors)?;
        let listens = async {
            loop {
                process.check()?;
                if let Ok(text) = fs::read_to_string(&ports) {
                    return anyhow::Ok(text);
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let text = timeout(PATIENCE, listens).await.context("the control plane does not listen")??;
        let ports: serde_json::Value = serde_json::from_str(&text)?;
        let bound: SocketAddr = ports["listen"].as_str().context("the ports file names no port")?.parse()?;
        let address = ([127, 0, 0, 1], bound.port()).into();
        let brain = Self { folder: folder.to_owned(), process, address, processors: processors.count() };
        brain.write(0, 1)?;
        Ok(brain)
    }

    /// Writes the other services, and waits until the control plane is at rest.
    pub(crate) async fn grow(&mut self) -> anyhow::Result<()> {
        for service in 1..mesh::SERVICES {
            self.write(service, 1)?;
        }
        self.at_rest().await
    }

    /// Waits until the control plane has used next to no CPU time for a while.
    pub(crate) async fn at_rest(&mut self) -> anyhow::Result<()> {
        let rest = async {
            loop {
                let before = self.process.cpu_nanos();
                sleep(Duration::from_millis(500)).await;
                self.process.check()?;
                if self.process.cpu_nanos() - before < 25_000_000 {
                    return anyhow::Ok(());
                }
            }
        };
        timeout(PATIENCE, rest).await.context("the control plane does not come to rest")?
    }

    /// Writes the file of one service as an editor saves: whole, by rename.
    pub(crate) fn write(&self, service: usize, weight: u32) -> anyhow::Result<()> {
        let draft = self.folder.join("draft");
        fs::write(&draft, mesh::file(service, weight))?;
        fs::rename(&draft, self.folder.join("config").join(format!("{service}.yaml")))?;
        Ok(())
    }

    /// A join token for the workloads of `namespace`.
    pub(crate) fn token(&self, namespace: &str) -> anyhow::Result<String> {
        let now = clock::unix();
        let authority = Authority::open(&self.folder.join("state"), TRUST_DOMAIN, LEAF_LIFETIME, now)?;
        let identity = format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{}", mesh::ACCOUNT).parse()?;
        Ok(authority.create_token(&Grant { identity, workload: None, expires: now + 3600 })?)
    }

    /// A new folder beside the control plane's.
    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(folder)
    }
}
