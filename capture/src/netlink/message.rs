//! Netlink messages as bytes (RFC 3549; `linux/netlink.h`). Reading takes whatever the kernel sends: what is cut off or too
//! short ends the list.

/// `nlmsghdr`.
const HEADER: usize = 16;
/// `nlattr`.
const ATTRIBUTE: usize = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;

/// A whole request of a kind (`nlmsg_type`) with `flags` beside `NLM_F_REQUEST`, and `body` behind its header; errors are told
/// with its `sequence`.
pub(crate) fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | REQUEST).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body);
    bytes
}

/// An attribute, padded to four bytes.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute that holds others.
pub(crate) fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &parts.concat())
}

/// An attribute with a text, which the kernel wants to end in NUL.
pub(crate) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// An attribute with a number in network order, as netfilter has all of its own.
pub(crate) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// A message of the kernel.
pub(crate) struct Reply<'a> {
    /// What kind of message it is (`nlmsg_type`), as the part of the kernel counts that was asked.
    pub(crate) kind: u16,
    /// The message it answers.
    pub(crate) sequence: u32,
    /// All bytes that follow `nlmsghdr`.
    pub(crate) body: &'a [u8],
}

/// The messages in a datagram.
pub(crate) fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let (head, body) = bytes.get(..length)?.split_at_checked(HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        Some(Reply { kind, sequence: u32::from_ne_bytes([head[8], head[9], head[10], head[11]]), body })
    })
}

/// The attributes in `bytes`, with their values.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let (head, value) = bytes.get(..length)?.split_at_checked(ATTRIBUTE)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([head[2], head[3]]) & !NESTED, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_what_is_cut_off_ends_the_list() {
        let body = [text(1, "selvedge"), nested(4, &[number(1, 7)])].concat();
        let bytes = [message(0xa06, 0, 5, &body), message(0xa06, 0, 6, &[])].concat();
        let read: Vec<(u16, u32)> = replies(&bytes).map(|reply| (reply.kind, reply.sequence)).collect();
        assert_eq!(read, [(0xa06, 5), (0xa06, 6)]);
        let first = replies(&bytes).next().unwrap();
        let found: Vec<(u16, Vec<u8>)> = attributes(first.body).map(|(kind, value)| (kind, value.into())).collect();
        assert_eq!(found, [(1, b"selvedge\0".to_vec()), (4, number(1, 7))]);
        for end in 0..bytes.len() {
            assert!(replies(&bytes[..end]).count() < 2, "{end}");
            let _ = replies(&bytes[..end]).map(|reply| attributes(reply.body).count()).sum::<usize>();
        }
        assert_eq!(attributes(&[0; 64]).count(), 0, "a length of nothing does not loop");
    }
}
