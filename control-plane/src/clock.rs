//! The one place of this package that reads the system clock, and how its times are written.

use std::time::{Duration, UNIX_EPOCH};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::sleep;

/// How often the clock is looked at by who waits for a time of day.
const LOOK: Duration = Duration::from_secs(60);

/// Seconds since the Unix epoch; 0 before it.
#[expect(clippy::disallowed_methods, reason = "the clock module is where the system clock is read")]
pub fn unix() -> u64 {
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns once the clock shows `due`, in seconds since the Unix epoch, and at most a minute after it was suspended past
/// that or set: timers stand still while a machine is suspended, and know nothing of a clock that is set.
pub(crate) async fn reached(due: u64) {
    shows(due, unix).await;
}

async fn shows(due: u64, now: impl Fn() -> u64) {
    loop {
        let left = Duration::from_secs(due.saturating_sub(now()));
        if left.is_zero() {
            return;
        }
        sleep(left.min(LOOK)).await;
    }
}

/// `unix` (seconds since the Unix epoch) as RFC 3339 in UTC; the number itself when it is out of that format's range.
pub fn rfc3339(unix: i64) -> String {
    let written = OffsetDateTime::from_unix_timestamp(unix).ok().and_then(|time| time.format(&Rfc3339).ok());
    written.unwrap_or_else(|| unix.to_string())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_time_is_reached_soon_after_a_suspension_past_it() {
        let (began, lost) = (Instant::now(), Cell::new(0));
        let clock = || began.elapsed().as_secs() + lost.get();
        let suspend = async {
            sleep(Duration::from_secs(3600)).await;
            lost.set(20 * 3600);
        };
        tokio::join!(shows(16 * 3600, clock), suspend);
        let elapsed = began.elapsed().as_secs();
        assert!((3600..=3660).contains(&elapsed), "{elapsed} s");
    }

    #[test]
    fn times_are_written_as_people_and_machines_read_them() {
        assert_eq!(rfc3339(1_800_000_000), "2027-01-15T08:00:00Z");
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
    }
}
