//! Processes that go on when the command that started them, and its terminal, are gone.
//!
//! A lock says that such a process runs, and its file which one: `selvedge background` takes the lock, writes its number and
//! becomes the command, which holds the lock for as long as it lives. So a number is never believed that the kernel has given
//! to somebody else meanwhile.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::{
    io::{Errno, FdFlags, fcntl_setfd},
    process::{Pid, Signal, kill_process, setsid},
};
use tokio::time::{Instant, sleep};

use crate::{child::own_binary, logfile, probe};

/// How often it is looked whether something has come about.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// How often it is looked whether a lock is free.
const LOOKS: u32 = 50;
/// How much of a log is shown of a process that failed, in bytes.
const TAIL: u64 = 2000;

/// The arguments of `selvedge background`.
#[derive(Debug, clap::Args)]
pub struct BackgroundArgs {
    /// The file whose lock says that the command runs.
    #[arg(long, value_name = "FILE")]
    lock: PathBuf,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

/// Takes the lock, leaves the terminal and becomes the command.
///
/// # Errors
/// Somebody has the lock, or the command cannot be started.
pub fn run(args: BackgroundArgs) -> anyhow::Result<()> {
    let mut lock = open(&args.lock)?;
    // Whoever looks whether it runs has the lock for a moment.
    for tries_left in (0..LOOKS).rev() {
        match lock.try_lock() {
            Ok(()) => break,
            Err(_) if tries_left > 0 => std::thread::sleep(POLL),
            Err(_) => bail!("{} is locked: it runs already", args.lock.display()),
        }
    }
    // What is in it is of the process before; whoever looks in this moment finds none.
    lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).context("writing the lock file")?;
    // It may be the first process of its session already.
    let _ = setsid();
    // The command inherits it, and so holds the lock.
    fcntl_setfd(&lock, FdFlags::empty()).context("keeping the lock")?;
    let mut words = args.command.into_iter();
    let Some(program) = words.next() else { bail!("no command was given") };
    let failed = Command::new(&program).args(words).exec();
    Err(anyhow::Error::new(failed).context(format!("starting {}", program.to_string_lossy())))
}

fn open(lock: &Path) -> anyhow::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(lock);
    file.with_context(|| format!("opening {}", lock.display()))
}

/// Where one such process leaves its traces.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Locked while it runs.
    pub(crate) lock: PathBuf,
    /// The addresses it has bound, as JSON, once it has.
    pub(crate) ports: PathBuf,
    /// Its output and errors, of all its starts; what was before the last ten MiB or so is gone.
    pub(crate) log: PathBuf,
}

impl Place {
    /// The process, while it runs.
    ///
    /// # Errors
    /// The lock file cannot be read.
    pub(crate) fn running(&self) -> anyhow::Result<Option<Pid>> {
        if !self.lock.exists() {
            return Ok(None);
        }
        let mut lock = open(&self.lock)?;
        // Several may look at once, and keep nobody from looking.
        match lock.try_lock_shared() {
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(e).with_context(|| format!("locking {}", self.lock.display())),
        }
        let mut text = String::new();
        lock.read_to_string(&mut text).with_context(|| format!("reading {}", self.lock.display()))?;
        Ok(text.trim().parse().ok().and_then(Pid::from_raw))
    }

    /// Starts `selvedge` with these words, and returns once `path` of the listener `port` is answered with a success.
    ///
    /// # Errors
    /// It ends, or does not get ready within `patience`; the end of its log says why.
    pub(crate) async fn start(
        &self,
        words: &[OsString],
        (port, path): (&str, &str),
        patience: Duration,
    ) -> anyhow::Result<()> {
        let _ = fs::remove_file(&self.ports);
        let log = logfile::put_aside(&self.log).and_then(|empty| empty.map_or_else(|| logfile::open(&self.log), Ok));
        let mut log = log.with_context(|| format!("opening {}", self.log.display()))?;
        let from = log.seek(std::io::SeekFrom::End(0)).context("reading the log")?;
        let binary = own_binary()?;
        let mut child = Command::new(&binary)
            .args(["background".as_ref(), "--lock".as_ref(), self.lock.as_os_str(), "--".as_ref(), binary.as_os_str()])
            .args(words)
            .env(logfile::VARIABLE, &self.log)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("opening the log")?)
            .stderr(log)
            .current_dir("/")
            .spawn()
            .context("starting it")?;
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = child.try_wait().context("waiting for it")? {
                bail!("it ended ({status}):\n{}", self.tail(from));
            }
            if let Some(address) = self.port(port)
                && probe::get(address, path).await.is_ok()
            {
                return Ok(());
            }
            if Instant::now() > until {
                bail!(
                    "it is not ready after {} s, and goes on trying; it says in {}:\n{}",
                    patience.as_secs(),
                    self.log.display(),
                    self.tail(from)
                );
            }
            sleep(POLL).await;
        }
    }

    /// The address that it has bound for `port`, as this machine reaches it.
    pub(crate) fn port(&self, port: &str) -> Option<SocketAddr> {
        let ports: serde_json::Value = serde_json::from_slice(&fs::read(&self.ports).ok()?).ok()?;
        let mut address: SocketAddr = ports[port].as_str()?.parse().ok()?;
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        Some(address)
    }

    /// What was complained of last, after `from`.
    fn tail(&self, from: u64) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(from.max((text.len() as u64).saturating_sub(TAIL))).unwrap_or(0);
        let text = String::from_utf8_lossy(text.get(from..).unwrap_or_default());
        text.lines().filter(|line| !line.contains(" INFO ")).collect::<Vec<_>>().join("\n")
    }

    /// Tells it to end, and returns when it has; false when there is none.
    ///
    /// # Errors
    /// It cannot be told, or goes on for longer than `patience`.
    pub(crate) async fn end(&self, patience: Duration) -> anyhow::Result<bool> {
        let Some(pid) = self.running()? else { return Ok(false) };
        tell_to_end(pid)?;
        let until = Instant::now() + patience;
        while self.running()?.is_some() {
            if Instant::now() > until {
                bail!(
                    "process {} goes on after {} s; see {}",
                    pid.as_raw_nonzero(),
                    patience.as_secs(),
                    self.log.display()
                );
            }
            sleep(POLL).await;
        }
        Ok(true)
    }
}

/// Sends SIGTERM to a process that ran a moment ago. That it has ended since is as good.
///
/// # Errors
/// It is another user's.
pub(crate) fn tell_to_end(pid: Pid) -> anyhow::Result<()> {
    match kill_process(pid, Signal::TERM) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(e) => Err(e).context("telling it to end"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_ends_by_itself_in_the_moment_it_is_told_to_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let place = Place { lock: place("lock"), ports: place("ports"), log: place("log") };
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let lock = open(&place.lock).unwrap();
        lock.lock().unwrap();
        fs::write(&place.lock, ended.id().to_string()).unwrap();
        let unlock = async {
            sleep(POLL * 3).await;
            drop(lock);
        };
        let (told, ()) = tokio::join!(place.end(Duration::from_secs(60)), unlock);
        assert!(told.unwrap());
    }
}
