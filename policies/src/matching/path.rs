//! Path matches in the shape of the Gateway API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    canonical::{read, whole_end, whole_start},
    glob::Glob,
    text::full_regex,
};

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
    /// Every path: the prefix `/`, as the Gateway API has it.
    fn default() -> Self {
        Self { kind: PathMatchType::PathPrefix, value: root() }
    }
}

impl PathMatch {
    /// What is wrong with the value, if anything.
    ///
    /// ```
    /// use selvedge_policies::matching::path::PathMatch;
    ///
    /// let path = |value: &str| PathMatch { value: value.into(), ..PathMatch::default() };
    /// assert_eq!(path("/cart").problem(), None);
    /// assert!(path("/a/../cart").problem().unwrap().contains("write '/cart'"));
    /// ```
    pub fn problem(&self) -> Option<String> {
        if self.kind == PathMatchType::RegularExpression {
            return full_regex(&self.value).err();
        }
        path_problem(&self.value)
    }
}

/// Why `path` never equals the canonical path of a request, if so.
pub(crate) fn path_problem(path: &str) -> Option<String> {
    part_problem("", path, "")
}

/// Why `glob` never matches the canonical path of a request, or does so by a part of a character, if so.
pub(crate) fn path_glob_problem(glob: &Glob) -> Option<String> {
    match glob {
        Glob::Any => None,
        Glob::Exact(path) => path_problem(path),
        Glob::Prefix(start) => match whole_start(start) {
            whole if whole == &**start => part_problem("", start, "x"),
            whole => Some(cut_problem(&format!("{start}*"), &format!("{whole}*"))),
        },
        Glob::Suffix(end) => match whole_end(end) {
            whole if whole == &**end => part_problem("/x", end, ""),
            whole => Some(cut_problem(&format!("*{end}"), &format!("*{whole}"))),
        },
    }
}

fn cut_problem(pattern: &str, whole: &str) -> String {
    format!("'{pattern}' has a part of a character only: write all of it, or nothing of it, as in '{whole}'")
}

/// Why no canonical path consists of `before`, `part` and `after`, if so.
fn part_problem(before: &str, part: &str, after: &str) -> Option<String> {
    if part.contains(['?', '#']) {
        return Some(format!("'{part}' has a '?' or '#', which are not part of a path"));
    }
    let whole = format!("{before}{part}{after}");
    if !whole.starts_with('/') {
        return Some(format!("'{part}' does not begin with '/', so no request path can match it"));
    }
    let canonical = read(&whole).canonical;
    if canonical == whole {
        return None;
    }
    let other = canonical.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).unwrap_or(&canonical);
    Some(format!(
        "'{part}' is in no request path, because paths are normalised before they are compared: write '{other}'"
    ))
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
        for bad in ["", "a", "/a?b", "/a#b", "/%2fa", "/a%zz", "/a\\b", "/..", "/a/..;/../b"] {
            let path = PathMatch { kind: PathMatchType::Exact, value: bad.into() };
            assert!(path.problem().is_some(), "{bad}");
        }
        assert_eq!(PathMatch::default().problem(), None);
        assert!(PathMatch { kind: PathMatchType::RegularExpression, value: "(".into() }.problem().is_some());
    }

    #[test]
    fn what_is_not_canonical_is_a_problem_that_names_what_is() {
        for (bad, good) in [
            ("/a//b", "/a/b"),
            ("/a/../b", "/b"),
            ("/./", "/"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/%7Eu2", "/~u2"),
            ("/s p", "/s%20p"),
            ("/a<b>", "/a%3Cb%3E"),
            ("/queues/%2f", "/queues/%2F"),
        ] {
            for pattern in [bad.to_owned(), format!("{bad}*"), format!("*{bad}")] {
                let problem = path_glob_problem(&Glob::new(&pattern).unwrap()).unwrap_or_default();
                assert!(problem.contains(&format!("write '{good}'")), "{pattern}: {problem}");
            }
            assert_eq!(path_problem(good), None);
        }
    }

    #[test]
    fn globs_may_cut_a_path_between_any_two_characters() {
        let parts =
            ["/", ".", "well", "-", "/~u/caf", "%C3%A9", "/", "%E2%82%AC", "/", "%F0%9F%A7%B5", ";", "v=1", "/..x/"];
        assert_eq!(read(&parts.concat()).canonical, parts.concat());
        for at in 1..parts.len() {
            let (start, end) = parts.split_at(at);
            for pattern in [format!("{}*", start.concat()), format!("*{}", end.concat())] {
                assert_eq!(path_glob_problem(&Glob::new(&pattern).unwrap()), None, "{pattern}");
            }
        }
        assert_eq!(path_glob_problem(&Glob::Any), None);
    }

    #[test]
    fn a_glob_that_cuts_a_character_in_two_is_a_problem_that_names_what_is_whole() {
        for (bad, whole) in [
            ("/a%2*", "/a*"),
            ("/a%*", "/a*"),
            ("/caf%C3*", "/caf*"),
            ("/caf%c3*", "/caf*"),
            ("/%E2%82*", "/*"),
            ("*%A9/x", "*/x"),
            ("*%82%AC", "*"),
        ] {
            let problem = path_glob_problem(&Glob::new(bad).unwrap()).unwrap_or_default();
            assert!(
                problem.contains(&format!("'{bad}'")) && problem.contains(&format!("'{whole}'")),
                "{bad}: {problem}"
            );
        }
    }
}
