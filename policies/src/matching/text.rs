//! One string against an exact value or a regular expression.

use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the value of a header or query match is read (Gateway API `HeaderMatchType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ValueMatchType {
    /// Equal, byte by byte.
    #[default]
    Exact,
    /// The whole value matches the expression.
    RegularExpression,
}

/// A compiled value match.
///
/// ```
/// use selvedge_policies::matching::text::{Text, ValueMatchType};
///
/// let version = Text::new(ValueMatchType::RegularExpression, "v[0-9]+").unwrap();
/// assert!(version.matches(b"v12") && !version.matches(b"xv12"), "the whole value has to match");
/// assert!(Text::new(ValueMatchType::RegularExpression, "(").is_err());
/// ```
#[derive(Clone, Debug)]
pub enum Text {
    /// Equal, byte by byte.
    Exact(Box<[u8]>),
    /// The whole value matches the expression.
    Regex(Regex),
}

/// Compiled regular expressions may use at most this many bytes each.
const REGEX_SIZE: usize = 1 << 18;

impl Text {
    /// Compiles a value match. The error says why the expression is refused.
    pub fn new(kind: ValueMatchType, value: &str) -> Result<Self, String> {
        match kind {
            ValueMatchType::Exact => Ok(Self::Exact(value.as_bytes().into())),
            ValueMatchType::RegularExpression => full_regex(value).map(Self::Regex),
        }
    }

    /// The value, when it must be equal.
    pub(crate) fn exact(&self) -> Option<&[u8]> {
        match self {
            Self::Exact(value) => Some(value),
            Self::Regex(_) => None,
        }
    }

    /// True when `value` matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => **expected == *value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Compiles an expression that must match the whole value (as in Envoy), in linear time and bounded memory.
pub(crate) fn full_regex(expression: &str) -> Result<Regex, String> {
    let compile = |text: &str| RegexBuilder::new(text).unicode(false).size_limit(REGEX_SIZE).build();
    // Alone first, so that an expression such as `a)|(b` cannot get out of the parentheses.
    compile(expression)
        .and_then(|_| compile(&format!("^(?:{expression})$")))
        .map_err(|error| format!("'{expression}' is not a usable regular expression: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_the_whole_value() {
        let text = Text::new(ValueMatchType::RegularExpression, "v[0-9]+|beta").unwrap();
        for (value, expected) in [("v12", true), ("beta", true), ("xbeta", false), ("v1x", false), ("", false)] {
            assert_eq!(text.matches(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn bad_or_huge_expressions_are_refused() {
        for bad in ["(", "a)|(b", "a{1000}{1000}", "[z-a]"] {
            assert!(Text::new(ValueMatchType::RegularExpression, bad).is_err(), "{bad}");
        }
    }
}
