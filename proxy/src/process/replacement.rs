//! Replacing the program of a running sidecar (hot restart): the new process takes the listeners of the old one over a Unix
//! socket in the state directory, which is handed on with them.
//!
//! Guarantees:
//! - Until the new process serves the old one does, as if nothing had been; it goes on when the new one ends before that.
//! - From when the old one stops taking connections the new one takes them. No queue is closed with connections in it.
//! - At every moment one of both writes to the state directory and renews the certificate.
//! - Only a process of the same user is given anything, one at a time.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use crate::socket::pass;

mod offer;
mod take;

pub(super) use offer::{Offer, Taken};
pub(super) use take::{Before, find, serves};

/// The socket at which a running sidecar is found.
const FILE: &str = "replace.sock";
/// What both sides speak; another number is another language.
const VERSION: u32 = 1;
/// The name under which that socket itself is handed on.
const OWN: &str = "replace";

/// What the two processes say to each other, each in a message of its own.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Message {
    /// The new one asks.
    Ask { version: u32 },
    /// The old one does not want to be replaced, and says why.
    Refused(String),
    /// The old one hands over sockets of the listener of this name.
    Listener(String),
    /// The old one has handed over all; whether it takes traffic.
    All { ready: bool },
    /// The new one serves, and has taken the listeners of these names.
    Serving { taken: Vec<String> },
    /// The old one writes nothing any more, and takes no connections at what was taken.
    Yours,
}

fn send(socket: &Socket, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    pass::send(socket, &serde_json::to_vec(message)?, descriptors)
}

fn receive(socket: &Socket) -> io::Result<(Message, Vec<OwnedFd>)> {
    let (text, descriptors) = pass::receive(socket)?;
    Ok((serde_json::from_slice(&text)?, descriptors))
}

fn unexpected(message: &Message) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{message:?} was not expected"))
}

fn socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::SEQPACKET, None)
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

#[cfg(test)]
mod tests;
