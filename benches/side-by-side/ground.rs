//! What all peers stand on: a folder that goes away, certificates, and the application behind everything.

use std::{fs, path::PathBuf};

use anyhow::Context;
pub(crate) use selvedge_benches::application::SMALL;
use selvedge_benches::{application::message, port::Port};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    certificates::Certificates,
    peer::nginx,
    process::{Process, find},
};

/// Bytes of the large answer.
pub(crate) const LARGE: usize = 1 << 20;

/// The program that is the application.
pub(crate) fn application() -> anyhow::Result<PathBuf> {
    let missing = "nginx is missing, and it is the application behind every peer (Debian package nginx-light)";
    find("nginx", "NGINX").context(missing)
}

/// The common ground.
pub(crate) struct Ground {
    folder: TempDir,
    /// For peers without an authority of their own.
    pub(crate) certificates: Certificates,
    /// The application over HTTP/1.
    pub(crate) http1: Port,
    /// The application over cleartext HTTP/2.
    pub(crate) http2: Port,
    /// Where the binaries of this workspace are.
    pub(crate) binaries: PathBuf,
    /// The program of the application.
    pub(crate) application: Process,
}

impl Ground {
    /// Makes the folder and starts the application.
    pub(crate) fn prepare(binaries: PathBuf) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("selvedge-bench-").tempdir().context("a temporary folder")?;
        let certificates = Certificates::make(folder.path())?;
        let (http1, http2) = (Port::free()?, Port::free()?);
        fs::write(folder.path().join("1m"), vec![b'x'; LARGE])?;
        fs::write(folder.path().join("call"), message(SMALL))?;
        let config = folder.path().join("application.conf");
        fs::write(&config, nginx::application(folder.path(), http1.address, http2.address))?;
        let mut command = Command::new(application()?);
        command.arg("-c").arg(&config).arg("-p").arg(folder.path());
        let application = Process::start("application", &mut command, folder.path())?;
        Ok(Self { folder, certificates, http1, http2, binaries, application })
    }

    /// A folder for one peer's files.
    pub(crate) fn folder(&self, peer: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.path().join(peer);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(folder)
    }

    /// Fails when the application is gone.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.application.check()
    }
}
