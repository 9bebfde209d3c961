//! The socket to nf_tables: changes that are made all at once or not at all, and lists of what is there.

use rustix::{
    io::Errno,
    net::{RecvFlags, netlink::NETFILTER},
};

use crate::netlink::{self, ERROR, LIST, Socket, outcome, replies};

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BEGIN: Head = Head { kind: 16, flags: 0, family: 0, resource: NFTABLES };
const END: Head = Head { kind: 17, ..BEGIN };
/// `NLM_F_ACK`.
const ACKNOWLEDGE: u16 = 4;

/// One message to nf_tables or to the batch around it.
#[derive(Clone, Copy)]
struct Head {
    /// `nlmsg_type`.
    kind: u16,
    /// `nlmsg_flags` beside `NLM_F_REQUEST`.
    flags: u16,
    /// `nfgen_family`.
    family: u8,
    /// `res_id`, the subsystem a batch is for.
    resource: u16,
}

/// A whole message with `nfgenmsg` between its header and `body`.
fn message(head: Head, sequence: u32, body: &[u8]) -> Vec<u8> {
    let [high, low] = head.resource.to_be_bytes();
    netlink::message(head.kind, head.flags, sequence, &[&[head.family, 0, high, low], body].concat())
}

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
pub(super) struct Kernel(Socket);

impl Kernel {
    /// Opens the socket.
    pub(super) fn open() -> Result<Self, Errno> {
        Socket::open(NETFILTER).map(Self)
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
        self.0.send(&batch).map_err(whole)?;
        let mut refusal = None;
        let mut told = false;
        let mut flags = RecvFlags::empty();
        // All answers are there when the first one is, that of the last change among them.
        loop {
            let datagram = match self.0.receive(flags) {
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
        self.0.list(&message(head, 0, &[]))
    }
}
