//! Netlink: asking the kernel without a program in between, in the network namespace of the calling thread.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

mod message;

pub(crate) use message::{Reply, attribute, attributes, message, nested, number, replies, text};

/// `NLMSG_ERROR`, also a plain acknowledgement, and `NLMSG_DONE`.
pub(crate) const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_DUMP`: all that there is.
pub(crate) const LIST: u16 = 0x300;
/// The kernel answers while it is asked; this only keeps a defect from hanging.
const PATIENCE: Duration = Duration::from_secs(10);

/// A socket to one part of the kernel.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Opens it to the part that `protocol` (`NETLINK_...`) names.
    pub(crate) fn open(protocol: Protocol) -> Result<Self, Errno> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Sends messages as they are.
    pub(crate) fn send(&self, messages: &[u8]) -> Result<(), Errno> {
        send(&self.0, messages, SendFlags::empty()).map(drop)
    }

    /// The next datagram: whole messages, one after the other. Waits for it unless `flags` say otherwise.
    pub(crate) fn receive(&self, flags: RecvFlags) -> Result<Vec<u8>, Errno> {
        let mut datagram = vec![0; 64 * 1024];
        let (length, _) = recv(&self.0, &mut datagram[..], flags)?;
        datagram.truncate(length);
        Ok(datagram)
    }

    /// The bodies of all that a `request` with [`LIST`] is answered by.
    pub(crate) fn list(&self, request: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
        self.send(request)?;
        let mut listed = Vec::new();
        loop {
            for reply in replies(&self.receive(RecvFlags::empty())?) {
                match reply.kind {
                    DONE => return Ok(listed),
                    ERROR => outcome(&reply)?,
                    _ => listed.push(reply.body.to_vec()),
                }
            }
        }
    }
}

/// What an `NLMSG_ERROR` says: its first number is an `errno`, negated, or 0.
pub(crate) fn outcome(reply: &Reply<'_>) -> Result<(), Errno> {
    match reply.body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
        Some(0) => Ok(()),
        Some(negated) => Err(Errno::from_raw_os_error(negated.saturating_neg())),
        None => Err(Errno::BADMSG),
    }
}
