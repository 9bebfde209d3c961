//! What goes over the connection between the halves: frames of a length, the client they belong to, and its bytes. An
//! empty one says that the client's connection is over.

/// Bytes in front of each frame.
pub(crate) const HEAD: usize = 8;

/// The head of a frame with `length` bytes of `client`.
pub(crate) fn head(length: usize, client: u32) -> [u8; HEAD] {
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    (length << 32 | u64::from(client)).to_be_bytes()
}

/// The first frame of `bytes`: its client, and what it carries; `None` until it is whole.
pub(crate) fn first(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (client, rest) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*client), rest.get(..u32::from_be_bytes(*length) as usize)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_when_it_is_whole() {
        let mut bytes = head(3, 7).to_vec();
        bytes.extend_from_slice(b"abcd");
        assert_eq!(first(&bytes), Some((7, &b"abc"[..])));
        assert_eq!(first(&bytes[..10]), None);
        assert_eq!(first(&bytes[..5]), None);
        assert_eq!(first(&head(0, u32::MAX)), Some((u32::MAX, &b""[..])));
    }
}
