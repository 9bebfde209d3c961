//! Keeps the plugin installed: whoever writes the chain anew, as network plugins do when they start, loses it for moments
//! only. A pod that is made in such a moment is not captured, and its sidecar says so by never being ready.

use std::{
    fs::File,
    io::{self, Read},
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::sleep,
};

use crate::install::{InstallError, Node};

/// How long until it is looked again although nothing was seen to change.
const AGAIN: Duration = Duration::from_secs(10);

/// Settings of the command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    node: Node,
    /// Remove the plugin from the node on SIGTERM; else it stays, and goes on capturing pods
    #[arg(long)]
    remove_on_exit: bool,
}

impl Watch {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When the folders cannot be watched, or the plugin cannot be removed.
    pub(crate) fn run(&self) -> Result<String, InstallError> {
        let failed = |source| InstallError::File { path: self.node.conf_dir.clone(), done: "watched", source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(self.keep()).map_err(failed)?;
        if self.remove_on_exit { self.node.remove() } else { Ok("ended: the plugin stays installed".into()) }
    }

    async fn keep(&self) -> io::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut changes = changes(&self.node)?;
        let mut last = String::new();
        loop {
            let told = self.node.install().unwrap_or_else(|error| error.to_string());
            if told != last {
                eprintln!("selvedge-cni: {told}");
                last = told;
            }
            tokio::select! {
                Some(()) = changes.recv() => {}
                () = sleep(AGAIN) => {}
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    }
}

/// Tells when files of the node change; what comes while nobody has looked is one change.
fn changes(node: &Node) -> io::Result<mpsc::Receiver<()>> {
    let events = inotify::init(CreateFlags::CLOEXEC)?;
    let changes = WatchFlags::CLOSE_WRITE | WatchFlags::MOVE | WatchFlags::DELETE;
    for folder in [&node.conf_dir, &node.bin_dir] {
        inotify::add_watch(&events, folder, changes)?;
    }
    let (sender, receiver) = mpsc::channel(1);
    let mut events = File::from(events);
    std::thread::Builder::new().name("changes".into()).spawn(move || {
        while events.read(&mut [0; 4096]).is_ok() && !sender.is_closed() {
            let _ = sender.try_send(()); // full means that one is waiting
        }
    })?;
    Ok(receiver)
}
