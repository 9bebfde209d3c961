//! The one place of the sidecar that reads the system clock.

use std::{
    cell::Cell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep};

/// How often the clock is looked at by who waits for a time of day.
const LOOK: Duration = Duration::from_secs(60);

/// Time since the Unix epoch; zero on a machine whose clock is set before it.
pub(crate) fn since_epoch() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the time of day has to come from somewhere")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time of day as it was last looked at, and what has passed since: cheap to ask for each request, and right again
/// after the next look when the clock was set or the machine slept.
#[derive(Debug)]
pub(crate) struct TimeOfDay(Cell<(Instant, Duration)>);

impl TimeOfDay {
    /// Looked at now, as [`since_epoch`] says.
    pub(crate) fn new(since_epoch: Duration) -> Self {
        Self(Cell::new((Instant::now(), since_epoch)))
    }

    /// Looks again: from now on the time of day counts from `since_epoch`.
    pub(crate) fn look(&self, since_epoch: Duration) {
        self.0.set((Instant::now(), since_epoch));
    }

    /// Seconds since the Unix epoch at `now`, which is no earlier than it was last looked at.
    pub(crate) fn unix(&self, now: Instant) -> u64 {
        let (at, since_epoch) = self.0.get();
        (since_epoch + (now - at)).as_secs()
    }
}

/// Returns once the clock shows `due`, a time since the Unix epoch, and at most a minute after it was suspended past
/// that or set: timers stand still while a machine is suspended, and know nothing of a clock that is set.
pub(crate) async fn reached(due: Duration) {
    shows(due, since_epoch).await;
}

async fn shows(due: Duration, now: impl Fn() -> Duration) {
    loop {
        let left = due.saturating_sub(now());
        if left.is_zero() {
            return;
        }
        sleep(left.min(LOOK)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn the_time_of_day_follows_a_clock_that_is_set() {
        let time = TimeOfDay::new(Duration::from_millis(100_900));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(time.unix(Instant::now()), 109);
        for set in [1_700_000_000, 50] {
            time.look(Duration::from_secs(set));
            tokio::time::advance(Duration::from_secs(3)).await;
            assert_eq!(time.unix(Instant::now()), set + 3);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_is_reached_on_time_and_soon_after_a_suspension() {
        for suspended in [Duration::ZERO, 20 * HOUR] {
            let (began, lost) = (Instant::now(), Cell::new(Duration::ZERO));
            let clock = || began.elapsed() + lost.get();
            let suspend = async {
                sleep(HOUR).await;
                lost.set(suspended);
            };
            tokio::join!(shows(16 * HOUR, clock), suspend);
            let expected = if suspended.is_zero() { 16 * HOUR } else { HOUR };
            let late = began.elapsed().checked_sub(expected).expect("not before its time");
            assert!(late <= LOOK, "{late:?} after a suspension of {suspended:?}");
        }
    }
}
