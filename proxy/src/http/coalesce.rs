//! Writes of many HTTP/2 streams become one TLS record and one system call.
//!
//! h2 flushes after every frame it could write. Here a flush only wakes a flusher task, which runs after the other
//! ready tasks of the worker have written their frames, so one write carries them all: 11 to 20 % less CPU per
//! request (`docs/decisions/`). When more than 64 KiB wait, so does the writer.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::Pace;

/// Bytes that may wait for the flusher before the writer does too.
const CAPACITY: usize = 64 * 1024;

/// A stream with coalesced writes. Reads are direct.
pub(crate) struct Coalesced<T> {
    shared: Rc<RefCell<Shared<T>>>,
}

struct Shared<T> {
    io: T,
    waiting: BytesMut,
    flusher: Option<Waker>,
    writer: Option<Writer>,
    error: Option<io::ErrorKind>,
    closed: bool,
    pace: Option<Pace>,
}

/// Who waits for the flusher, and until how few bytes wait. Waking it sooner would only have it ask again.
struct Writer {
    waker: Waker,
    until: usize,
}

/// Wraps `io` and starts its flusher on this worker. `pace` is told when all that streams had to say was written.
pub(crate) fn coalesced<T: AsyncRead + AsyncWrite + Unpin + 'static>(io: T, pace: Option<Pace>) -> Coalesced<T> {
    let shared = Shared { io, waiting: BytesMut::new(), flusher: None, writer: None, error: None, closed: false, pace };
    let shared = Rc::new(RefCell::new(shared));
    tokio::task::spawn_local(flush(shared.clone()));
    Coalesced { shared }
}

async fn flush<T: AsyncWrite + Unpin>(shared: Rc<RefCell<Shared<T>>>) {
    poll_fn(|cx| {
        let mut shared = shared.borrow_mut();
        shared.flusher = Some(cx.waker().clone());
        let drained = shared.drain(cx);
        if let Poll::Ready(Err(error)) = &drained {
            shared.error = Some(error.kind());
        }
        shared.wake_writer();
        if shared.closed || shared.error.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl<T: AsyncWrite + Unpin> Shared<T> {
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn wake_writer(&mut self) {
        let (error, waiting) = (self.error.is_some(), self.waiting.len());
        if let Some(writer) = self.writer.take_if(|writer| error || waiting <= writer.until) {
            writer.waker.wake();
        }
    }

    fn wake_flusher(&self) {
        if let Some(flusher) = &self.flusher {
            flusher.wake_by_ref();
        }
    }

    /// Ready when at most `until` bytes wait; else a promise to wake the writer then.
    fn at_most(&mut self, until: usize, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.error {
            return Poll::Ready(Err(kind.into()));
        }
        if self.waiting.len() <= until {
            return Poll::Ready(Ok(()));
        }
        self.writer = Some(Writer { waker: cx.waker().clone(), until });
        self.wake_flusher();
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesced<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.shared.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalesced<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut shared = self.shared.borrow_mut();
        ready!(shared.at_most(CAPACITY, cx))?;
        shared.waiting.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.shared.borrow_mut();
        ready!(shared.at_most(CAPACITY, cx))?;
        for buf in bufs {
            shared.waiting.extend_from_slice(buf);
        }
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = self.shared.borrow();
        if let Some(kind) = shared.error {
            return Poll::Ready(Err(kind.into()));
        }
        if !shared.waiting.is_empty() {
            shared.wake_flusher();
        }
        if let Some(pace) = &shared.pace {
            pace.flush();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared.borrow_mut();
        ready!(shared.at_most(0, cx))?;
        Pin::new(&mut shared.io).poll_shutdown(cx)
    }
}

impl<T> Drop for Coalesced<T> {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.closed = true;
        if let Some(flusher) = shared.flusher.take() {
            flusher.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn on_worker<F: Future<Output = ()> + 'static>(future: F) {
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(Default::default()).unwrap();
        runtime.block_on(future);
    }

    #[test]
    fn writes_arrive_whole_and_in_order() {
        on_worker(async {
            let (near, mut far) = tokio::io::duplex(1024);
            let mut near = coalesced(near, None);
            let sent: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
            let expected = sent.clone();
            let writer = tokio::task::spawn_local(async move {
                for chunk in sent.chunks(777) {
                    near.write_all(chunk).await.unwrap();
                    near.flush().await.unwrap();
                }
                near.shutdown().await.unwrap();
            });
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.unwrap();
            writer.await.unwrap();
            assert!(received == expected);
        });
    }

    #[test]
    fn a_dead_peer_is_an_error_for_the_writer() {
        on_worker(async {
            let (near, far) = tokio::io::duplex(16);
            let mut near = coalesced(near, None);
            drop(far);
            let mut failed = false;
            for _ in 0..100 {
                failed |= near.write_all(&[0; 4096]).await.is_err() || near.flush().await.is_err();
                tokio::task::yield_now().await;
            }
            assert!(failed);
        });
    }
}
