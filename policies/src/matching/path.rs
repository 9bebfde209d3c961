//! Path matches in the shape of the Gateway API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::full_regex;

/// One condition on the path (Gateway API `HTTPPathMatch`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathMatch {
    /// How `value` is read.
    #[serde(rename = "type", default)]
    pub kind: PathMatchType,
    /// The expected path, prefix or expression.
    #[serde(default = "root")]
    pub value: String,
}

/// How a path is compared (Gateway API `PathMatchType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// Equal, byte by byte.
    Exact,
    /// Equal in the first path elements: `/a` matches `/a` and `/a/b`, not `/ab`.
    #[default]
    PathPrefix,
    /// The whole path matches the expression.
    RegularExpression,
}

fn root() -> String {
    "/".into()
}

impl Default for PathMatch {
    /// Any path.
    fn default() -> Self {
        Self { kind: PathMatchType::PathPrefix, value: root() }
    }
}

impl PathMatch {
    /// What is wrong with the value, if anything.
    pub fn problem(&self) -> Option<String> {
        if self.kind == PathMatchType::RegularExpression {
            return full_regex(&self.value).err();
        }
        path_problem(&self.value)
    }
}

/// Why `path` never equals the canonical path of a request, if so.
pub(crate) fn path_problem(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some(format!("'{path}' does not begin with '/', so no request path can match it"));
    }
    if path.contains("//") || path.split('/').any(|element| matches!(element, "." | "..")) {
        return Some(format!("'{path}' has an empty or dot element, which canonical request paths never have"));
    }
    path.contains(['?', '#']).then(|| format!("'{path}' has a '?' or '#', which are not part of a path"))
}

/// The prefix that [`PathMatchType::PathPrefix`] compares: without a trailing `/`, so `/` becomes the empty prefix.
pub(crate) fn element_prefix(value: &str) -> &str {
    value.strip_suffix('/').unwrap_or(value)
}

/// The first `length` bytes of `path`, when an element ends there.
pub(crate) fn elements(path: &str, length: usize) -> Option<&str> {
    let at_boundary = path.len() == length || path.as_bytes().get(length) == Some(&b'/');
    if at_boundary { path.get(..length) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_elements_end() {
        for (value, path, expected) in [
            ("/a", "/a", true),
            ("/a/", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/", "/anything", true),
            ("/a/b", "/a", false),
        ] {
            let prefix = element_prefix(value);
            assert_eq!(elements(path, prefix.len()) == Some(prefix), expected, "{value} on {path}");
        }
    }

    #[test]
    fn values_that_can_never_match_are_problems() {
        for bad in ["", "a", "/a//b", "/a/../b", "/./", "/a?b", "/a#b"] {
            let path = PathMatch { kind: PathMatchType::Exact, value: bad.into() };
            assert!(path.problem().is_some(), "{bad}");
        }
        assert_eq!(PathMatch::default().problem(), None);
        assert!(PathMatch { kind: PathMatchType::RegularExpression, value: "(".into() }.problem().is_some());
    }
}
