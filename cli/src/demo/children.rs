//! The processes of the demo. Dropping [`Children`] and its runtime kills what is left; see also [`crate::child`].

use std::{
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use crate::child;

/// How long a process may take to finish once it is told to, before it is told again: a sidecar waits for its
/// application, which here ends at the same time.
const FIRST: Duration = Duration::from_secs(1);
/// How long it may take after that.
const SECOND: Duration = Duration::from_secs(2);
/// How much of a log an error shows.
const TAIL: usize = 2000;

/// All processes that were started.
pub(super) struct Children {
    logs: PathBuf,
    tending: JoinSet<()>,
    stop: watch::Sender<bool>,
    ended: mpsc::UnboundedSender<Ended>,
    endings: mpsc::UnboundedReceiver<Ended>,
}

struct Ended {
    name: String,
    status: String,
}

impl Children {
    /// None yet; what they print goes to files in `logs`.
    pub(super) fn new(logs: PathBuf) -> Self {
        let (ended, endings) = mpsc::unbounded_channel();
        Self { logs, tending: JoinSet::new(), stop: watch::Sender::new(false), ended, endings }
    }

    /// Starts this binary with other arguments, in a network namespace if one is named. Returns the process id.
    pub(super) fn start(&mut self, name: &str, namespace: Option<&str>, args: Vec<OsString>) -> anyhow::Result<u32> {
        let mut command: Vec<OsString> = vec![child::own_binary().context("finding this binary")?.into()];
        command.extend(args);
        self.start_command(name, namespace, None, command)
    }

    /// Starts any command as a child, and as another user if one is named.
    pub(super) fn start_command(
        &mut self,
        name: &str,
        namespace: Option<&str>,
        user: Option<u32>,
        command: Vec<OsString>,
    ) -> anyhow::Result<u32> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(namespace) = namespace {
            words.extend(["ip", "netns", "exec", namespace].map(OsString::from));
        }
        words.extend(child::tied(user, command).context("finding this binary")?);
        let log = File::create(self.logs.join(format!("{name}.log"))).context("creating a log file")?;
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing a log file")?)
            .stderr(log)
            // Ctrl-C is for the demo, which stops the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let id = child.id().with_context(|| format!("{name} ended at once"))?;
        let (name, ended, stop) = (name.to_owned(), self.ended.clone(), self.stop.subscribe());
        self.tending.spawn(async move {
            if let Some(status) = tend(&mut child, stop).await {
                let _ = ended.send(Ended { name, status });
            }
        });
        Ok(id)
    }

    /// Returns when a process ends that should not, with the reason and the end of its log.
    pub(super) async fn failure(&mut self) -> anyhow::Error {
        match self.endings.recv().await {
            Some(Ended { name, status }) => {
                let log = tail(&self.logs.join(format!("{name}.log")));
                anyhow::anyhow!("{name} ended unexpectedly ({status}); its last words:\n{log}")
            }
            None => anyhow::anyhow!("the processes are not watched any more"),
        }
    }

    /// Stops all processes: SIGTERM twice, and SIGKILL to what still runs after a while.
    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tending.join_next().await.is_some() {}
    }
}

/// Waits for the end of a process; returns how it ended unless it was told to.
async fn tend(child: &mut Child, mut stop: watch::Receiver<bool>) -> Option<String> {
    tokio::select! {
        status = child.wait() => return Some(status.map_or_else(|e| e.to_string(), |s: ExitStatus| s.to_string())),
        _ = stop.wait_for(|stop| *stop) => {}
    }
    for patience in [FIRST, SECOND] {
        if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // The group, because a shell may still wait for what it started.
            let _ = kill_process_group(pid, Signal::TERM);
        }
        if timeout(patience, child.wait()).await.is_ok() {
            return None;
        }
    }
    let _ = child.kill().await;
    None
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).into_owned()
}
