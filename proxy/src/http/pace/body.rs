//! A request body whose sender must make progress while the service waits for it.

use std::{
    cell::Cell,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{Deadline, PROGRESS, Turn};

/// The sender of a request body.
#[derive(Debug)]
pub(crate) struct Sender {
    /// Without progress; `None` when it may be silent.
    limit: Option<Duration>,
    /// Bytes that are progress.
    enough: u64,
    waited: Duration,
    since: Option<Instant>,
    came: u64,
    deadline: Deadline,
    late: Rc<Cell<bool>>,
    /// The request is not over before its body is.
    turn: Turn,
}

impl Sender {
    /// The sender of a body of `length` bytes, if that is known, for which the service waits no longer than `limit`
    /// without progress. Of a body without a length only one that HTTP/1 cuts into chunks is waited for.
    pub(crate) fn new(turn: Turn, limit: Duration, length: Option<u64>, http1: bool) -> Self {
        Self {
            limit: (length.is_some() || http1).then_some(limit),
            enough: if length.is_some() { PROGRESS } else { 1 },
            waited: Duration::ZERO,
            since: None,
            came: 0,
            deadline: Deadline::default(),
            late: Rc::default(),
            turn,
        }
    }

    /// Becomes true when the sender was given up.
    pub(crate) fn late(&self) -> &Rc<Cell<bool>> {
        &self.late
    }

    /// Nobody wants what it has not sent yet.
    pub(crate) fn leave(&self) {
        self.turn.leave();
    }

    /// Bytes came. Time in which nobody waited for them does not count.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
            self.deadline.clear();
        }
        self.came += bytes as u64;
        if self.came >= self.enough {
            self.came = 0;
            self.waited = Duration::ZERO;
        }
    }

    /// The service waits for more. Ready when it has waited too long.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        if self.since.is_none() {
            self.since = Some(Instant::now());
            self.deadline.start(limit.saturating_sub(self.waited));
        }
        let late = self.deadline.poll(cx);
        self.late.set(late.is_ready());
        late
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{sleep, timeout};

    use super::{super::Pace, *};

    const LIMIT: Duration = Duration::from_secs(30);

    fn sender(length: Option<u64>, http1: bool) -> Sender {
        Sender::new(Pace::default().begin(), LIMIT, length, http1)
    }

    /// Seconds until a sender of `bytes` every `pause` is given up, within an hour.
    async fn given_up_after(mut sender: Sender, bytes: usize, pause: Duration) -> Option<u64> {
        let began = Instant::now();
        while began.elapsed().as_secs() < 3600 {
            if timeout(pause, poll_fn(|cx| sender.poll_late(cx))).await.is_ok() {
                return Some(began.elapsed().as_secs());
            }
            sender.sent(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_must_progress_and_events_may_trickle() {
        let ten = Duration::from_secs(10);
        assert_eq!(given_up_after(sender(Some(1_000_000), true), 1, ten).await, Some(30));
        assert_eq!(given_up_after(sender(Some(1_000_000), false), 1, ten).await, Some(30));
        assert_eq!(given_up_after(sender(Some(1_000_000), true), 600, ten).await, None, "1 200 bytes in 20 s");
        assert_eq!(given_up_after(sender(None, true), 1, ten).await, None);
        assert_eq!(given_up_after(sender(None, true), 1, Duration::from_secs(40)).await, Some(30));
        assert_eq!(given_up_after(sender(None, false), 1, Duration::from_secs(600)).await, None, "as gRPC streams do");
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_does_not_take_the_body_is_not_the_callers_slowness() {
        let mut sender = sender(Some(1_000_000), true);
        for _ in 0..10 {
            assert!(timeout(Duration::from_secs(2), poll_fn(|cx| sender.poll_late(cx))).await.is_err());
            sender.sent(1);
            sleep(Duration::from_secs(60)).await;
        }
        assert!(!sender.late().get(), "20 s of 10 minutes were waited");
    }
}
