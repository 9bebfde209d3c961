//! What is on the wire: a header of eight bytes (length, kind, stream) before the payload of each frame.

use super::MAX_HEAD;

/// Length of a frame header.
pub(super) const HEADER: usize = 8;

/// Bytes that most heads do not have more of.
const TYPICAL: usize = 1024;

/// Set in the kind of a frame after which its sender says nothing more on the stream.
const ENDS: u8 = 0x80;

/// What a frame is. One of another kind is passed over, so that newer sidecars may say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Content.
    Data = 0,
    /// The head of a request, which opens its stream, or of a response.
    Head = 1,
    /// Trailers, after which nothing follows.
    Trailers = 2,
    /// The stream is given up; the payload is one byte, a [`super::Code`].
    Reset = 3,
    /// More content may be sent, on a stream or, with stream 0, on the connection: four bytes.
    Credit = 4,
    /// To be answered.
    Ping = 5,
    /// The answer.
    Pong = 6,
    /// The peer should open no more streams.
    GoAway = 7,
    /// The sender opens no more streams.
    Last = 8,
    /// Not known here.
    Unknown,
}

impl Kind {
    const fn of(byte: u8) -> Self {
        match byte & !ENDS {
            0 => Self::Data,
            1 => Self::Head,
            2 => Self::Trailers,
            3 => Self::Reset,
            4 => Self::Credit,
            5 => Self::Ping,
            6 => Self::Pong,
            7 => Self::GoAway,
            8 => Self::Last,
            _ => Self::Unknown,
        }
    }

    /// Bytes of payload that a peer may send.
    pub(super) const fn limit(self) -> usize {
        match self {
            Self::Data | Self::Unknown => 64 * 1024,
            Self::Head | Self::Trailers => MAX_HEAD,
            Self::Reset | Self::Credit | Self::Ping | Self::Pong | Self::GoAway | Self::Last => 64,
        }
    }
}

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) ends: bool,
    pub(super) stream: u32,
    pub(super) length: usize,
}

impl Frame {
    /// The frame that `bytes` begin with; `None` while its header is not whole.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, stream @ ..] = *bytes.first_chunk::<HEADER>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Some(Self { kind: Kind::of(kind), ends: kind & ENDS != 0, stream: u32::from_be_bytes(stream), length })
    }
}

/// Appends a frame.
pub(super) fn put(out: &mut Vec<u8>, kind: Kind, ends: bool, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&header(kind, ends, stream, payload.len()));
    out.extend_from_slice(payload);
}

/// Appends a frame whose payload `write` appends. Nothing is appended when that has more than `limit` bytes: `false`.
pub(super) fn put_with(
    out: &mut Vec<u8>,
    (kind, ends, stream): (Kind, bool, u32),
    limit: usize,
    write: impl FnOnce(&mut Vec<u8>),
) -> bool {
    let at = out.len();
    out.reserve(TYPICAL);
    out.extend_from_slice(&[0; HEADER]);
    write(out);
    let length = out.len() - at - HEADER;
    if length > limit {
        out.truncate(at);
        return false;
    }
    out[at..at + HEADER].copy_from_slice(&header(kind, ends, stream, length));
    true
}

fn header(kind: Kind, ends: bool, stream: u32, length: usize) -> [u8; HEADER] {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    [a, b, c, kind as u8 | if ends { ENDS } else { 0 }, d, e, f, g]
}
