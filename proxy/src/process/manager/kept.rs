//! Listeners that the service manager has: those of a socket unit, and those that an earlier process let it keep.
//!
//! A listener is known by its name here where the manager says one that is made of it, else by where it listens. It comes as a
//! descriptor of a fixed number, which safe code cannot take; a duplicate that the kernel makes of it (`pidfd_getfd`) it can.

use std::{
    collections::HashMap,
    env, io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::Manager;
use crate::{
    process::listeners::{Bound, name},
    socket::{self, pass},
};

/// The number of the first descriptor that is handed over (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// What the manager hands over.
#[derive(Debug, Default)]
pub(in crate::process) struct Handed {
    /// Listeners, by name.
    pub(in crate::process) listeners: HashMap<String, Vec<TcpListener>>,
    /// The names of those that it keeps for us.
    kept: Vec<String>,
    /// The names of those that are its own.
    own: Vec<String>,
}

impl Handed {
    /// Whether there is anything.
    pub(in crate::process) fn is_any(&self) -> bool {
        !self.kept.is_empty() || !self.own.is_empty()
    }

    fn add(&mut self, said: &str, descriptor: OwnedFd) -> io::Result<()> {
        let listener = TcpListener::from(descriptor);
        let address = listener.local_addr()?;
        socket::adopt(&listener)?;
        let (name, names) = match decoded(said) {
            Some(name) => (name, &mut self.kept),
            None => (name(address, 0), &mut self.own),
        };
        if !names.contains(&name) {
            names.push(name.clone());
        }
        self.listeners.entry(name).or_default().push(listener);
        Ok(())
    }

    /// Refuses those of them that are `left` because nobody takes what waits there.
    pub(in crate::process) fn refuse(&self, left: &[TcpListener]) {
        for listener in left.iter().filter(|_| self.is_any()) {
            tracing::warn!(address = ?listener.local_addr(), "the service manager listens where this sidecar does not");
            let _ = socket::refuse(listener); // it is closed, then
        }
    }
}

/// Takes what the manager hands over to this process (`LISTEN_FDS`).
///
/// # Errors
/// The kernel does not let it have it.
pub(in crate::process) fn handed() -> io::Result<Handed> {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    let is_meant = number("LISTEN_PID") == Some(std::process::id());
    let count = number("LISTEN_FDS").filter(|_| is_meant).and_then(|count| RawFd::try_from(count).ok()).unwrap_or(0);
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut handed = Handed::default();
    for descriptor in FIRST..FIRST.saturating_add(count) {
        let said = names.next().unwrap_or_default();
        if let Err(error) = handed.add(said, duplicate(descriptor)?) {
            tracing::warn!(%error, name = said, "the service manager hands over what is no listener of TCP");
        }
    }
    Ok(handed)
}

fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own, descriptor, PidfdGetfdFlags::empty())?)
}

/// Whether a next process of this program could take what is kept.
fn can_be_taken() -> io::Result<()> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    duplicate(own.as_raw_fd()).map(drop)
}

/// Whether the manager says that it keeps descriptors: what it does not keep is dropped without a word.
fn has_room() -> bool {
    env::var("FDSTORE").is_ok_and(|most| most.parse::<u32>().is_ok_and(|most| most > 0))
}

/// A name as the manager takes it: without colons.
fn encoded(name: &str) -> String {
    name.replace(':', "_")
}

/// The listener that has this name with the manager, if it is one of ours.
fn decoded(said: &str) -> Option<String> {
    let name = said.replace('_', ":");
    let (address, number) = name.rsplit_once('#')?;
    let is_ours = address.parse::<SocketAddr>().is_ok() && number.parse::<usize>().is_ok();
    is_ours.then_some(name)
}

impl Manager {
    /// Has it keep these listeners for the next process, but for those that are its own; of what it `handed` over for us before it
    /// forgets the rest. False where there is no manager, it does not say that it keeps any, or a next process could not take
    /// them.
    pub(in crate::process) fn keep(&self, listeners: &[Bound], handed: &Handed) -> bool {
        if !self.is_there() || (handed.kept.is_empty() && !has_room()) {
            return false;
        }
        if let Err(error) = can_be_taken() {
            tracing::warn!(%error, "the service manager keeps no listeners: pidfd_getfd, of Linux 5.6, is not allowed here");
            return false;
        }
        for name in handed.kept.iter().filter(|name| listeners.iter().all(|bound| bound.name != **name)) {
            self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={}", encoded(name)), &[]);
        }
        for bound in listeners.iter().filter(|bound| !handed.own.contains(&bound.name)) {
            let sockets: Vec<Arc<TcpListener>> = bound.sockets.iter().filter_map(|socket| socket.upgrade()).collect();
            let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
            for some in descriptors.chunks(pass::MOST) {
                // Without FDPOLL=0 it drops one that refuses connections for a while.
                self.tell(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={}", encoded(&bound.name)), some);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_listener_is_known_by_our_name_or_by_where_it_is() {
        for name in ["127.0.0.1:0#3", "[::1]:8080#0", "[fe80::1]:80#0"] {
            assert!(!encoded(name).contains(':'));
            assert_eq!(decoded(&encoded(name)).as_deref(), Some(name));
        }
        for said in ["", "selvedge.socket", "web_1#0", "127.0.0.1_80", "127.0.0.1_80#"] {
            assert_eq!(decoded(said), None, "{said}");
        }
        let mut handed = Handed::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        handed.add("127.0.0.1_0#1", listener.try_clone().unwrap().into()).unwrap();
        handed.add("web.socket", listener.try_clone().unwrap().into()).unwrap();
        handed.add("web.socket", listener.into()).unwrap();
        assert_eq!(handed.listeners["127.0.0.1:0#1"].len(), 1);
        assert_eq!(handed.listeners[&format!("{address}#0")].len(), 2);
        let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
        handed.add("127.0.0.1_0#2", other.into()).unwrap_err();
        assert_eq!((handed.kept.len(), handed.own.len()), (1, 1));
    }

    #[test]
    fn a_descriptor_is_taken_by_its_number() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        match duplicate(listener.as_raw_fd()) {
            Ok(taken) => assert_eq!(TcpListener::from(taken).local_addr().unwrap(), listener.local_addr().unwrap()),
            Err(error) => {
                assert!([Errno::PERM, Errno::NOSYS].map(Some).contains(&Errno::from_io_error(&error)), "{error}")
            }
        }
    }
}
