//! Frames of HTTP/2 as raw bytes (RFC 9113 section 4), for peers that keep to no rule and for those that look closely.

/// Frame types (RFC 9113 section 6).
pub const DATA: u8 = 0;
/// Opens a stream, or ends it with trailers.
pub const HEADERS: u8 = 1;
/// Deprecated, and still understood.
pub const PRIORITY: u8 = 2;
/// The frame that ends a stream at once (RFC 9113 section 6.4).
pub const RST_STREAM: u8 = 3;
/// What the sender of it is like.
pub const SETTINGS: u8 = 4;
/// Asks for an echo.
pub const PING: u8 = 6;
/// Announces the end of the connection.
pub const GOAWAY: u8 = 7;
/// Lets the peer send more.
pub const WINDOW_UPDATE: u8 = 8;
/// Goes on with the fields of a HEADERS frame.
pub const CONTINUATION: u8 = 9;

/// The flag of an answer to SETTINGS or PING.
pub const ACK: u8 = 1;
/// The flag of the last frame of a stream.
pub const END_STREAM: u8 = 1;
/// The flag of the last frame of a field section.
pub const END_HEADERS: u8 = 4;

/// `:method: GET`, `:scheme: http`, `:path: /` and `:authority: api.shop` (RFC 7541 appendix A has the numbers).
pub const GET: &[u8] = b"\x82\x86\x84\x01\x08api.shop";
/// `:method: POST`, and the other fields of [`GET`].
pub const POST: &[u8] = b"\x83\x86\x84\x01\x08api.shop";

/// A frame on the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload of 24 bits").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a client says first: the preface and its settings.
pub fn hello() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat()
}

/// A frame as it came.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The type of the frame, such as [`RST_STREAM`].
    pub kind: u8,
    /// The flags of the frame, whose meaning is its type's (RFC 9113 section 6).
    pub flags: u8,
    /// The stream it is of; 0 for the connection.
    pub stream: u32,
    /// What the frame carries after its nine bytes of head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM, or of GOAWAY behind the last stream.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload.get(at..).and_then(<[u8]>::first_chunk).expect("RST_STREAM and GOAWAY have a code");
        u32::from_be_bytes(*code)
    }
}

/// The whole frames at the start of `bytes`.
pub fn parse(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        frames.push(Frame { kind: head[3], flags: head[4], stream, payload: payload.to_vec() });
        bytes = rest;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_framed_is_parsed_and_what_is_cut_is_not() {
        let bytes = [frame(PING, 0, 0, b"8 octets"), frame(RST_STREAM, END_STREAM, 3, &[0, 0, 0, 8])].concat();
        let frames = parse(&bytes);
        let parsed: Vec<_> = frames.iter().map(|f| (f.kind, f.flags, f.stream, &f.payload[..])).collect();
        assert_eq!(parsed, [(PING, 0, 0, &b"8 octets"[..]), (RST_STREAM, END_STREAM, 3, &[0, 0, 0, 8])]);
        assert_eq!((frames[1].code(), parse(&bytes[..bytes.len() - 1]).len()), (8, 1));
    }
}
