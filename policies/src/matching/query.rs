//! Query parameter matches in the shape of the Gateway API.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Text, ValueMatchType};

/// One query parameter that must be present with a value (Gateway API `HTTPQueryParamMatch`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryParamMatch {
    /// How `value` is read.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// The name of the parameter, case-sensitive; its first value counts.
    pub name: String,
    /// The expected value, decoded.
    pub value: String,
}

/// A [`QueryParamMatch`], compiled: its regular expression is read once.
///
/// ```
/// use selvedge_policies::matching::query::{QueryMatcher, QueryParamMatch};
///
/// let spec = QueryParamMatch { name: "page".into(), value: "a b".into(), ..QueryParamMatch::default() };
/// let matcher = QueryMatcher::new(&spec).unwrap();
/// assert!(matcher.matches(Some("page=a%20b&page=2")), "decoded, and the first value counts");
/// assert!(!matcher.matches(Some("page=2")) && !matcher.matches(None));
/// ```
#[derive(Clone, Debug)]
pub struct QueryMatcher {
    name: Box<[u8]>,
    value: Text,
}

impl QueryMatcher {
    /// Compiles a match. The error names the field of [`QueryParamMatch`] that is wrong, and why.
    pub fn new(spec: &QueryParamMatch) -> Result<Self, (&'static str, String)> {
        if spec.name.is_empty() {
            return Err(("name", "the name of a query parameter is empty".into()));
        }
        let value = Text::new(spec.kind, &spec.value).map_err(|why| ("value", why))?;
        Ok(Self { name: spec.name.as_bytes().into(), value })
    }

    /// Name and value, when the value must be equal.
    pub(crate) fn exact(&self) -> Option<(&[u8], &[u8])> {
        self.value.exact().map(|value| (&*self.name, value))
    }

    /// True when the first parameter of this name matches; `query` is as sent, without `?`.
    pub fn matches(&self, query: Option<&str>) -> bool {
        first_value(query, &self.name).is_some_and(|value| self.value.matches(&value))
    }
}

/// The decoded value of the first parameter of this name; `query` is as sent, without `?`.
pub(crate) fn first_value<'a>(query: Option<&'a str>, name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let pairs = query.unwrap_or_default().split('&');
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(given, _)| decode(given).eq(name.iter().copied()))?;
    if value.contains(['%', '+']) { Some(decode(value).collect()) } else { Some(value.as_bytes().into()) }
}

/// The bytes of `application/x-www-form-urlencoded` text; a broken escape stands for itself.
fn decode(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        if let (b'%', [high, low, after @ ..]) = (first, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            rest = after;
            return Some(high << 4 | low);
        }
        rest = after;
        Some(if first == b'+' { b' ' } else { first })
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_parameter_of_the_name_counts() {
        let spec = QueryParamMatch { name: "plan".into(), value: "pro & co".into(), ..Default::default() };
        let matcher = QueryMatcher::new(&spec).unwrap();
        for (query, expected) in [
            (Some("plan=pro%20%26%20co"), true),
            (Some("a=b&plan=pro+%26+co&plan=x"), true),
            (Some("pl%61n=pro+%26+co"), true),
            (Some("plan=x&plan=pro+%26+co"), false),
            (Some("plan"), false),
            (Some("plan=%2"), false),
            (None, false),
        ] {
            assert_eq!(matcher.matches(query), expected, "{query:?}");
        }
    }
}
