//! The socket to nf_tables: changes that are made all at once or not at all, and lists of what is there.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::message::{Head, Reply, message, replies};

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;
/// `NLMSG_ERROR`, also a plain acknowledgement, and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BEGIN: Head = Head { kind: 16, flags: 0, family: 0, resource: NFTABLES };
const END: Head = Head { kind: 17, ..BEGIN };
/// `NLM_F_ACK` and `NLM_F_DUMP`.
const ACKNOWLEDGE: u16 = 4;
const LIST: u16 = 0x300;
/// The kernel answers while it is asked; this only keeps a defect from hanging.
const PATIENCE: Duration = Duration::from_secs(10);

/// One change of a transaction.
pub(super) struct Change {
    /// `NFT_MSG_...`.
    pub(super) operation: u16,
    /// `NLM_F_...` of its own.
    pub(super) flags: u16,
    /// The family of the table.
    pub(super) family: u8,
    /// Its attributes.
    pub(super) body: Vec<u8>,
    /// What it is, for people.
    pub(super) what: String,
}

/// A socket in the network namespace of the calling thread.
pub(super) struct Kernel(OwnedFd);

impl Kernel {
    /// Opens the socket.
    pub(super) fn open() -> Result<Self, Errno> {
        let protocol = Some(netlink::NETFILTER);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Makes all of `changes`, or none and tells which one was refused. One that is refused for all of them together has
    /// no words of its own.
    pub(super) fn transact(&self, changes: &[Change]) -> Result<(), (String, Errno)> {
        let whole = |errno| ("the rules as a whole".to_owned(), errno);
        let mut batch = message(BEGIN, 0, &[]);
        for (sequence, change) in (1..).zip(changes) {
            // One acknowledgement is enough: refusals are told without being asked for.
            let last = usize::try_from(sequence).is_ok_and(|sequence| sequence == changes.len());
            let flags = change.flags | if last { ACKNOWLEDGE } else { 0 };
            let head = Head { kind: NFTABLES << 8 | change.operation, flags, family: change.family, resource: 0 };
            batch.extend(message(head, sequence, &change.body));
        }
        batch.extend(message(END, 0, &[]));
        send(&self.0, &batch, SendFlags::empty()).map_err(whole)?;
        let mut refusal = None;
        let mut told = false;
        let mut flags = RecvFlags::empty();
        // All answers are there when the first one is, that of the last change among them.
        loop {
            let datagram = match self.receive(flags) {
                Ok(datagram) => datagram,
                Err(Errno::AGAIN) if told => return refusal.map_or(Ok(()), Err),
                Err(errno) => return Err(refusal.unwrap_or_else(|| whole(errno))),
            };
            for reply in replies(&datagram).filter(|reply| reply.kind == ERROR) {
                told = true;
                if let Err(errno) = outcome(&reply) {
                    let at = usize::try_from(reply.sequence).ok().and_then(|sequence| sequence.checked_sub(1));
                    let change = at.and_then(|at| changes.get(at));
                    refusal.get_or_insert_with(|| change.map_or_else(|| whole(errno), |it| (it.what.clone(), errno)));
                }
            }
            flags = RecvFlags::DONTWAIT;
        }
    }

    /// The bodies of all objects that `operation` (`NFT_MSG_GET...`) lists, of every family.
    pub(super) fn list(&self, operation: u16) -> Result<Vec<Vec<u8>>, Errno> {
        let head = Head { kind: NFTABLES << 8 | operation, flags: LIST, family: 0, resource: 0 };
        send(&self.0, &message(head, 0, &[]), SendFlags::empty())?;
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

    fn receive(&self, flags: RecvFlags) -> Result<Vec<u8>, Errno> {
        let mut datagram = vec![0; 64 * 1024];
        let (length, _) = recv(&self.0, &mut datagram[..], flags)?;
        datagram.truncate(length);
        Ok(datagram)
    }
}

/// What an `NLMSG_ERROR` says: its first number is an `errno`, negated, or 0.
fn outcome(reply: &Reply<'_>) -> Result<(), Errno> {
    match reply.body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
        Some(0) => Ok(()),
        Some(negated) => Err(Errno::from_raw_os_error(negated.saturating_neg())),
        None => Err(Errno::BADMSG),
    }
}
