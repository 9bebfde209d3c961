//! The old process: it offers its listeners to whoever comes to replace it.

use std::{
    fs, io,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{net::sockopt::socket_peercred, process::geteuid};
use socket2::{SockAddr, Socket};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Message, OWN, VERSION, path, receive, send, socket, unexpected};
use crate::{process::listeners::Bound, socket::pass};

/// How long the new process may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a running sidecar offers.
pub(in crate::process) struct Offer {
    /// Its listeners.
    pub(in crate::process) listeners: Vec<Bound>,
    /// Whether it takes traffic.
    pub(in crate::process) ready: watch::Receiver<bool>,
    /// Takes what was taken, once; not any more when it ends.
    pub(in crate::process) taken: mpsc::Sender<Taken>,
}

/// A new process serves.
#[derive(Debug)]
pub(in crate::process) struct Taken {
    /// The names of the listeners that it has.
    pub(in crate::process) names: Vec<String>,
    /// To be told when this process writes nothing any more.
    pub(in crate::process) done: oneshot::Sender<()>,
}

impl Offer {
    /// Offers in a thread of its own, at the socket of this state directory: the one that was handed on, or a new one.
    ///
    /// # Errors
    /// The socket cannot be made, for instance because the path is too long.
    pub(in crate::process) fn start(self, state_dir: &Path, handed_on: Option<Socket>) -> io::Result<()> {
        let socket = match handed_on {
            Some(socket) => socket,
            None => listen(state_dir)?,
        };
        thread::Builder::new().name("replacement".into()).spawn(move || self.run(&socket))?;
        Ok(())
    }

    fn run(&self, socket: &Socket) {
        loop {
            match socket.accept().and_then(|(peer, _)| self.hand_over(socket, &peer)) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "a new process did not take the place of this one, which goes on");
                    thread::sleep(Duration::from_millis(50)); // out of descriptors it would only spin
                }
            }
        }
    }

    fn hand_over(&self, own: &Socket, peer: &Socket) -> io::Result<()> {
        peer.set_read_timeout(Some(PATIENCE))?;
        peer.set_write_timeout(Some(PATIENCE))?;
        if let Err(why) = self.may(peer) {
            send(peer, &Message::Refused(why.clone()), &[])?;
            return Err(io::Error::other(why));
        }
        send(peer, &Message::Listener(OWN.into()), &[own.as_fd()])?;
        for bound in &self.listeners {
            let sockets: Vec<Arc<TcpListener>> = bound.sockets.iter().filter_map(|socket| socket.upgrade()).collect();
            let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
            for some in descriptors.chunks(pass::MOST) {
                send(peer, &Message::Listener(bound.name.clone()), some)?;
            }
        }
        send(peer, &Message::All { ready: *self.ready.borrow() }, &[])?;
        // However long it takes to start: when it ends the connection does, too.
        peer.set_read_timeout(None)?;
        match receive(peer)?.0 {
            Message::Serving { taken } => self.leave(peer, taken),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether this peer may take what is here; if not, why.
    fn may(&self, peer: &Socket) -> Result<(), String> {
        let (theirs, ours) = (socket_peercred(peer).map_err(|error| error.to_string())?.uid, geteuid());
        if theirs != ours {
            return Err(format!("it runs as user {ours:?}, and the new process as {theirs:?}"));
        }
        match receive(peer).map_err(|error| error.to_string())?.0 {
            Message::Ask { version: VERSION } if !self.taken.is_closed() => Ok(()),
            Message::Ask { version: VERSION } => Err("it is ending already".into()),
            Message::Ask { .. } => Err("it is of a release that hands over in another way".into()),
            other => Err(unexpected(&other).to_string()),
        }
    }

    /// The new process serves: from now on nothing brings this one back.
    fn leave(&self, peer: &Socket, names: Vec<String>) -> io::Result<()> {
        let (done, told) = oneshot::channel();
        if self.taken.blocking_send(Taken { names, done }).is_ok() {
            let _ = told.blocking_recv(); // it may have ended instead
        }
        // Who serves and hears nothing more finds out by itself that this process ends.
        let _ = send(peer, &Message::Yours, &[]);
        Ok(())
    }
}

/// A socket at the path of this state directory, for its owner alone. A name that an earlier process left is given anew.
fn listen(state_dir: &Path) -> io::Result<Socket> {
    let (path, draft) = (path(state_dir), path(state_dir).with_extension("new"));
    if draft.exists() {
        fs::remove_file(&draft)?;
    }
    let socket = socket()?;
    socket.bind(&SockAddr::unix(&draft)?)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
    socket.listen(16)?;
    fs::rename(&draft, &path)?;
    Ok(socket)
}
