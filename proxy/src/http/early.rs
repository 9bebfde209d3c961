//! The stream under an HTTP/1 connection to a service that may answer early.
//!
//! A service may answer before it has read the request, and close (RFC 9112 section 9.5): what is written to it then fails,
//! while its answer lies there to be read. The HTTP library gives a connection up as soon as a write fails, and the answer with
//! it. So it is not told of that before it has read what came, or has read nothing more of it for a while: with a message in hand
//! that is not over it may never read on.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::Deadline;

/// How long nothing may be read of what came before a write failed. Whoever reads slowly passes an answer on to a slow caller.
const PATIENCE: Duration = Duration::from_secs(5);

/// A stream on which no failed write overtakes what has come.
#[derive(Debug)]
pub(crate) struct Early<T> {
    io: T,
    /// Nothing more comes.
    read_out: bool,
    failed: Option<Failed>,
}

/// A write that has failed.
#[derive(Debug)]
struct Failed {
    how: io::ErrorKind,
    /// Whoever waits to hear of it.
    writer: Waker,
    told_at: Deadline,
}

impl<T> Early<T> {
    /// Reads `io` out before it says that it cannot be written to.
    pub(crate) const fn new(io: T) -> Self {
        Self { io, read_out: false, failed: None }
    }

    /// What a write has come to, as far as it may be told.
    fn told<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match written {
            Poll::Ready(Err(error)) if !self.read_out => {
                let (how, writer) = (error.kind(), cx.waker());
                let failed = self.failed.get_or_insert_with(|| {
                    // What made the write fail may have come since it was read last.
                    writer.wake_by_ref();
                    Failed { how, writer: writer.clone(), told_at: Deadline::default() }
                });
                failed.writer.clone_from(writer);
                failed.told_at.start(PATIENCE);
                failed.told_at.poll(cx).map(|()| Err(failed.how.into()))
            }
            written => written,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Early<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let is_last = match &read {
            Poll::Ready(Ok(())) => buf.filled().len() == before && buf.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if !is_last {
            if let (Poll::Ready(_), Some(failed)) = (&read, &mut self.failed) {
                // The time that was set ends the wait, and finds a later one.
                failed.told_at.clear();
                failed.told_at.start(PATIENCE);
            }
            return read;
        }
        self.read_out = true;
        let Some(Failed { how, writer, .. }) = self.failed.take() else { return read };
        writer.wake();
        // The system tells once how a connection broke, and that was the write's; to whoever reads it looks like an end in order.
        if how == io::ErrorKind::BrokenPipe { read } else { Poll::Ready(Err(how.into())) }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Early<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.told(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.told(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.told(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Both ends of a connection.
    async fn pair() -> (Early<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Early::new(near), listener.accept().await.unwrap().0)
    }

    /// A library with a message in hand that is not over, as of a service which says more than its answer, reads no further.
    #[tokio::test]
    async fn who_reads_nothing_more_is_told_in_the_end() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"an upload").await.unwrap();
        far.readable().await.unwrap();
        far.write_all(b"an answer, and more").await.unwrap();
        drop(far);
        near.read_exact(&mut [0; 9]).await.unwrap();
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        let error = loop {
            if let Err(error) = near.write_all(&[0; 1024]).await {
                break error;
            }
        };
        assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error}");
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test]
    async fn an_answer_is_read_before_a_write_fails_and_a_reset_is_told_behind_it() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"an upload").await.unwrap();
        far.readable().await.unwrap();
        far.write_all(b"an answer").await.unwrap();
        drop(far); // with something unread, which makes it a reset
        let (mut reading, mut writing) = tokio::io::split(near);
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = writing.write_all(&[0; 1024]).await {
                    return error.kind();
                }
            }
        });
        let mut answer = [0; 9];
        reading.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"an answer");
        assert_eq!(reading.read(&mut [0; 16]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(matches!(writing.await.unwrap(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
    }
}
