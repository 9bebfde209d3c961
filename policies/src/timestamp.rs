//! Points in time as users write them, for documents that expire (RFC 3339).

/// Seconds since the Unix epoch of an RFC 3339 timestamp, rounded down. The error says what was expected.
///
/// ```
/// use selvedge_policies::timestamp::unix_seconds;
///
/// assert_eq!(unix_seconds("2026-01-01T01:00:00+01:00"), Ok(1_767_225_600));
/// assert!(unix_seconds("tomorrow").is_err());
/// ```
pub fn unix_seconds(text: &str) -> Result<u64, String> {
    parse(text).ok_or_else(|| {
        let given: String = text.chars().take(64).collect();
        format!("'{given}' is not a timestamp from 1970 on: expected RFC 3339 such as 2026-12-31T23:59:59Z")
    })
}

/// How long before its end something is said to be near it: a week, in seconds.
const SOON: u64 = 7 * 86_400;

/// Whether a moment that is to come is near, both in seconds since the Unix epoch.
///
/// ```
/// use selvedge_policies::timestamp::is_soon;
///
/// let now = 1_767_225_600;
/// assert!(is_soon(now + 3600, now) && !is_soon(now + 30 * 86_400, now) && !is_soon(now, now));
/// ```
pub const fn is_soon(moment: u64, now: u64) -> bool {
    now < moment && moment - now <= SOON
}

fn parse(text: &str) -> Option<u64> {
    let (year, rest) = number(text, 4, "-")?;
    let (month, rest) = number(rest, 2, "-")?;
    let (day, rest) = number(rest, 2, "")?;
    let (hour, rest) = number(rest.strip_prefix(['T', 't', ' '])?, 2, ":")?;
    let (minute, rest) = number(rest, 2, ":")?;
    let (second, rest) = number(rest, 2, "")?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let offset = offset_seconds(after_fraction(rest)?)?;
    let local = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    if in_range { u64::try_from(local - offset).ok() } else { None }
}

/// Reads exactly `digits` digits and what must follow them.
fn number<'a>(text: &'a str, digits: usize, then: &str) -> Option<(i64, &'a str)> {
    let (head, rest) = text.split_at_checked(digits)?;
    let value = if head.bytes().all(|b| b.is_ascii_digit()) { head.parse().ok()? } else { return None };
    Some((value, rest.strip_prefix(then)?))
}

fn after_fraction(text: &str) -> Option<&str> {
    let Some(fraction) = text.strip_prefix('.') else { return Some(text) };
    let rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.len() == fraction.len() { None } else { Some(rest) }
}

fn offset_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, rest) = number(zone.strip_prefix(['+', '-'])?, 2, ":")?;
    let (minutes, rest) = number(rest, 2, "")?;
    if rest.is_empty() && hours < 24 && minutes < 60 { Some(sign * (hours * 3_600 + minutes * 60)) } else { None }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar, with years that begin in March so that leap days are last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-24T01:02:03.999Z", 1_795_482_123),
            ("2026-11-24T02:02:03+01:00", 1_795_482_123),
            ("2026-11-23t20:32:03-04:30", 1_795_482_123),
            ("2100-03-01 00:00:00z", 4_107_542_400),
        ] {
            assert_eq!(unix_seconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "2026-11-24",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-11-24T24:00:00Z",
            "2026-11-24T00:00:00",
            "2026-11-24T00:00:00.Z",
            "1969-12-31T23:59:59Z",
            "2026-11-24T00:00:00+1:00",
            "tomorrow",
        ] {
            assert!(unix_seconds(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9TZ:+. é-]{0,30}") {
            let _ = unix_seconds(&text);
        }
    }
}
