//! The time of day as RFC 3339 writes it, made anew only when the second changes.

use std::fmt::Write;

use ::time::OffsetDateTime;

use crate::clock;

/// Writes `2026-01-31T23:59:59.123Z`; all but the milliseconds is kept from one line to the next.
#[derive(Debug, Default)]
pub(super) struct Timestamp {
    second: Option<u64>,
    text: String,
}

impl Timestamp {
    /// The time now.
    pub(super) fn now(&mut self) -> &str {
        let since_epoch = clock::since_epoch();
        self.at(since_epoch.as_secs(), since_epoch.subsec_millis())
    }

    fn at(&mut self, second: u64, millis: u32) -> &str {
        if self.second != Some(second) {
            self.second = Some(second);
            let at = i64::try_from(second).ok().and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok());
            let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let (year, month, day) = at.to_calendar_date();
            let (hour, minute, second) = at.to_hms();
            self.text = format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", u8::from(month));
        }
        self.text.truncate("0000-00-00T00:00:00".len());
        // Writing to a String cannot fail.
        let _ = write!(self.text, ".{millis:03}Z");
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_milliseconds_are_right() {
        let mut timestamp = Timestamp::default();
        assert_eq!(timestamp.at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp.at(0, 7), "1970-01-01T00:00:00.007Z");
        assert_eq!(timestamp.at(1_709_251_199, 999), "2024-02-29T23:59:59.999Z");
    }
}
