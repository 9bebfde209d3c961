//! The one authority of a request (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
//!
//! Exactly one authority, with no userinfo, no odd characters, no empty label and no port out of range; where the target
//! and `Host` both carry one they must say the same.

use std::{cell::RefCell, net::Ipv6Addr, rc::Rc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header::HOST, uri};

/// The authority of a request, checked.
#[derive(Debug)]
pub(crate) struct Authority {
    /// As it was given.
    given: Box<[u8]>,
    /// As it is forwarded: lower case, port kept when it was given.
    full: uri::Authority,
    /// `full` as the value of a `Host` field.
    host_field: HeaderValue,
    /// Length of the host part of `full`, without port and without a trailing dot.
    host_len: usize,
}

impl Authority {
    /// Host in lower case, without port or trailing dot.
    pub(crate) fn host(&self) -> &str {
        self.full.as_str().get(..self.host_len).unwrap_or(self.full.as_str())
    }

    /// As it is forwarded.
    pub(crate) const fn full(&self) -> &uri::Authority {
        &self.full
    }

    /// As it is forwarded in `Host`.
    pub(crate) const fn host_field(&self) -> &HeaderValue {
        &self.host_field
    }
}

/// Reads authorities, and remembers the last one: most requests of a connection have the same.
#[derive(Debug, Default)]
pub(crate) struct Reader(RefCell<Option<Rc<Authority>>>);

impl Reader {
    /// Reads the authority of a request from its target and `Host`. The error says what is wrong.
    pub(crate) fn read(&self, uri: &Uri, headers: &HeaderMap) -> Result<Rc<Authority>, &'static str> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err("more than one Host header field");
        }
        let host = host.map(|value| self.one(value.as_bytes())).transpose()?;
        let target = uri.authority().map(|authority| self.one(authority.as_str().as_bytes())).transpose()?;
        match (target, host) {
            (None, None) => Err("no Host header field and no authority in the target"),
            (Some(one), None) | (None, Some(one)) => Ok(one),
            (Some(target), Some(host)) if target.full.as_str() == host.full.as_str() => Ok(target),
            (Some(_), Some(_)) => Err("Host and the authority of the target differ"),
        }
    }

    fn one(&self, given: &[u8]) -> Result<Rc<Authority>, &'static str> {
        let mut last = self.0.borrow_mut();
        match &*last {
            Some(known) if *known.given == *given => Ok(known.clone()),
            _ => Ok(last.insert(Rc::new(parse(given)?)).clone()),
        }
    }
}

fn parse(raw: &[u8]) -> Result<Authority, &'static str> {
    let text = std::str::from_utf8(raw).map_err(|_| "the host is not text")?;
    let (host, port) = split(text)?;
    if let Some(port) = port {
        let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || port.parse::<u16>().is_err() {
            return Err("the port of the host is not a number from 0 to 65535");
        }
    }
    // One dot at the end is the root of DNS (RFC 1034 section 3.1). Were more of them taken, each hop would strip one, and
    // no policy would know the host by its name.
    let bare = host.strip_suffix('.').unwrap_or(host);
    if bare.is_empty() {
        return Err("the host is empty");
    }
    if bare.split('.').any(str::is_empty) {
        return Err("the host has an empty label: two dots in a row, or one at its start");
    }
    if !bare.starts_with('[') && !bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        return Err("the host has characters that no host name has");
    }
    // One address has many spellings, and policies know the one of RFC 5952.
    let literal = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok());
    let mut full = literal.map_or_else(|| bare.to_ascii_lowercase(), |address| format!("[{address}]"));
    let host_len = full.len();
    if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
        full.push(':');
        full.push_str(&port.to_string());
    }
    let full = Bytes::from(full);
    let odd = "the host is not the authority of any URI";
    let host_field = HeaderValue::from_maybe_shared(full.clone()).map_err(|_| odd)?;
    let full = uri::Authority::from_maybe_shared(full).map_err(|_| odd)?;
    Ok(Authority { given: raw.into(), full, host_field, host_len })
}

/// Splits off the port; checks an IPv6 literal.
fn split(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    let Some(rest) = text.strip_prefix('[') else {
        return Ok(match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("the host has more than one port"),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        });
    };
    let (literal, after) = rest.split_once(']').ok_or("the IPv6 literal is not closed")?;
    literal.parse::<Ipv6Addr>().map_err(|_| "the host is not an IPv6 literal")?;
    let host = text.get(..literal.len() + 2).unwrap_or(text);
    match after.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if after.is_empty() => Ok((host, None)),
        None => Err("there is something between the IPv6 literal and the port"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(uri: &str, hosts: &[&'static str]) -> Result<String, &'static str> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        let reader = Reader::default();
        let read = || reader.read(&uri.parse().unwrap(), &headers).map(|a| format!("{} {}", a.host(), a.full));
        let first = read();
        assert_eq!(read(), first, "read again");
        first
    }

    #[test]
    fn spellings_of_one_host_become_one() {
        for (uri, hosts, expected) in [
            ("/", &["a.test"][..], "a.test a.test"),
            ("/", &["SECRET.test"], "secret.test secret.test"),
            ("/", &["secret.test."], "secret.test secret.test"),
            ("/", &["a:080"], "a a:80"),
            ("/", &["[::1]:80"], "[::1] [::1]:80"),
            ("/", &["[0:0::0001]:80"], "[::1] [::1]:80"),
            ("/", &["[2001:DB8:0:0::A]"], "[2001:db8::a] [2001:db8::a]"),
            ("http://b/a", &["b"], "b b"),
            ("http://b/a", &[], "b b"),
        ] {
            assert_eq!(of(uri, hosts).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn another_authority_is_not_taken_for_the_last_one() {
        let reader = Reader::default();
        for (uri, host) in [("http://a/", "a"), ("http://b/", "b"), ("http://a.test/", "a"), ("http://a/", "A")] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            match reader.read(&uri.parse().unwrap(), &headers) {
                Ok(read) => assert!(uri == format!("http://{}/", read.full()) && read.host_field() == read.host()),
                Err(_) => assert_eq!(uri, "http://a.test/"),
            }
        }
    }

    #[test]
    fn doubtful_hosts_are_refused() {
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &["a", "a"]),
            ("/", &["a b"]),
            ("/", &["a/b"]),
            ("/", &["a?b"]),
            ("/", &[""]),
            ("/", &["user@a"]),
            ("/", &["[::1"]),
            ("/", &["[zz]"]),
            ("/", &["[::1]x"]),
            ("/", &["a:99999"]),
            ("/", &["a:80:80"]),
            ("/", &["a:"]),
            ("/", &["a:+1"]),
            ("/", &["."]),
            ("/", &[".."]),
            ("/", &["secret.test.."]),
            ("/", &["secret.test...:80"]),
            ("/", &["secret..test"]),
            ("/", &[".secret.test"]),
            ("/", &["[::1]."]),
            ("http://secret.test../", &[]),
            ("http://secret.test../", &["secret.test"]),
            ("secret.test..:80", &[]),
            ("http://b/a", &["a"]),
            ("http://u@b/a", &[]),
        ] {
            assert!(of(uri, hosts).is_err(), "{uri} {hosts:?}");
        }
    }
}
