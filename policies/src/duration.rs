//! Durations as users write them: `500ms`, `1h30m`. One syntax in every document (Gateway API GEP-2257).

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration, written as one to four groups of number and unit (`h`, `m`, `s`, `ms`), for instance `1m30s`.
///
/// ```
/// use selvedge_policies::duration::Span;
///
/// assert_eq!("1m30s".parse(), Ok(Span::from_secs(90)));
/// assert_eq!(Span::from_millis(1500).to_string(), "1s500ms");
/// assert!("90".parse::<Span>().is_err(), "a number needs its unit");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Why a string is not a [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{given}' is not a duration: expected up to four groups of number and unit h, m, s or ms, such as 500ms or 1m30s"
)]
pub struct SpanError {
    given: String,
}

impl Span {
    /// The `format` of the JSON schema.
    pub(crate) const FORMAT: &'static str = "gateway-duration";

    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl FromStr for Span {
    type Err = SpanError;

    /// Parses GEP-2257: `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.
    fn from_str(given: &str) -> Result<Self, SpanError> {
        let bad = || SpanError { given: given.chars().take(64).collect() };
        let (mut rest, mut total) = (given, Duration::ZERO);
        for _ in 0..4 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > 5 {
                return Err(bad());
            }
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            let (unit, after) = unit_of(&rest[digits..]).ok_or_else(bad)?;
            total += Duration::from_millis(number * unit);
            rest = after;
            if rest.is_empty() {
                return Ok(Self(total));
            }
        }
        Err(bad())
    }
}

/// The milliseconds of the unit at the start of `text`, and what follows it.
fn unit_of(text: &str) -> Option<(u64, &str)> {
    [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
        .into_iter()
        .find_map(|(name, millis)| text.strip_prefix(name).map(|after| (millis, after)))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, millis) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if rest >= millis {
                write!(f, "{}{name}", rest / millis)?;
                rest %= millis;
            }
        }
        Ok(())
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": Self::FORMAT,
            "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$",
            "maxLength": 28,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gateway_durations_are_read() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("1m1ms", 60_001),
            ("1s1s", 2_000),
            ("99999h", 359_996_400_000),
        ] {
            assert_eq!(text.parse(), Ok(Span::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn other_durations_are_refused_with_the_expected_form() {
        for text in ["", "5", "s", "1.5s", "-1s", "1 s", "1d", "100000s", "1s1s1s1s1s", "1sx", "1us", "１s"] {
            let error = text.parse::<Span>().expect_err(text);
            assert!(error.to_string().contains("500ms"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn display_and_parse_agree(millis in 0u64..359_999_999_000) {
            let span = Span::from_millis(millis);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Span>();
        }
    }
}
