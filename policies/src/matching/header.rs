//! Header matches in the shape of the Gateway API.

use http::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Text, ValueMatchType};

/// One header that must be present with a value (Gateway API `HTTPHeaderMatch`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// How `value` is read.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// Field name, in any case.
    pub name: String,
    /// What the value has to be, by `type` a text or a regular expression.
    pub value: String,
}

/// A [`HeaderMatch`], compiled: its regular expression and the name of its field are read once.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use selvedge_policies::matching::header::{HeaderMatch, HeaderMatcher};
///
/// let spec = HeaderMatch { name: "x-tenant".into(), value: "gold".into(), ..HeaderMatch::default() };
/// let matcher = HeaderMatcher::new(&spec).unwrap();
/// let mut headers = HeaderMap::new();
/// headers.append("x-tenant", HeaderValue::from_static("gold"));
/// assert!(matcher.matches_every(&headers));
/// headers.append("x-tenant", HeaderValue::from_static("free"));
/// assert!(!matcher.matches_every(&headers) && matcher.matches_any(&headers));
/// ```
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    name: HeaderName,
    value: Text,
}

impl HeaderMatcher {
    /// Compiles a match. The error names the field of [`HeaderMatch`] that is wrong, and why.
    pub fn new(spec: &HeaderMatch) -> Result<Self, (&'static str, String)> {
        let name = field_name(&spec.name).map_err(|why| ("name", why))?;
        let value = Text::new(spec.kind, &spec.value).map_err(|why| ("value", why))?;
        Ok(Self { name, value })
    }

    /// Name and value, when the value must be equal.
    pub(crate) fn exact(&self) -> Option<(&HeaderName, &[u8])> {
        self.value.exact().map(|value| (&self.name, value))
    }

    /// True when the field is present and each of its lines matches, so that a second line never helps a caller.
    pub fn matches_every(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(&self.name).iter().peekable();
        lines.peek().is_some() && lines.all(|line| self.value.matches(line.as_bytes()))
    }

    /// True when one of the field's lines matches, so that a second line never hides one.
    pub fn matches_any(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.name).iter().any(|line| self.value.matches(line.as_bytes()))
    }
}

/// Reads a field name (RFC 9110 section 5.1).
pub(crate) fn field_name(name: &str) -> Result<HeaderName, String> {
    name.parse()
        .map_err(|_| format!("'{name}' is not a header name: expected a token such as x-tenant (RFC 9110 section 5.1)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn names_match_in_any_case_and_values_exactly() {
        let spec = HeaderMatch { name: "X-Tenant".into(), value: "Gold".into(), ..Default::default() };
        let matcher = HeaderMatcher::new(&spec).unwrap();
        for (lines, every, any) in [
            (vec![("x-tenant", "Gold")], true, true),
            (vec![("x-tenant", "gold")], false, false),
            (vec![("x-tenant", "Gold"), ("x-tenant", "free")], false, true),
            (vec![], false, false),
        ] {
            let headers = headers(&lines);
            assert_eq!((matcher.matches_every(&headers), matcher.matches_any(&headers)), (every, any), "{lines:?}");
        }
    }

    #[test]
    fn the_wrong_field_is_named() {
        let bad_name = HeaderMatch { name: "x tenant".into(), ..Default::default() };
        assert_eq!(HeaderMatcher::new(&bad_name).unwrap_err().0, "name");
        let bad_value = HeaderMatch { kind: ValueMatchType::RegularExpression, name: "x".into(), value: "(".into() };
        assert_eq!(HeaderMatcher::new(&bad_value).unwrap_err().0, "value");
    }
}
