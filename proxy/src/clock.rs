//! The one place of the sidecar that reads the system clock.

use std::{
    cell::Cell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// Time since the Unix epoch; zero on a machine whose clock is set before it.
pub fn since_epoch() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the time of day has to come from somewhere")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time of day as it was last looked at, and what has passed since: cheap to ask for each request, and right again
/// after the next look when the clock was set or the machine slept.
#[derive(Debug)]
pub struct TimeOfDay(Cell<(Instant, Duration)>);

impl TimeOfDay {
    /// Looked at now, as [`since_epoch`] says.
    pub fn new(since_epoch: Duration) -> Self {
        Self(Cell::new((Instant::now(), since_epoch)))
    }

    /// Looks again.
    pub fn look(&self, since_epoch: Duration) {
        self.0.set((Instant::now(), since_epoch));
    }

    /// Seconds since the Unix epoch.
    pub fn unix(&self) -> u64 {
        let (at, since_epoch) = self.0.get();
        (since_epoch + at.elapsed()).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_of_day_follows_a_clock_that_is_set() {
        let time = TimeOfDay::new(Duration::from_millis(100_900));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(time.unix(), 109);
        for set in [1_700_000_000, 50] {
            time.look(Duration::from_secs(set));
            tokio::time::advance(Duration::from_secs(3)).await;
            assert_eq!(time.unix(), set + 3);
        }
    }
}
