//! The wire between two sidecars: messages of any version of HTTP in frames of our own, many at once on one connection.
//!
//! A [`Session`] is one end of such a connection as a state machine without I/O: it takes what was read, keeps what is to
//! be written, and holds the [`Stream`] of each request. Whoever has a socket drives it. Compared with
//! HTTP/2 a head is plain (no compression with a state that both ends must share), names of the fields in use are one
//! byte, and what HTTP/2 has no place for (the version the caller spoke, how names were spelt) is part of the head.
//!
//! Flow control is by credit, for each stream and for the whole connection, as in RFC 9113 section 5.2. What a peer can
//! make this end keep is bounded by the windows, the size of a head, and the number of streams.

mod flow;
mod head;
mod names;
mod session;
mod stream;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use head::{
    Asked, Told, announced, encode_request, encode_response, encode_trailers, request, response, trailers,
};
pub(crate) use names::SPELLING;
pub(crate) use session::{Arrived, Session};
pub(crate) use stream::{End, Next, Stream};

/// Content of one stream that may be under way or lie unread.
pub(crate) const STREAM_WINDOW: usize = 256 << 10;
/// Content of all streams of a connection that may be under way or lie unread; a stream has a fraction of it, so that
/// readers who pause hold up nobody else.
pub(crate) const CONNECTION_WINDOW: usize = 16 << 20;
/// Streams that a caller may have open at once.
pub(crate) const MAX_STREAMS: usize = 10_000;
/// Bytes of a head or of trailers, in a frame.
pub(crate) const MAX_HEAD: usize = 80 * 1024;
/// Bytes of trailers that may lie unread, of all streams of a connection. Content is bounded by its window, heads by whoever
/// answers them; a trailer is small, and there may be one on each of thousands of streams.
const MAX_TRAILERS: usize = 4 << 20;
/// Bytes that may wait to be written before who writes content waits too.
pub(crate) const BACKLOG: usize = 64 * 1024;
/// Content in one frame: with its header no more than a TLS record holds.
const SLICE: usize = 16 * 1024 - wire::HEADER;

/// Why one end gives up a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// The answer is whole, and the rest of the request is not needed.
    Done = 0,
    /// Nothing was done with the request, which is safe to repeat.
    Refused = 1,
    /// Whoever asked has gone.
    Cancelled = 2,
    /// The sender of the content broke it off.
    BrokenOff = 3,
    /// A head is larger than a sidecar takes.
    TooLarge = 4,
    /// What came is no message.
    Malformed = 5,
}

impl Code {
    /// The code a peer sent; one that is not known is a stream that was broken off.
    const fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Done,
            1 => Self::Refused,
            2 => Self::Cancelled,
            4 => Self::TooLarge,
            5 => Self::Malformed,
            _ => Self::BrokenOff,
        }
    }
}

/// The peer broke the rules of the wire; the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(pub &'static str);

impl Broken {
    /// Frames that cost their sender less than their receiver, and too many of them.
    pub(crate) const FLOOD: Self = Self("more control frames than anybody needs");
    /// Who connects has something to say.
    pub(crate) const SILENCE: Self = Self("no frame came in time");
}
