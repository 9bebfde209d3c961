//! Host names and their wildcards (Gateway API `Hostname`), and an index by host.

use std::{collections::HashMap, net::Ipv6Addr};

use super::glob::Glob;

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

/// A glob over the hosts of requests, which are in lower case and have no port, no empty label and no dot at the end. The
/// error says what keeps it from ever matching.
pub(crate) fn host_glob(pattern: &str) -> Result<Glob, String> {
    let glob = Glob::new(&literal(pattern).map_or_else(|| pattern.to_ascii_lowercase(), |ip| format!("[{ip}]")))?;
    let fits = match &glob {
        Glob::Any => true,
        Glob::Exact(text) if text.starts_with('[') => is_literal(text),
        Glob::Exact(text) => is_part(text) && !text.starts_with('.') && !text.ends_with('.'),
        Glob::Suffix(text) => is_part(text) && !text.ends_with('.'),
        Glob::Prefix(text) => is_part(text) && !text.starts_with('.'),
    };
    if fits {
        return Ok(glob);
    }
    let (host, port) = pattern.rsplit_once(':').unwrap_or((pattern, ""));
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && (host.ends_with(']') || !host.contains(':'));
    let host = if is_port { host } else { pattern }.trim_end_matches('.');
    let hint = match host.parse::<Ipv6Addr>() {
        Ok(address) => format!(": write '[{address}]'"),
        Err(_) if host != pattern => format!(": write '{host}'"),
        Err(_) => String::new(),
    };
    Err(format!(
        "'{pattern}' is in no host of a request, which has no port, no empty label and no dot at the end{hint}"
    ))
}

fn is_literal(text: &str) -> bool {
    literal(text).is_some()
}

/// The address of an IPv6 literal; hosts have it in the spelling of RFC 5952.
fn literal(text: &str) -> Option<Ipv6Addr> {
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Whether a host may have this part: letters, digits, `-`, `_` and single dots of a name, or some of an IPv6 literal.
fn is_part(text: &str) -> bool {
    let literal = text.strip_prefix('[').or_else(|| text.strip_suffix(']'));
    let of_literal = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (text.bytes().all(of_name) && !text.contains(".."))
        || literal.is_some_and(|rest| rest.bytes().all(of_literal))
        || is_literal(text)
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
        for bad in ["", "*", "a..b", "a.b.", ".a", "*..a", "-a", "a:80", "a.*.b", "http://a", "a/b"] {
            assert!(host_problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn hosts_that_no_request_has_are_problems() {
        for good in
            ["*", "Evil.example", "*.example", "evil*", "evil.*", "[::1]", "[*", "[fd00:*", "[::1]*", "*:1]", "a_b-c.d"]
        {
            assert!(host_glob(good).is_ok(), "{good}");
        }
        assert!(host_glob("[0:0::1]").unwrap().matches("[::1]"), "an address is one, however it is spelt");
        for (bad, hint) in [
            ("evil.example:80", "write 'evil.example'"),
            ("*.example:", "write '*.example'"),
            ("evil2.example.", "write 'evil2.example'"),
            ("*.example.", "write '*.example'"),
            ("evil.example..", "write 'evil.example'"),
            ("evil..example", ""),
            (".example", ""),
            (".evil*", ""),
            ("evil..*", ""),
            ("*..example", ""),
            ("[::1]:80", "write '[::1]'"),
            ("::1", "write '[::1]'"),
            ("evil:*", ""),
            ("http://evil", ""),
            ("e vil", ""),
            ("[::1", ""),
        ] {
            let problem = host_glob(bad).unwrap_err();
            assert!(problem.contains(hint), "{problem}");
        }
    }
}
