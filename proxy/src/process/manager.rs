//! The service manager (systemd), as far as a process speaks with it: how far it is and that it lives, in datagrams
//! (sd_notify(3)), and the listeners that it keeps from one process to the next (file descriptor store, sd_listen_fds(3)).
//!
//! Guarantees: without a service manager nothing happens. What it cannot be told is logged, and ends nothing.

use std::{
    env, io,
    os::{
        fd::BorrowedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use crate::socket::pass;

mod kept;

pub(in crate::process) use kept::{Handed, handed};

/// How long a manager that does not read is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager that listens, if one does.
#[derive(Clone, Debug, Default)]
pub struct Manager(Option<Arc<UnixDatagram>>);

impl Manager {
    /// The one that started this process and wants to be told (`NOTIFY_SOCKET`).
    pub fn of_environment() -> Self {
        let Ok(address) = env::var("NOTIFY_SOCKET") else { return Self::default() };
        match connect(&address) {
            Ok(socket) => Self(Some(Arc::new(socket))),
            Err(error) => {
                tracing::warn!(%error, address, "the service manager hears nothing of this process");
                Self::default()
            }
        }
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Says that the process ends, and how far it is with that.
    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={status}"), &[]);
    }

    /// Says once when it is `ready`, and each time that this changes how it is, in words for people.
    pub async fn follow(self, mut ready: watch::Receiver<bool>, [waiting, serving]: [&str; 2]) {
        let mut is_said = false;
        while self.is_there() {
            let is_ready = *ready.borrow_and_update();
            let status = if is_ready { serving } else { waiting };
            let first = if is_ready && !is_said { "READY=1\n" } else { "" };
            is_said |= is_ready;
            self.tell(&format!("{first}STATUS={status}"), &[]);
            if ready.changed().await.is_err() {
                return;
            }
        }
    }

    /// Says that the process lives, as often as the manager wants to hear it (`WATCHDOG_USEC`), each time after it was seen that
    /// what matters in it `lives`, however long that takes.
    pub async fn watch<F: Future<Output = ()>>(self, lives: impl Fn() -> F) {
        let Some(wanted) = watchdog(|name| env::var(name).ok()) else { return };
        while self.is_there() {
            lives().await;
            self.tell("WATCHDOG=1", &[]);
            sleep(wanted / 2).await;
        }
    }

    fn tell(&self, text: &str, descriptors: &[BorrowedFd<'_>]) {
        if let Some(socket) = &self.0
            && let Err(error) = pass::send(socket, text.as_bytes(), descriptors)
        {
            tracing::warn!(%error, text, "the service manager was not told");
        }
    }
}

/// A socket that speaks to this address: a path, or after `@` an abstract name.
fn connect(address: &str) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// After how long without a word the manager takes this process for dead, if it does.
fn watchdog(said: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let number = |name| said(name)?.parse::<u64>().ok();
    let is_meant = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|wanted| is_meant && *wanted > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager, and what it hears.
    fn pair() -> (Manager, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        (Manager(Some(Arc::new(ours))), theirs)
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut text = [0; 200];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn it_hears_once_that_the_process_is_ready_and_always_how_it_is() {
        let (manager, socket) = pair();
        let (ready, follows) = watch::channel(false);
        let told = tokio::spawn(manager.follow(follows, ["waiting", "serving"]));
        for (is_ready, text) in [
            (None, "STATUS=waiting"),
            (Some(true), "READY=1\nSTATUS=serving"),
            (Some(false), "STATUS=waiting"),
            (Some(true), "STATUS=serving"),
        ] {
            if let Some(is_ready) = is_ready {
                ready.send_replace(is_ready);
            }
            tokio::task::yield_now().await;
            assert_eq!(heard(&socket), text);
        }
        drop(ready);
        told.await.unwrap();
        Manager::default().follow(watch::channel(false).1, ["", ""]).await; // nobody is told, and nothing is waited for
    }

    #[test]
    fn a_watchdog_of_another_process_is_none() {
        let own = std::process::id().to_string();
        for (wanted, process, expected) in [
            (Some("3000000"), None, Some(3)),
            (Some("3000000"), Some(&*own), Some(3)),
            (Some("3000000"), Some("1"), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
            (None, None, None),
        ] {
            let said = |name: &str| if name == "WATCHDOG_PID" { process } else { wanted }.map(str::to_owned);
            assert_eq!(watchdog(said).map(|wanted| wanted.as_secs()), expected);
        }
    }
}
