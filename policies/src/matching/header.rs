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
/// headers.insert("x-tenant", HeaderValue::from_static("gold"));
/// headers.insert("x_tenant", HeaderValue::from_static("free, silver"));
/// assert!(matcher.matches_every(&headers) && !matcher.matches_every_alias(&headers));
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

    /// True when the field is present and each of its lines matches, so that a second line never helps a caller. A line of
    /// another name is none of its lines.
    pub fn matches_every(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(&self.name).iter().peekable();
        lines.peek().is_some() && lines.all(|line| self.value.matches(line.as_bytes()))
    }

    /// As [`Self::matches_every`], and each line matches that a service may take for one of the field's.
    pub fn matches_every_alias(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(&self.name) && self.aliases(headers).all(|line| self.value.matches(line))
    }

    /// True when one of the lines matches that a service may take for one of the field's, or a member of a list in one, which
    /// is as good as a line of its own (RFC 9110 section 5.3). So neither a second line hides anything nor another spelling.
    pub fn matches_any(&self, headers: &HeaderMap) -> bool {
        let is_list = |line: &[u8]| line.contains(&b',');
        let matches_member =
            |line: &[u8]| line.split(|byte| *byte == b',').any(|one| self.value.matches(one.trim_ascii()));
        self.aliases(headers).any(|line| self.value.matches(line) || (is_list(line) && matches_member(line)))
    }

    /// The lines of every field that a service may take for this one.
    fn aliases<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        let named = headers.iter().filter(|(name, _)| is_alias(name.as_str(), self.name.as_str()));
        named.map(|(_, line)| line.as_bytes())
    }
}

/// True for two names that a server may take for one. CGI and what came of it hand names on as variables, in which `-`,
/// and for some servers whatever else is no letter or digit, has become `_` (RFC 3875 section 4.1.18).
///
/// ```
/// use selvedge_policies::matching::header::is_alias;
///
/// assert!(is_alias("x-caller-id", "x_caller.id"));
/// assert!(!is_alias("x-caller-id", "x-callerid"));
/// ```
pub fn is_alias(one: &str, other: &str) -> bool {
    let same = |(a, b): (u8, u8)| match a.is_ascii_alphanumeric() {
        true => a.eq_ignore_ascii_case(&b),
        false => !b.is_ascii_alphanumeric(),
    };
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(same)
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
        for (lines, every, every_alias, any) in [
            (vec![("x-tenant", "Gold")], true, true, true),
            (vec![("x-tenant", "gold")], false, false, false),
            (vec![("x-tenant", "Gold"), ("x-tenant", "free")], false, false, true),
            (vec![("x-tenant", "free, Gold")], false, false, true),
            (vec![("x-tenant", "free,Gold ,x")], false, false, true),
            (vec![("x-tenant", "Golden, free")], false, false, false),
            (vec![("x_tenant", "Gold")], false, false, true),
            (vec![("x.tenant", "free, Gold")], false, false, true),
            (vec![("x-tenant", "Gold"), ("x_tenant", "free")], true, false, true),
            (vec![("x-tenant", "Gold"), ("x_tenant", "Gold")], true, true, true),
            (vec![("xtenant", "Gold")], false, false, false),
            (vec![], false, false, false),
        ] {
            let headers = headers(&lines);
            let found =
                (matcher.matches_every(&headers), matcher.matches_every_alias(&headers), matcher.matches_any(&headers));
            assert_eq!(found, (every, every_alias, any), "{lines:?}");
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
