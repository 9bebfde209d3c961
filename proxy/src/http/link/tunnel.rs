//! A stream that becomes two streams of bytes after the head of its answer. Each ends by itself, and whoever drops it before
//! both have ended breaks it off.

use std::{
    cell::RefCell,
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;
use crate::frames::{End, Next, Stream};

/// Bytes that are taken at once to be sent.
const WRITE: usize = 16 * 1024;

/// Whether an answer with this status makes a tunnel of a request that asks for one (RFC 9110 sections 7.8 and 9.3.6).
pub(crate) fn accepts(method: &Method, status: StatusCode) -> bool {
    if *method == Method::CONNECT { status.is_success() } else { status == StatusCode::SWITCHING_PROTOCOLS }
}

/// What a stream becomes, or is to become: bytes in both directions.
pub(crate) struct Tunnel {
    session: Shared,
    stream: Rc<RefCell<Stream>>,
    /// What was taken from the stream and not read.
    unread: Bytes,
}

impl Tunnel {
    /// A tunnel on `stream`. The head of the answer must go before the first byte: whoever answers says it before anybody
    /// else runs.
    pub(crate) const fn new(session: Shared, stream: Rc<RefCell<Stream>>) -> Self {
        Self { session, stream, unread: Bytes::new() }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            let next = ready!(self.stream.borrow_mut().poll_next(cx));
            match next {
                Next::Content(content) => {
                    self.session.borrow_mut().consumed(&self.stream, content.len());
                    self.unread = content;
                }
                Next::Trailers(_) | Next::Nothing => return Poll::Ready(Ok(())),
                Next::Cut(end) => return Poll::Ready(Err(broken(end))),
            }
        }
        let part = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..part]);
        self.unread.advance(part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(end) = self.stream.borrow().ended_early() {
            return Poll::Ready(Err(broken(end)));
        }
        let mut content = Bytes::copy_from_slice(&buf[..buf.len().min(WRITE)]);
        let length = content.len();
        let polled = self.session.borrow_mut().send(&self.stream, &mut content, false, cx);
        match length - content.len() {
            0 if polled.is_pending() => Poll::Pending,
            sent => Poll::Ready(Ok(sent)),
        }
    }

    /// What was written goes out by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.borrow_mut().finish(&self.stream, None);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.session.borrow_mut().drop_tunnel(&self.stream);
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

fn broken(end: End) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, super::content::words(end))
}
