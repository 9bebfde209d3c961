//! The stream under an HTTP/1 connection, with deadlines for heads and for reading.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    runtime::Handle,
};

use super::{
    CallerTimeouts, Deadline, Pace, Shared,
    linger::{self, Linger},
};
use crate::socket::reset;

/// What a caller is told that did not finish a head; sent only where nothing else is on its way.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncontent-length: 65\r\n\
    connection: close\r\n\r\n{\"error\":\"caller_timeout\",\"page\":\"docs/codes/caller_timeout.md\"}\n";

/// A stream whose end can outlive it.
pub(crate) trait Outlives {
    /// Its socket once more, where nothing of its own lies between that and the caller.
    fn again(&self) -> Option<TcpStream>;
}

/// A stream that breaks when its peer takes too long for a head, or does not read.
#[derive(Debug)]
pub(crate) struct Paced<T: Outlives> {
    io: T,
    pace: Arc<Shared>,
    head_limit: Duration,
    head: Deadline,
    /// Requests that had begun when the head's time did; another one means that the head was whole.
    begun: u32,
    reader_limit: Duration,
    reader: Deadline,
    flushed: bool,
    /// Nothing more is said on it.
    closing: Option<Box<Linger>>,
}

impl<T: Outlives> Drop for Paced<T> {
    /// A connection that is given up with an error takes back what is on its way. So somebody else ends it, where that matters.
    fn drop(&mut self) {
        let (is_broken, is_cut) = (self.pace.broken.load(Relaxed), self.pace.owes_content() && self.closing.is_none());
        if !(is_broken || is_cut) || self.pace.given_up.load(Relaxed) {
            return;
        }
        let (Some(socket), Ok(runtime)) = (self.io.again(), Handle::try_current()) else { return };
        if is_broken {
            runtime.spawn(async move { reset(&socket).await });
        } else {
            runtime.spawn(linger::close(socket));
        }
    }
}

impl<T: Outlives> Paced<T> {
    /// Watches `io`; `meshed` as in [`CallerTimeouts::reader_of`].
    pub(crate) fn new(io: T, pace: &Pace, timeouts: &CallerTimeouts, meshed: bool) -> Self {
        Self {
            io,
            pace: pace.0.clone(),
            head_limit: timeouts.head.0,
            head: Deadline::default(),
            begun: 0,
            reader_limit: timeouts.reader_of(meshed),
            reader: Deadline::default(),
            flushed: true,
            closing: None,
        }
    }

    /// Whether what is read next belongs to a head.
    fn reads_heads(&mut self) -> bool {
        let begun = self.pace.begun.load(Relaxed);
        let between = self.pace.open.load(Relaxed) == 0 && !self.pace.tunnelled.load(Relaxed);
        if begun != self.begun || !between {
            self.begun = begun;
            self.head.clear();
        }
        between
    }

    fn give_up<R>(&self, what: &'static str) -> Poll<io::Result<R>> {
        self.pace.given_up.store(true, Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }

    /// Breaks off when a write has made no progress for too long.
    fn written<R>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.reader.clear();
            return outcome;
        }
        if self.pace.tunnelled.load(Relaxed) {
            return Poll::Pending;
        }
        self.reader.start(self.reader_limit);
        match self.reader.poll(cx) {
            Poll::Ready(()) => self.give_up("the caller does not read the answer"),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Outlives + Unpin> AsyncRead for Paced<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if !self.reads_heads() {
            return result;
        }
        if result.is_ready() {
            if buf.filled().len() > before {
                let limit = self.head_limit;
                self.head.start(limit);
            }
            return result;
        }
        if self.head.poll(cx).is_pending() {
            return Poll::Pending;
        }
        if self.flushed {
            // The connection ends whether or not the caller can be told.
            let _ = Pin::new(&mut self.io).poll_write(cx, TOO_SLOW);
            let _ = Pin::new(&mut self.io).poll_flush(cx);
        }
        self.give_up("the caller did not finish its head")
    }
}

impl<T: AsyncRead + AsyncWrite + Outlives + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.flushed = false;
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.flushed = false;
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        if outcome.is_ready() {
            self.flushed = true;
            self.pace.flushed.fetch_add(1, Relaxed);
        }
        self.written(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            let outcome = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.written(cx, outcome))?;
            let in_head = this.head.is_running() && this.pace.begun.load(Relaxed) == this.begun;
            let is_cut = in_head || this.pace.left.load(Relaxed);
            this.closing = Some(Box::new(Linger::new(is_cut)));
        }
        let Some(closing) = &mut this.closing else { return Poll::Ready(Ok(())) };
        closing.poll(cx, &mut this.io)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::{Instant, advance, sleep},
    };

    use super::*;

    impl Outlives for DuplexStream {
        fn again(&self) -> Option<TcpStream> {
            None
        }
    }

    fn paced(room: usize) -> (DuplexStream, Paced<DuplexStream>, Pace) {
        let (caller, ours) = duplex(room);
        let pace = Pace::default();
        (caller, Paced::new(ours, &pace, &CallerTimeouts::default(), false), pace)
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_is_answered_with_408_ten_seconds_after_its_first_byte() {
        let (mut caller, mut ours, pace) = paced(4096);
        let began = Instant::now();
        let reading = tokio::spawn(async move {
            let error = ours.read_to_end(&mut Vec::new()).await.unwrap_err();
            (error.kind(), began.elapsed().as_secs())
        });
        sleep(Duration::from_secs(40)).await;
        for byte in b"GET / HTTP/1.1\r\n" {
            if reading.is_finished() {
                break;
            }
            let _ = caller.write_all(&[*byte]).await;
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(reading.await.unwrap(), (io::ErrorKind::TimedOut, 50), "silence before the head is not counted");
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408") && pace.gave_up(), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_and_a_kept_connection_have_all_the_time() {
        let (mut caller, mut ours, pace) = paced(4096);
        caller.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut head = [0; 18];
        ours.read_exact(&mut head).await.unwrap();
        let turn = pace.begin();
        let next = tokio::spawn(async move { ours.read_u8().await });
        sleep(Duration::from_secs(100)).await;
        drop(turn);
        sleep(Duration::from_secs(100)).await;
        caller.write_all(b"G").await.unwrap();
        assert_eq!(next.await.unwrap().unwrap(), b'G');
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_given_up_and_a_tunnel_is_not() {
        let (caller, mut ours, pace) = paced(16);
        let began = Instant::now();
        assert_eq!(ours.write_all(&[0; 64]).await.map_err(|e| e.kind()), Err(io::ErrorKind::TimedOut));
        assert_eq!((began.elapsed().as_secs(), pace.gave_up()), (30, true));
        drop(caller);

        let (mut caller, mut ours, pace) = paced(16);
        pace.tunnel();
        let writing = tokio::spawn(async move { ours.write_all(&[0; 64]).await });
        advance(Duration::from_secs(3600)).await;
        caller.read_exact(&mut [0; 64]).await.unwrap();
        writing.await.unwrap().unwrap();
    }
}
