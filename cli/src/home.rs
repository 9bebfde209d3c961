//! The folder that `selvedge up` keeps a mesh in: what users write, the state of the control plane and of the sidecars that
//! were joined here, and what runs.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use rustix::process::geteuid;

use crate::background::Place;

/// Says where the folder is.
#[derive(Clone, Debug, clap::Args)]
pub struct HomeArgs {
    /// The folder of the mesh; when absent SELVEDGE_HOME, else ~/.selvedge, for root /var/lib/selvedge.
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

/// Knows where everything lies in the folder.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

impl HomeArgs {
    /// The folder that is meant, whether it is there or not.
    ///
    /// # Errors
    /// Nothing says where it is.
    pub(crate) fn find(&self) -> anyhow::Result<Home> {
        // Empty is as good as unset, as it is to a shell.
        let told = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = self.home.clone().or_else(|| told("SELVEDGE_HOME"));
        let path = match (named, told("HOME")) {
            (Some(path), _) => path,
            (None, _) if geteuid().is_root() => "/var/lib/selvedge".into(),
            (None, Some(home)) => home.join(".selvedge"),
            (None, None) => bail!("HOME is not set: say with --home which folder the mesh is to be kept in"),
        };
        let path = std::path::absolute(&path).with_context(|| format!("'{}' is no path", path.display()))?;
        if let Ok(metadata) = fs::metadata(&path) {
            let (owner, own) = (metadata.uid(), geteuid().as_raw());
            ensure!(owner == own, "{} belongs to user {owner}, and you are {own}: run it as that user", path.display());
        }
        Ok(Home(path))
    }

    /// The folder, where there is a mesh in it, and a lock of it.
    ///
    /// # Errors
    /// There is none, or it cannot be locked.
    pub(crate) fn enter(&self) -> anyhow::Result<(Home, File)> {
        let home = self.find()?;
        let path = home.path().display();
        ensure!(home.is_made(), "no mesh is kept in {path}: start one with `selvedge up`");
        let lock = home.lock()?;
        Ok((home, lock))
    }
}

impl Home {
    /// Where all of it lies, as an absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether there is a mesh in it. Where it was removed, whoever still ran may have saved something since.
    pub(crate) fn is_made(&self) -> bool {
        self.sidecars().is_dir() && self.0.join("run").is_dir()
    }

    /// Makes the folders that are missing, for this user alone.
    ///
    /// # Errors
    /// One of them cannot be made.
    pub(crate) fn make(&self) -> anyhow::Result<()> {
        for path in [self.0.clone(), self.config_dir(), self.sidecars(), self.0.join("run"), self.0.join("logs")] {
            selvedge_identity::file::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(())
    }

    /// Waits until no other command changes anything here, and keeps others waiting until the value is dropped.
    ///
    /// # Errors
    /// The file of the lock cannot be opened.
    pub(crate) fn lock(&self) -> anyhow::Result<File> {
        let path = self.0.join("run/commands.lock");
        let lock = File::options().write(true).create(true).truncate(false).open(&path).and_then(|file| {
            file.lock()?;
            Ok(file)
        });
        lock.with_context(|| format!("locking {}", path.display()))
    }

    /// Where `selvedge up` keeps the addresses that it was told.
    pub(crate) fn addresses(&self) -> PathBuf {
        self.0.join("up.json")
    }

    /// The folder that users write policies in.
    pub(crate) fn config_dir(&self) -> PathBuf {
        self.0.join("mesh")
    }

    /// The state directory of the control plane.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.0.join("control-plane")
    }

    /// The join socket of the control plane.
    pub(crate) fn join_socket(&self) -> PathBuf {
        self.0.join("run/join.sock")
    }

    /// The folder of a sidecar that was joined here.
    pub(crate) fn sidecar(&self, name: &str) -> PathBuf {
        self.sidecars().join(name)
    }

    fn sidecars(&self) -> PathBuf {
        self.0.join("sidecars")
    }

    /// The names of all sidecars that were joined here.
    ///
    /// # Errors
    /// Their folder cannot be read.
    pub(crate) fn joined(&self) -> anyhow::Result<Vec<String>> {
        let folder = self.sidecars();
        let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| self.sidecar(name).join("sidecar.yaml").is_file()).collect();
        names.sort();
        Ok(names)
    }

    /// Where the control plane runs.
    pub(crate) fn control_plane(&self) -> Place {
        self.place("control-plane")
    }

    /// Where the sidecar of this name runs.
    pub(crate) fn running_sidecar(&self, name: &str) -> Place {
        self.place(&format!("sidecar-{name}"))
    }

    fn place(&self, name: &str) -> Place {
        Place {
            lock: self.0.join(format!("run/{name}.lock")),
            ports: self.0.join(format!("run/{name}.ports")),
            log: self.0.join(format!("logs/{name}.log")),
        }
    }
}
