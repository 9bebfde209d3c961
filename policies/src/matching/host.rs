//! Host names and their wildcards (Gateway API `Hostname`), and an index by host.

use std::collections::HashMap;

/// A value for each of many host names; the most specific name wins.
#[derive(Clone, Debug)]
pub(crate) struct HostIndex<T> {
    exact: HashMap<Box<str>, T>,
    /// By suffix with its leading dot: `*.example.com` is `.example.com`.
    wildcards: HashMap<Box<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostIndex<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcards: HashMap::new(), any: None }
    }
}

impl<T: Default> HostIndex<T> {
    /// The value under `pattern`, made when there is none. No pattern means every host.
    pub(crate) fn entry(&mut self, pattern: Option<&str>) -> &mut T {
        let Some(pattern) = pattern else { return self.any.get_or_insert_default() };
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('*') {
            Some(suffix) => self.wildcards.entry(suffix.into()).or_default(),
            None => self.exact.entry(pattern.into()).or_default(),
        }
    }
}

impl<T> HostIndex<T> {
    /// The values of every pattern that matches `host` (lower case), most specific first.
    pub(crate) fn matching<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a T> + 'a {
        let exact = if self.exact.is_empty() { None } else { self.exact.get(host) };
        let dots = if self.wildcards.is_empty() { "" } else { host };
        let suffixes = dots.match_indices('.').filter(|(at, _)| *at > 0);
        let wildcards = suffixes.filter_map(|(at, _)| self.wildcards.get(&host[at..]));
        exact.into_iter().chain(wildcards).chain(&self.any)
    }
}

/// What is wrong with a host name pattern: RFC 1123 labels, optionally after `*.`.
pub(crate) fn host_problem(pattern: &str) -> Option<String> {
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    let label_is_fine = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.len() <= 253 && name.split('.').all(label_is_fine) {
        return None;
    }
    Some(format!(
        "'{pattern}' is not a host name: expected a name such as api.example.com or *.example.com, without port"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_host_comes_first() {
        let mut index = HostIndex::default();
        for pattern in [Some("a.Example.com"), Some("*.example.com"), Some("*.com"), None] {
            *index.entry(pattern) = pattern.unwrap_or("any");
        }
        for (host, expected) in [
            ("a.example.com", vec!["a.Example.com", "*.example.com", "*.com", "any"]),
            ("x.y.example.com", vec!["*.example.com", "*.com", "any"]),
            ("example.com", vec!["*.com", "any"]),
            (".com", vec!["any"]),
            ("shop", vec!["any"]),
        ] {
            assert_eq!(index.matching(host).copied().collect::<Vec<_>>(), expected, "{host}");
        }
    }

    #[test]
    fn what_is_no_host_name_is_a_problem() {
        for good in ["shop", "a.b-c.example", "*.example.com", "10.0.0.1", "my_svc.shop"] {
            assert_eq!(host_problem(good), None, "{good}");
        }
        for bad in ["", "*", "a..b", "-a", "a:80", "a.*.b", "http://a", "a/b"] {
            assert!(host_problem(bad).is_some(), "{bad}");
        }
    }
}
