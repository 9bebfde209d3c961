//! Putting the plugin on a node and taking it away. What runtimes read is replaced by renames, so that it is whole at every
//! moment; the chain names the program only while the program is there.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

pub(crate) mod chain;

/// The name of the program on the node, which the chain calls it by.
const PROGRAM: &str = "selvedge-cni";
/// The extension of what is being written; runtimes read no such files.
const DRAFT: &str = "selvedge-draft";
/// Runtimes read the chain again when it changes. What one began by the old chain still finds the program.
const SETTLE: Duration = Duration::from_secs(2);
/// How often a file is read again that somebody writes at the same time.
const ATTEMPTS: usize = 10;

/// Where a node has its network plugins.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Node {
    /// Folder of the node's network plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub(crate) bin_dir: PathBuf,
    /// Folder of the node's network configuration
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(crate) conf_dir: PathBuf,
}

/// Why the node could not be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// The cluster's own network is not there yet.
    #[error(
        "{0} has no network configuration that can be used yet: it is added when the cluster's network plugin is there"
    )]
    NoNetwork(PathBuf),
    /// A file or folder does not do what it should.
    #[error("{path} cannot be {done}: {source}")]
    File {
        /// What it is.
        path: PathBuf,
        /// What could not be done to it.
        done: &'static str,
        /// What the system says of it.
        source: io::Error,
    },
    /// Somebody else writes the same file all the time.
    #[error("{0} is being written by somebody else again and again")]
    Contended(PathBuf),
    /// It is not installed, or not whole.
    #[error("not installed: {0}")]
    Missing(String),
}

impl InstallError {
    fn file(path: &Path, done: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, done, source }
    }
}

impl Node {
    /// Puts the program on the node, then adds it to the chain.
    ///
    /// # Errors
    /// When a file cannot be read or written, or there is no chain to add it to.
    pub(crate) fn install(&self) -> Result<String, InstallError> {
        let program = own_program()?;
        let at = self.bin_dir.join(PROGRAM);
        if !is_installed(&at, &program) {
            sweep(&self.bin_dir)?;
            replace(&at, &program, Permissions::from_mode(0o755))?;
        }
        for _ in 0..ATTEMPTS {
            let Some(first) = chain::first(&self.conf_dir)? else {
                return Err(InstallError::NoNetwork(self.conf_dir.clone()));
            };
            if first.is_ours() {
                return Ok(format!("installed: {} names {PROGRAM}", first.path().display()));
            }
            sweep(&self.conf_dir)?;
            first.add()?;
        }
        Err(InstallError::Contended(self.conf_dir.clone()))
    }

    /// Takes the program out of every chain, then from the node.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(crate) fn remove(&self) -> Result<String, InstallError> {
        let changed = chain::remove(&self.conf_dir)?;
        let at = self.bin_dir.join(PROGRAM);
        if at.exists() {
            if changed {
                sleep(SETTLE);
            }
            fs::remove_file(&at).map_err(InstallError::file(&at, "removed"))?;
        }
        Ok(format!("removed: no chain in {} names {PROGRAM}", self.conf_dir.display()))
    }

    /// Says whether it is installed.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn check(&self) -> Result<String, InstallError> {
        let at = self.bin_dir.join(PROGRAM);
        if !is_installed(&at, &own_program()?) {
            return Err(InstallError::Missing(format!("{} is not this program", at.display())));
        }
        match chain::first(&self.conf_dir)? {
            Some(first) if first.is_ours() => Ok(format!("installed: {} names {PROGRAM}", first.path().display())),
            Some(first) => Err(InstallError::Missing(format!("{} does not name {PROGRAM}", first.path().display()))),
            None => Err(InstallError::NoNetwork(self.conf_dir.clone())),
        }
    }
}

fn own_program() -> Result<Vec<u8>, InstallError> {
    let path = Path::new("/proc/self/exe");
    fs::read(path).map_err(InstallError::file(path, "read"))
}

fn is_installed(at: &Path, program: &[u8]) -> bool {
    let executable = fs::metadata(at).is_ok_and(|found| found.permissions().mode() & 0o111 == 0o111);
    executable && fs::read(at).is_ok_and(|found| found == program)
}

/// Puts a file with `content` in place of the one at `path`, if there is one; it is whole at every moment, also after a
/// power cut.
fn replace(path: &Path, content: &[u8], mode: Permissions) -> Result<(), InstallError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.{DRAFT}-{:016x}", fastrand::u64(..)));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(content)?;
        file.set_permissions(mode)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    let written = write();
    if written.is_err() {
        // The message is that of what failed.
        let _ = fs::remove_file(&draft);
    }
    written.and_then(|()| sync_names(path)).map_err(InstallError::file(path, "written"))
}

/// Waits until the disk has what became of the names beside `path`.
fn sync_names(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Removes what a process left in `folder` that ended while it wrote. Should one be writing still, its rename fails and it
/// tries again.
fn sweep(folder: &Path) -> Result<(), InstallError> {
    for entry in fs::read_dir(folder).map_err(InstallError::file(folder, "listed"))?.flatten() {
        let is_draft = |extension: &std::ffi::OsStr| extension.as_encoded_bytes().starts_with(DRAFT.as_bytes());
        if entry.path().extension().is_some_and(is_draft) {
            fs::remove_file(entry.path()).map_err(InstallError::file(&entry.path(), "removed"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
