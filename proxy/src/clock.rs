//! The one place of the sidecar that reads the system clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the Unix epoch; zero on a machine whose clock is set before it.
pub fn since_epoch() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the time of day has to come from somewhere")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}
