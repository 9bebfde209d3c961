//! The end of a connection whose caller may still send (lingering close, RFC 9112 section 9.6).
//!
//! A socket that is closed while something lies in it unread is reset, and a reset takes back what is on its way: the answer to an
//! upload that nobody wants. So what the caller goes on sending is read and thrown away for a while.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::Deadline;

/// How long a caller may be silent that has not closed.
const SILENCE: Duration = Duration::from_secs(5);
/// How long it may go on sending.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are read at once, of callers that are known to send more and of others.
const MANY: usize = 16 * 1024;
const FEW: usize = 256;

/// Says that nothing follows, and reads on.
pub(super) async fn close(mut socket: TcpStream) {
    // What is gone has heard all that it can.
    let _ = socket.shutdown().await;
    let mut linger = Linger::new(true);
    let _ = poll_fn(|cx| linger.poll(cx, &mut socket)).await;
}

/// Reads what nobody wants.
#[derive(Debug)]
pub(super) struct Linger {
    until: Instant,
    /// It is known that more comes.
    expected: bool,
    silence: Deadline,
}

impl Linger {
    /// Begins; unless more is `expected`, only what has come already is a reason to stay.
    pub(super) fn new(expected: bool) -> Self {
        Self { until: Instant::now() + PATIENCE, expected, silence: Deadline::default() }
    }

    /// Ready when the caller has heard that nothing follows, or has had the time to.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, io: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<()>> {
        // Few connections need much room for their end.
        let (mut few, mut many) = ([0; FEW], if self.expected { vec![0; MANY] } else { Vec::new() });
        let chunk = if self.expected { &mut many[..] } else { &mut few[..] };
        loop {
            let mut read = ReadBuf::new(chunk);
            match Pin::new(&mut *io).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() && Instant::now() < self.until => {
                    self.expected = true;
                    self.silence.clear();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending if !self.expected => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        self.silence.start(SILENCE.min(self.until.saturating_duration_since(Instant::now())));
        ready!(self.silence.poll(cx));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, io::duplex, time::sleep};

    use super::*;

    /// Seconds that the end takes of a caller who sends a byte at each of these seconds and then closes, or is silent.
    async fn ends_after(expected: bool, sends_at: &[u64], closes: bool) -> u64 {
        let (mut caller, mut ours) = duplex(4096);
        let sends_at = sends_at.to_vec();
        let sending = tokio::spawn(async move {
            let began = Instant::now();
            for at in sends_at {
                tokio::time::sleep_until(began + Duration::from_secs(at)).await;
                if caller.write_all(b"x").await.is_err() {
                    return;
                }
            }
            if !closes {
                sleep(Duration::from_secs(3600)).await;
            }
        });
        sleep(Duration::from_millis(1)).await;
        let (began, mut linger) = (Instant::now(), Linger::new(expected));
        poll_fn(|cx| linger.poll(cx, &mut ours)).await.unwrap();
        sending.abort();
        began.elapsed().as_secs_f64().round() as u64
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_is_waited_for_while_it_sends_and_not_for_ever() {
        assert_eq!(ends_after(false, &[], false).await, 0, "nothing is there and nothing is known to come");
        assert_eq!(ends_after(false, &[0], false).await, 5, "it was sending, and is silent");
        assert_eq!(ends_after(true, &[], false).await, 5);
        assert_eq!(ends_after(true, &[1, 4, 8], true).await, 8, "it closes");
        let drips: Vec<u64> = (1..100).collect();
        assert_eq!(ends_after(true, &drips, false).await, 10);
    }
}
