//! Origins, as users allow them and as browsers send them (RFC 6454): scheme, host and port, and nothing else.

use std::net::Ipv6Addr;

/// Which origins are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OriginPattern {
    scheme: Scheme,
    host: Host,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// In lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// One or more labels before this, which begins with a dot.
    Below(Box<str>),
    Exact(Box<str>),
}

impl OriginPattern {
    /// Reads `scheme://host[:port]`, where the host may be `*` or begin with `*.`. The error says what was expected.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let parsed = split(text).and_then(|(scheme, host, port)| {
            let lower = host.to_ascii_lowercase();
            let host = match lower.strip_prefix('*') {
                Some("") => Host::Any,
                Some(rest) => Host::Below(rest.strip_prefix('.').filter(|rest| is_host(rest)).map(|_| rest.into())?),
                None => Host::Exact(Some(lower).filter(|host| is_host(host))?.into()),
            };
            Some(Self { scheme, host, port })
        });
        parsed.ok_or_else(|| {
            format!(
                "'{text}' is no origin: expected '*', or http or https with a host and perhaps a port, such as \
                 https://shop.example.com or https://*.example.com:8443"
            )
        })
    }

    /// True for an origin that a request comes with. `null` and what is no origin match nothing.
    pub(super) fn matches(&self, origin: &str) -> bool {
        let Some((scheme, host, port)) = split(origin).filter(|(_, host, _)| is_host(host)) else { return false };
        let is_host = match &self.host {
            Host::Any => true,
            Host::Exact(exact) => host.eq_ignore_ascii_case(exact),
            Host::Below(domain) => host
                .len()
                .checked_sub(domain.len())
                .and_then(|at| host.split_at_checked(at))
                .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain)),
        };
        self.scheme == scheme && self.port == port && is_host
    }
}

/// True for a scheme and a host of any kind, such as apps and browser extensions send. `null` is none: documents without an
/// origin of their own send it, such as sandboxed frames in anybody's page (Fetch standard, `Origin` header).
pub(super) fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty())
}

/// Scheme, host and port; the port that belongs to the scheme where none is written.
fn split(text: &str) -> Option<(Scheme, &str, u16)> {
    let (scheme, rest) = text.split_once("://")?;
    let (scheme, default) = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, 80),
        _ if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, 443),
        _ => return None,
    };
    let end = rest.rfind(']').map_or_else(|| rest.find(':'), |end| rest[end..].find(':').map(|at| end + at));
    let Some(end) = end else { return Some((scheme, rest, default)) };
    let digits = &rest[end + 1..];
    let port = digits.parse().ok().filter(|port| *port != 0 && digits.bytes().all(|b| b.is_ascii_digit()))?;
    Some((scheme, &rest[..end], port))
}

/// A name of labels, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_by_scheme_host_and_port() {
        for (pattern, origin, expected) in [
            ("https://example.com", "https://example.com", true),
            ("https://example.com", "http://example.com", false),
            ("https://example.com", "https://example.com:443", true),
            ("https://example.com:443", "https://example.com", true),
            ("http://example.com", "http://example.com:80", true),
            ("https://example.com", "https://example.com:80", false),
            ("https://example.com", "https://example.com:8443", false),
            ("https://example.com:8443", "https://example.com:8443", true),
            ("HTTPS://Example.COM", "https://example.com", true),
            ("https://example.com", "HTTPS://EXAMPLE.COM", true),
            ("http://10.0.0.1:3000", "http://10.0.0.1:3000", true),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("http://[::1]", "http://[::2]", false),
            ("https://*", "https://anything.at.all", true),
            ("https://*", "https://[::1]", true),
            ("https://*", "http://anything.at.all", false),
            ("https://*", "https://anything:444", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://A.EXAMPLE.com", true),
            ("https://*.example.com:8443", "https://a.example.com:8443", true),
            ("https://*.example.com:8443", "https://a.example.com", false),
            ("https://*.example.com", "https://example.com", false),
        ] {
            assert_eq!(OriginPattern::new(pattern).unwrap().matches(origin), expected, "{pattern} and {origin}");
        }
    }

    #[test]
    fn what_only_looks_like_an_allowed_origin_matches_nothing() {
        let patterns = ["https://example.com", "https://*.example.com", "https://*"];
        let patterns = patterns.map(|pattern| OriginPattern::new(pattern).unwrap());
        for hostile in [
            "",
            "null",
            "*",
            "https",
            "https:",
            "https://",
            "https://*",
            "https://*.example.com",
            "example.com",
            "//example.com",
            "file://example.com",
            "https://example.com/",
            "https://example.com/x",
            "https://example.com?x",
            "https://example.com#x",
            "https://user@example.com",
            "https://evil.com@a.example.com",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:+443",
            "https://example.com:65979",
            "https://example.com:443:443",
            "https://example.com.",
            "https://.example.com",
            "https://a..example.com",
            "https:// example.com",
            "https://example.com https://evil.com",
            "https://example.com, https://evil.com",
            "https://evil.com\\.example.com",
            "https://[::1",
            "https://[example.com]",
            "https://[::1]x",
            "https://\u{43a}.example.com",
        ] {
            assert!(!patterns.iter().any(|pattern| pattern.matches(hostile)), "{hostile:?}");
        }
        for other in
            ["https://example.com.evil.com", "https://evilexample.com", "https://example.co", "https://xample.com"]
        {
            assert!(!patterns[..2].iter().any(|pattern| pattern.matches(other)), "{other:?}");
        }
    }

    #[test]
    fn what_is_no_origin_cannot_be_allowed() {
        for bad in [
            "",
            "null",
            "example.com",
            "ftp://example.com",
            "https://example.com/",
            "https://example.com/x",
            "https://a.*.com",
            "https://*example.com",
            "https://a.*",
            "https://*.",
            "https://**",
            "https://*.*.com",
            "https://example.com:*",
            "https://example.com:0",
            "https://example.com:65536",
            "https://user@example.com",
            "*.example.com",
            "*://example.com",
        ] {
            assert!(OriginPattern::new(bad).unwrap_err().contains("is no origin"), "{bad:?}");
        }
    }
}
