//! The new process: it takes the listeners of the one that runs.

use std::{collections::HashMap, io, net::TcpListener, path::Path, thread, time::Duration};

use rustix::{net::sockopt::socket_peercred, process::geteuid};
use socket2::{SockAddr, Socket};
use tokio::sync::watch;

use super::{Message, OWN, VERSION, path, receive, send, socket, unexpected};
use crate::process::error::StartError;

/// How often a process is asked that has just been replaced itself, or has ended, and how long after one another.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// The process before this one, which serves until it is told that this one does.
pub(in crate::process) struct Before {
    pub(super) connection: Socket,
    /// Its process id, as the kernel says.
    pub(in crate::process) process: i32,
    /// Its listeners, by name.
    pub(in crate::process) listeners: HashMap<String, Vec<TcpListener>>,
    /// Where the next process will ask.
    pub(in crate::process) socket: Option<Socket>,
    /// Whether it takes traffic.
    pub(in crate::process) ready: bool,
}

/// Asks the sidecar that runs with this state directory for its listeners; waits while it is being replaced by another
/// process. `None` where none runs.
///
/// # Errors
/// It does not want to be replaced.
pub(in crate::process) fn find(state_dir: &Path) -> Result<Option<Before>, StartError> {
    let failed = |problem: String| StartError::Replace { path: state_dir.to_owned(), problem };
    for _ in 0..ATTEMPTS {
        match connect(state_dir).and_then(ask) {
            Ok(Ok(before)) => return Ok(Some(before)),
            Ok(Err(refused)) => return Err(failed(refused)),
            Err(error) if is_nobody(&error) => return Ok(None),
            // Another process has taken its place, or it has died: the next attempt shows which.
            Err(error) if is_gone(&error) => thread::sleep(PAUSE),
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Ok(None)
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn connect(state_dir: &Path) -> io::Result<Socket> {
    let socket = socket()?;
    socket.connect(&SockAddr::unix(path(state_dir))?)?;
    Ok(socket)
}

/// What the old process hands over, or why it does not.
fn ask(connection: Socket) -> io::Result<Result<Before, String>> {
    let old = socket_peercred(&connection)?;
    if old.uid != geteuid() {
        return Ok(Err(format!("it belongs to user {:?}", old.uid)));
    }
    send(&connection, &Message::Ask { version: VERSION }, &[])?;
    let mut listeners: HashMap<String, Vec<TcpListener>> = HashMap::new();
    let mut own = None;
    let ready = loop {
        let (message, descriptors) = receive(&connection)?;
        match message {
            Message::Listener(name) if name == OWN => own = descriptors.into_iter().next().map(Socket::from),
            Message::Listener(name) => {
                listeners.entry(name).or_default().extend(descriptors.into_iter().map(TcpListener::from));
            }
            Message::All { ready } => break ready,
            Message::Refused(why) => return Ok(Err(why)),
            other => return Err(unexpected(&other)),
        }
    };
    let process = old.pid.as_raw_nonzero().get();
    Ok(Ok(Before { connection, process, listeners, socket: own, ready }))
}

/// Takes the place of the process `before` this one, if there is one, as [`Before::serves`] does.
pub(in crate::process) async fn serves(
    before: Option<Before>,
    taken: Vec<String>,
    tenure: &watch::Sender<bool>,
) -> Option<Socket> {
    match before {
        Some(before) => before.serves(taken, tenure).await,
        None => None,
    }
}

impl Before {
    /// Takes its place: this process serves, with the listeners of these names, and keeps what is kept from when the old one
    /// does not any more. Returns where the next process will ask.
    async fn serves(mut self, taken: Vec<String>, tenure: &watch::Sender<bool>) -> Option<Socket> {
        let (socket, process) = (self.socket.take(), self.process);
        let told = tokio::task::spawn_blocking(move || self.serving(taken)).await;
        told.unwrap_or_else(|error| tracing::error!(%error, "the process before this one was not told"));
        tenure.send_replace(true);
        tracing::info!(process, "this process has taken the place of another");
        socket
    }

    /// Says that this process serves; returns when the old one writes nothing any more, or has died, which comes to the same.
    pub(super) fn serving(&self, taken: Vec<String>) {
        let told = send(&self.connection, &Message::Serving { taken }, &[]).and_then(|()| receive(&self.connection));
        if let Err(error) = told {
            tracing::warn!(%error, "the process before this one has ended by itself");
        }
    }
}
