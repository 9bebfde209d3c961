//! A stream that becomes two streams of bytes after the head of its answer (RFC 9113 section 8.5, RFC 8441). Each ends by itself,
//! and whoever drops it before both have ended breaks it off.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Peer, pump::poll_room};

/// Bytes that are taken at once to be sent.
const WRITE: usize = 16 * 1024;

/// What a stream becomes: bytes in both directions.
#[derive(Debug)]
pub(crate) struct Tunnel {
    sending: SendStream<Bytes>,
    receiving: RecvStream,
    /// What was taken from the stream and not read.
    unread: Bytes,
    /// This end has said all it had to say.
    finished: bool,
    peer: Rc<Peer>,
}

impl Tunnel {
    /// A tunnel on a stream whose answer is there.
    pub(super) const fn new(sending: SendStream<Bytes>, receiving: RecvStream, peer: Rc<Peer>) -> Self {
        Self { sending, receiving, unread: Bytes::new(), finished: false, peer }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.receiving.poll_data(cx)) {
                Some(Ok(data)) => self.unread = data,
                Some(Err(error)) => return Poll::Ready(ended(error)),
                None => return Poll::Ready(Ok(())),
            }
            self.peer.hear();
        }
        let part = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..part]);
        self.unread.advance(part);
        // It fails where the stream is over, and then nobody needs the room.
        let _ = self.receiving.flow_control().release_capacity(part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(poll_room(&mut self.sending, cx)).map_err(io::Error::other)?;
        let data = Bytes::copy_from_slice(&buf[..buf.len().min(WRITE)]);
        let length = data.len();
        Poll::Ready(self.sending.send_data(data, false).map(|()| length).map_err(io::Error::other))
    }

    /// What was written goes out by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.finished, true) {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.sending.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}

/// What the end of a stream means for who reads its bytes. A peer that wants nothing more has said all it had to say.
fn ended(error: h2::Error) -> io::Result<()> {
    match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL) => Ok(()),
        Some(Reason::STREAM_CLOSED) => Err(io::Error::new(io::ErrorKind::BrokenPipe, error)),
        _ => Err(error.get_io().map(io::Error::kind).map_or_else(|| io::Error::other(error), Into::into)),
    }
}
