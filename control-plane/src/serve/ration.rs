//! How much a peer may send: so much at once, and then so much a second. Backpressure for those who send more.
//!
//! Every frame costs the receiver something, however small it is (RFC 9113 section 10.5), so bounding bytes bounds
//! frames of every kind, and the memory of what is asked. A sidecar that sends more is read more slowly; a connection
//! that has proven nothing ends.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// What is read at least, once reading goes on.
const LEAST: u64 = 16 << 10;

/// Bytes at once, and bytes a second after that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ration {
    pub(super) burst: u64,
    pub(super) per_second: u64,
}

impl Ration {
    /// Whoever joins needs one request of a few kilobytes.
    pub(super) const STRANGER: Self = Self { burst: 256 << 10, per_second: 0 };
    /// All names a stream may have, with the versions held, and a thousand acknowledgements a second.
    pub(super) const SIDECAR: Self = Self { burst: 4 << 20, per_second: 256 << 10 };
}

/// A stream that is read no faster than its ration; writes are not touched.
#[derive(Debug)]
pub(super) struct Rationed<T> {
    io: T,
    ration: Ration,
    left: u64,
    since: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<T> Rationed<T> {
    pub(super) fn new(io: T, ration: Ration) -> Self {
        Self { io, ration, left: ration.burst, since: Instant::now(), pause: None }
    }

    fn refill(&mut self) {
        let Ration { burst, per_second } = self.ration;
        let earned = (self.since.elapsed().as_secs_f64() * per_second as f64) as u64;
        if earned >= LEAST {
            self.left = (self.left + earned).min(burst);
            self.since = Instant::now();
        }
    }

    /// Ready when there is something left; false when there never will be.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            if self.left > 0 {
                return Poll::Ready(true);
            }
            if self.ration.per_second == 0 {
                return Poll::Ready(false);
            }
            let wait = Duration::from_secs_f64(LEAST as f64 / self.ration.per_second as f64);
            ready!(self.pause.get_or_insert_with(|| Box::pin(sleep(wait))).as_mut().poll(cx));
            self.pause = None;
            self.refill();
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rationed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left < LEAST {
            self.refill();
        }
        if !ready!(self.poll_left(cx)) {
            return Poll::Ready(Ok(())); // as if the peer had closed
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let before = buf.filled().len();
        if room >= buf.remaining() {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        } else {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
            let read = part.filled().len();
            buf.advance(read);
        }
        self.left -= (buf.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rationed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, repeat};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_a_sidecar_is_read_at_its_pace() {
        let mut flooded = Rationed::new(tokio::io::join(repeat(0), tokio::io::sink()), Ration::SIDECAR);
        let began = Instant::now();
        flooded.read_exact(&mut vec![0; 4 << 20]).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 0, "what a sidecar needs at once it may send at once");
        flooded.read_exact(&mut vec![0; 10 * (256 << 10)]).await.unwrap();
        assert!((9..=11).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_gets_no_further_and_a_quiet_sidecar_waits_for_nothing() {
        let mut stranger = Rationed::new(tokio::io::join(repeat(0), tokio::io::sink()), Ration::STRANGER);
        let mut all = Vec::new();
        stranger.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 256 << 10);

        let (mut sidecar, ours) = duplex(64);
        let mut ours = Rationed::new(ours, Ration::SIDECAR);
        let began = Instant::now();
        for _ in 0..1000 {
            sidecar.write_all(b"acknowledged").await.unwrap();
            ours.read_exact(&mut [0; 12]).await.unwrap();
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        ours.write_all(b"answer").await.unwrap();
        sidecar.read_exact(&mut [0; 6]).await.unwrap();
    }
}
