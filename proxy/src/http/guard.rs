//! A guard against HTTP/2 control frames that cost the receiver more than the sender.
//!
//! The HTTP/2 library answers every PING and SETTINGS and takes every PRIORITY, WINDOW_UPDATE and unknown frame,
//! however many come (CVE-2019-9511 to 9518, RFC 9113 section 10.5). [`FrameGuard`] sits between TLS and that library,
//! reads the nine-byte frame headers as they pass and ends the connection when a peer is over its [`Budget`]. It never
//! changes, delays or buffers a byte.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use selvedge_policies::reason::Reason;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

mod budget;
mod frames;

pub use budget::Budget;

use budget::Account;
use frames::{Frames, Kind};

/// A stream that breaks when its peer floods it with control frames.
#[derive(Debug)]
pub struct FrameGuard<T> {
    io: T,
    incoming: Frames,
    outgoing: Frames,
    account: Account,
    /// Streams are opened by this side.
    client: bool,
    last_stream: u32,
    flood: Flood,
    max_streams: MaxStreams,
}

/// How many streams a peer takes at once (`SETTINGS_MAX_CONCURRENT_STREAMS`, RFC 9113 section 6.5.2); clones share what
/// is known.
#[derive(Clone, Debug)]
pub struct MaxStreams(Rc<Cell<u32>>);

impl Default for MaxStreams {
    /// As few as a peer should take at least, until it has said so.
    fn default() -> Self {
        Self(Rc::new(Cell::new(100)))
    }
}

impl MaxStreams {
    /// As many as there can be.
    pub fn many() -> Self {
        Self(Rc::new(Cell::new(u32::MAX)))
    }

    /// What is known now.
    pub fn get(&self) -> u32 {
        self.0.get()
    }
}

/// Tells, after a guarded connection ended, whether the guard ended it; clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Flood(Rc<Cell<bool>>);

impl Flood {
    /// [`Reason::FrameFlood`] when the guard ended the connection.
    pub fn reason(&self) -> Option<Reason> {
        self.0.get().then_some(Reason::FrameFlood)
    }
}

impl<T> FrameGuard<T> {
    /// Guards the server side of an HTTP/2 connection; `io` begins with the client's preface.
    pub fn server(io: T, budget: &'static Budget) -> (Self, Flood) {
        let guard = Self::new(io, budget, Frames::after_preface(), Frames::default(), false, MaxStreams::default());
        let flood = guard.flood.clone();
        (guard, flood)
    }

    /// Guards the client side: a service that floods its callers loses the connection, and the requests on it. What
    /// its settings say goes to `max_streams`.
    pub fn client(io: T, budget: &'static Budget, max_streams: MaxStreams) -> Self {
        Self::new(io, budget, Frames::default(), Frames::after_preface(), true, max_streams)
    }

    fn new(
        io: T,
        budget: &'static Budget,
        incoming: Frames,
        outgoing: Frames,
        client: bool,
        max_streams: MaxStreams,
    ) -> Self {
        let account = Account::new(budget, Instant::now());
        Self { io, incoming, outgoing, account, client, last_stream: 0, flood: Flood::default(), max_streams }
    }

    /// Books the frames in `bytes` from the peer; `false` when one was too many.
    fn admit(&mut self, bytes: &[u8]) -> bool {
        let Self { incoming, account, last_stream, client, max_streams, .. } = self;
        let admitted = incoming.pass(bytes, |frame| {
            let opens = !*client && frame.kind == Kind::Headers && frame.stream > *last_stream;
            if opens {
                *last_stream = frame.stream;
                account.stream_opened();
            }
            account.received(frame.kind, Instant::now)
        });
        if let Some(told) = incoming.max_streams() {
            max_streams.0.set(told);
        }
        admitted
    }

    fn sent(&mut self, bytes: &[u8]) {
        let Self { outgoing, account, client, .. } = self;
        outgoing.pass(bytes, |frame| {
            match frame.kind {
                Kind::Data => account.data_sent(),
                Kind::Headers if *client => account.stream_opened(),
                _ => {}
            }
            true
        });
    }
}

impl<T: AsyncWrite + Unpin> FrameGuard<T> {
    /// Tells the peer why, if that is possible at once: GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 section 6.8),
    /// between two frames.
    fn say_goodbye(&mut self, cx: &mut Context<'_>) {
        if !self.outgoing.is_between() {
            return;
        }
        let mut goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
        goaway[9..13].copy_from_slice(&self.last_stream.to_be_bytes());
        // The connection ends whether or not the peer can be told.
        let _ = Pin::new(&mut self.io).poll_write(cx, &goaway);
        let _ = Pin::new(&mut self.io).poll_flush(cx);
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for FrameGuard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let flooded = || io::Error::other("the peer sends HTTP/2 control frames faster than anybody needs");
        if self.flood.0.get() {
            return Poll::Ready(Err(flooded()));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if self.admit(&buf.filled()[before..]) {
            return result;
        }
        self.flood.0.set(true);
        self.say_goodbye(cx);
        Poll::Ready(Err(flooded()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FrameGuard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = result {
            self.sent(&buf[..written]);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut written)) = result {
            for buf in bufs {
                let part = written.min(buf.len());
                self.sent(&buf[..part]);
                written -= part;
            }
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
