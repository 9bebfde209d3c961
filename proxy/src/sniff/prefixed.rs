//! A stream whose first bytes were read ahead, or written: reads give those bytes first, then the stream's own, and writes
//! of what was written are done already.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// `io` with `prefix` put back in front. Writes, vectored ones too, go straight to `io`.
#[derive(Debug)]
pub(crate) struct Prefixed<T> {
    prefix: Bytes,
    /// Bytes that were written ahead, of those that are to be written first.
    ahead: usize,
    io: T,
}

impl<T> Prefixed<T> {
    /// Puts `prefix` back in front of what `io` will read.
    pub(crate) fn new(io: T, prefix: impl Into<Bytes>) -> Self {
        Self { prefix: prefix.into(), ahead: 0, io }
    }

    /// The stream under it, from which what was read ahead is gone.
    pub(crate) const fn get_ref(&self) -> &T {
        &self.io
    }

    /// Puts what was read of it back in front of what it will read, after what was put back before.
    pub(crate) fn put_back(&mut self, said: &[u8]) {
        if !said.is_empty() {
            self.prefix = [&self.prefix, said].concat().into();
        }
    }
}

impl<T: AsyncWrite + Unpin> Prefixed<T> {
    /// Writes of `all`, which is what is to be written first, what was not written ahead before.
    pub(crate) async fn write_ahead(&mut self, all: &[u8]) -> io::Result<()> {
        while let Some(rest) = all.get(self.ahead..).filter(|rest| !rest.is_empty()) {
            match self.io.write(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => self.ahead += written,
            }
        }
        self.io.flush().await
    }

    /// How much of `bytes`, which are to be written, was written ahead.
    fn is_ahead(&mut self, bytes: usize) -> Option<usize> {
        let done = self.ahead.min(bytes);
        self.ahead -= done;
        (done > 0).then_some(done)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let len = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..len]);
        self.prefix.advance(len);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(done) = self.is_ahead(buf.len()) {
            return Poll::Ready(Ok(done));
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
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
        if let Some(done) = self.is_ahead(bufs.iter().map(|buf| buf.len()).sum()) {
            return Poll::Ready(Ok(done));
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_written_ahead_is_written_once() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut stream = Prefixed::new(server, Bytes::new());
        stream.write_ahead(b"he").await.unwrap();
        stream.write_ahead(b"hello").await.unwrap();
        let (first, rest) = (io::IoSlice::new(b"hel"), io::IoSlice::new(b"lo wor"));
        assert_eq!(stream.write_vectored(&[first, rest]).await.unwrap(), 5);
        stream.write_all(b" world").await.unwrap();
        drop(stream);
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "hello world");
    }

    #[tokio::test]
    async fn read_ahead_bytes_come_first() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b" world").await.unwrap();
        client.shutdown().await.unwrap();
        let mut stream = Prefixed::new(server, Bytes::from_static(b"hello"));
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&two[..], rest.as_str()), (&b"he"[..], "llo world"));
        stream.write_all(b"back").await.unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"back");
    }
}
