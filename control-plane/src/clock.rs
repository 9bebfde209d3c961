//! The one place of this package that reads the system clock, and how its times are written.

use std::time::UNIX_EPOCH;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Seconds since the Unix epoch; 0 before it.
#[expect(clippy::disallowed_methods, reason = "the clock module is where the system clock is read")]
pub fn unix() -> u64 {
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `unix` (seconds since the Unix epoch) as RFC 3339 in UTC; the number itself when it is out of that format's range.
pub fn rfc3339(unix: i64) -> String {
    let written = OffsetDateTime::from_unix_timestamp(unix).ok().and_then(|time| time.format(&Rfc3339).ok());
    written.unwrap_or_else(|| unix.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_and_machines_read_them() {
        assert_eq!(rfc3339(1_800_000_000), "2027-01-15T08:00:00Z");
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
    }
}
