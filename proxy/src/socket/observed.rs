//! A stream that somebody watches: each byte is shown to an [`Observer`] as it passes, and is neither changed nor kept, nor
//! delayed but by the turns of others.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::turn;

/// Who watches a stream.
pub(crate) trait Observer {
    /// These bytes were read from the peer; none when it has sent no more. An error ends the stream.
    fn read(&mut self, bytes: &[u8]) -> Result<(), End>;

    /// These bytes were written to the peer.
    fn written(&mut self, bytes: &[u8]);

    /// Whether what was read is so much work that others have a turn before more is.
    fn is_full(&mut self) -> bool {
        false
    }

    /// All was written, and the peer told so.
    fn finished(&mut self) {}
}

/// How an observer ends a stream.
#[derive(Debug)]
pub(crate) struct End {
    /// What the peer is told, if that is possible at once.
    pub farewell: Option<Vec<u8>>,
    /// What whoever reads is told.
    pub error: io::Error,
}

/// A stream with the observer that is shown each of its bytes.
#[derive(Debug)]
pub(crate) struct Observed<T, O> {
    io: T,
    observer: O,
}

impl<T, O> Observed<T, O> {
    /// Has `observer` watch `io`.
    pub(crate) const fn new(io: T, observer: O) -> Self {
        Self { io, observer }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, O: Observer + Unpin> AsyncRead for Observed<T, O> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, observer } = &mut *self;
        if observer.is_full() {
            return turn::end(cx);
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut *io).poll_read(cx, buf);
        let Poll::Ready(Ok(())) = result else { return result };
        let Err(End { farewell, error }) = observer.read(&buf.filled()[before..]) else { return result };
        if let Some(farewell) = farewell {
            // The stream ends whether or not the peer can be told.
            let _ = Pin::new(&mut *io).poll_write(cx, &farewell);
            let _ = Pin::new(io).poll_flush(cx);
        }
        Poll::Ready(Err(error))
    }
}

impl<T: AsyncWrite + Unpin, O: Observer + Unpin> AsyncWrite for Observed<T, O> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = result {
            self.observer.written(&buf[..written]);
        }
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut written)) = result {
            for buf in bufs {
                let part = written.min(buf.len());
                self.observer.written(&buf[..part]);
                written -= part;
            }
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        if let Poll::Ready(Ok(())) = result {
            self.observer.finished();
        }
        result
    }
}
