//! A service manager as systemd documents it (sd_notify(3), sd_listen_fds(3)): it hears what processes tell it, keeps the
//! descriptors that they send, and starts the next process with them.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};

use rustix::{
    cmsg_space,
    fs::fstat,
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
};
use tokio::sync::watch;

use crate::{program, skip, wait};

/// The lowest number of a descriptor that is kept: none is in the way of those that a process is handed.
const LOWEST: i32 = 200;

/// Starts processes, hears them, and keeps what they send.
pub struct Manager {
    socket: PathBuf,
    seen: Arc<watch::Sender<Seen>>,
}

/// What was heard so far.
#[derive(Default)]
struct Seen {
    /// The lines of all messages, in order.
    lines: Vec<String>,
    /// Descriptors with their names.
    kept: Vec<(String, OwnedFd)>,
}

impl Manager {
    /// One that listens in this folder.
    pub fn start(folder: &Path) -> Self {
        let path = folder.join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a socket in the folder");
        let seen = Arc::new(watch::Sender::new(Seen::default()));
        let weak = Arc::downgrade(&seen);
        thread::spawn(move || {
            while let Ok((text, descriptors)) = receive(&socket) {
                let Some(seen) = weak.upgrade() else { return };
                seen.send_modify(|seen| seen.note(&text, descriptors));
            }
        });
        Self { socket: path, seen }
    }

    /// Whether a process could take here what is kept for it; false after saying that the test is skipped.
    pub fn is_able() -> bool {
        let own = pidfd_open(getpid(), PidfdFlags::empty());
        let taken = own.and_then(|own| pidfd_getfd(&own, own.as_raw_fd(), PidfdGetfdFlags::empty()));
        if let Err(error) = &taken {
            skip(&format!("this system does not let a process duplicate a descriptor by its number ({error})"));
        }
        taken.is_ok() && program("bash").is_some()
    }

    /// `command` as it is started here: told where to speak, that it is to be heard every so many milliseconds, and with what is
    /// kept for it.
    pub fn wrap(&self, command: &Command, watchdog: u64) -> Command {
        let mut wrapped = Command::new("bash");
        let seen = self.seen.borrow();
        let names: Vec<&str> = seen.kept.iter().map(|(name, _)| &**name).collect();
        let numbers = seen.kept.iter().map(|(_, descriptor)| descriptor.as_raw_fd()).enumerate();
        let moves: String = numbers.map(|(index, number)| format!(" {}<&{number} {number}<&-", index + 3)).collect();
        let script = format!("export LISTEN_PID=$$ WATCHDOG_PID=$$; exec \"$@\"{moves}");
        wrapped.args(["-c", &script, "bash"]).arg(command.get_program()).args(command.get_args());
        wrapped.env("NOTIFY_SOCKET", &self.socket).env("WATCHDOG_USEC", (watchdog * 1000).to_string());
        wrapped.env("FDSTORE", "512").env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        wrapped
    }

    /// Keeps a descriptor that no process has sent, as for a socket unit.
    pub fn keep(&self, name: &str, descriptor: impl Into<OwnedFd>) {
        self.seen.send_modify(|seen| seen.keep(name, &descriptor.into()));
    }

    /// How often a line that begins so was heard.
    pub fn heard(&self, line: &str) -> usize {
        self.seen.borrow().lines.iter().filter(|heard| heard.starts_with(line)).count()
    }

    /// Waits until such a line was heard so often.
    pub async fn hears(&self, line: &str, times: usize) {
        let what = format!("the service manager hears {line} {times} times");
        wait::until_true(&what, || std::future::ready(self.heard(line) >= times)).await;
    }

    /// The names of the descriptors that are kept.
    pub fn kept(&self) -> Vec<String> {
        self.seen.borrow().kept.iter().map(|(name, _)| name.clone()).collect()
    }
}

impl Seen {
    fn note(&mut self, text: &str, descriptors: Vec<OwnedFd>) {
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored");
        assert!(!name.contains(':'), "systemd takes no such name: {name}");
        if text.lines().any(|line| line == "FDSTOREREMOVE=1") {
            self.kept.retain(|(kept, _)| kept != name);
        }
        if text.lines().any(|line| line == "FDSTORE=1") {
            descriptors.iter().for_each(|descriptor| self.keep(name, descriptor));
        }
        self.lines.extend(text.lines().map(str::to_owned));
    }

    /// Keeps it, unless it is kept already: open over the start of another program.
    fn keep(&mut self, name: &str, descriptor: &OwnedFd) {
        let is_same = |kept: &OwnedFd| inode(kept) == inode(descriptor);
        if !self.kept.iter().any(|(_, kept)| is_same(kept)) {
            let kept = fcntl_dupfd_cloexec(descriptor, LOWEST).expect("a duplicate");
            fcntl_setfd(&kept, FdFlags::empty()).expect("it is inherited");
            self.kept.push((name.to_owned(), kept));
        }
    }
}

fn inode(descriptor: &OwnedFd) -> u64 {
    fstat(descriptor).expect("an open descriptor").st_ino
}

fn receive(socket: impl AsFd) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut text = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(64))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(&socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    text.truncate(received.bytes);
    Ok((String::from_utf8_lossy(&text).into_owned(), descriptors))
}
