//! The stream under an HTTP/1 connection: it listens to the heads that are read, and spells those that are written.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Spellings;

/// Of what is written with a head in one call; the rest follows.
const SLICES: usize = 4;

/// A stream whose heads are listened to and spelled. It delays and adds no byte.
#[derive(Debug)]
pub(crate) struct Tapped<T> {
    io: T,
    spellings: Spellings,
    /// A head that is being written, in the place of the one that was asked to be.
    head: Vec<u8>,
    /// Bytes of it that have been.
    written: usize,
}

impl<T> Tapped<T> {
    pub(super) const fn new(io: T, spellings: Spellings) -> Self {
        Self { io, spellings, head: Vec::new(), written: 0 }
    }
}

impl<T: AsyncWrite + Unpin> Tapped<T> {
    /// Writes a spelled head and what follows it in `bufs`.
    fn poll_head(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let head = &self.head[self.written..];
        let mut slices = [IoSlice::new(&[]); SLICES];
        let rest = bufs.first().and_then(|first| first.get(head.len()..)).unwrap_or_default();
        let others = bufs.get(1..).unwrap_or_default();
        if !rest.is_empty() {
            // The next head is in it, which goes as it is.
            self.spellings.give_up();
        }
        let parts = [head, rest].into_iter().chain(others.iter().map(|buf| &**buf));
        slices.iter_mut().zip(parts).for_each(|(slice, part)| *slice = IoSlice::new(part));
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, &slices);
        if let Poll::Ready(Ok(written)) = result {
            self.written += written.min(head.len());
            if self.written == self.head.len() {
                (self.head, self.written) = (Vec::new(), 0);
            }
        }
        result
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tapped<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.spellings.read(&buf.filled()[before..]);
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tapped<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.head.is_empty() {
            let spelled = bufs.first().and_then(|first| self.spellings.written(first));
            self.head = spelled.unwrap_or_default();
        }
        if self.head.is_empty() {
            return Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        }
        self.poll_head(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::{Kind, Spelling, tap};

    #[tokio::test]
    async fn a_body_that_looks_like_a_head_keeps_its_letters_behind_pipelined_answers() {
        let (near, mut far) = duplex(8);
        let (mut io, spellings) = tap(near, Kind::Requests);
        let names = Spelling(HeaderValue::from_static("X-A"));
        let body = b"HTTP/1.1 200 OK\r\nx-a: of the body\r\n\r\n";
        let writing = tokio::spawn(async move {
            let head = b"HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\n";
            spellings.spell(&names);
            let two = [&head[..], head].concat();
            let written = io.write(&two).await.unwrap();
            spellings.spell(&names); // the answer to a pipelined request, whose head is behind the first one
            io.write_all(&two[written..]).await.unwrap();
            io.write_all(body).await.unwrap();
        });
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        writing.await.unwrap();
        assert!(text.ends_with(std::str::from_utf8(body).unwrap()), "{text}");
    }

    #[tokio::test]
    async fn a_head_is_spelled_and_a_body_is_not_however_slowly_they_are_read() {
        for room in [1, 7, 64, 4096] {
            let (near, mut far) = duplex(room);
            let (mut io, spellings) = tap(near, Kind::Responses);
            let names = Spelling(HeaderValue::from_static("Host,X-A"));
            let writing = tokio::spawn(async move {
                for _ in 0..2 {
                    spellings.spell(&names);
                    io.write_all(b"POST / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n\r\nhost: x-a\r\n\r\n").await.unwrap();
                    io.write_all(b"POST / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                }
            });
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            let one = "POST / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\nhost: x-a\r\n\r\nPOST / HTTP/1.1\r\nhost: a\r\n\r\n";
            assert_eq!(text, one.repeat(2), "read in pieces of {room}");
            writing.await.unwrap();
        }
    }
}
