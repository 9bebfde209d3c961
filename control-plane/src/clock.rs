//! The one place of this package that reads the system clock.

use std::time::UNIX_EPOCH;

/// Seconds since the Unix epoch; 0 before it.
#[expect(clippy::disallowed_methods, reason = "the clock module is where the system clock is read")]
pub fn unix() -> u64 {
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
