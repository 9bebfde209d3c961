//! The one authority of a request (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
//!
//! Exactly one authority, with no userinfo, no odd characters, no empty label and no port out of range; where the target
//! and `Host` both carry one they must mean the same. It goes on as it was spelt, for signatures cover `Host`.

use std::{cell::RefCell, net::Ipv6Addr, rc::Rc};

use http::{HeaderMap, HeaderValue, Uri, header::HOST, uri};

/// The authority of a request, checked.
#[derive(Debug)]
pub(crate) struct Authority {
    /// As it was given.
    given: Box<[u8]>,
    /// As it was given, for the target of a request.
    full: uri::Authority,
    /// As it was given, for a `Host` field.
    host_field: HeaderValue,
    /// Host in lower case, without a trailing dot.
    host: Box<str>,
    port: Option<u16>,
}

impl Authority {
    /// Host in lower case, without port or trailing dot.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// As it is forwarded.
    pub(crate) const fn full(&self) -> &uri::Authority {
        &self.full
    }

    /// As it is forwarded in `Host`.
    pub(crate) const fn host_field(&self) -> &HeaderValue {
        &self.host_field
    }

    /// Host and port, the one that `scheme` has by itself where there is none (RFC 9110 section 4.2.3).
    fn meant(&self, scheme: Option<&str>) -> (&str, Option<u16>) {
        let usual = match scheme {
            Some("http") => Some(80),
            Some("https") => Some(443),
            _ => None,
        };
        (&self.host, self.port.or(usual))
    }
}

/// Reads authorities, and remembers the last one: most requests of a connection have the same.
#[derive(Debug, Default)]
pub(crate) struct Reader(RefCell<Option<Rc<Authority>>>);

impl Reader {
    /// Reads the authority of a request from its target and `Host`; one that has neither is for whoever was `dialled`, if
    /// that is allowed. The error says what is wrong.
    pub(crate) fn read(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        dialled: impl FnOnce() -> Option<String>,
    ) -> Result<Rc<Authority>, &'static str> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err("more than one Host header field");
        }
        let host = host.map(|value| self.one(value.as_bytes())).transpose()?;
        let target = uri.authority().map(|authority| self.one(authority.as_str().as_bytes())).transpose()?;
        match (target, host) {
            (None, None) => match dialled() {
                Some(dialled) => self.one(dialled.as_bytes()),
                None => Err("no Host header field and no authority in the target"),
            },
            (Some(one), None) | (None, Some(one)) => Ok(one),
            (Some(target), Some(host)) if Rc::ptr_eq(&target, &host) => Ok(host),
            (Some(target), Some(host)) if target.meant(uri.scheme_str()) == host.meant(uri.scheme_str()) => Ok(host),
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
    // One without digits is none (RFC 3986 section 6.2.3).
    let port = port.filter(|port| !port.is_empty());
    if port
        .is_some_and(|port| port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err())
    {
        return Err("the port of the host is not a number from 0 to 65535");
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
    let host = literal.map_or_else(|| bare.to_ascii_lowercase(), |address| format!("[{address}]"));
    let odd = "the host is not the authority of any URI";
    let host_field = HeaderValue::from_bytes(raw).map_err(|_| odd)?;
    let full = uri::Authority::try_from(raw).map_err(|_| odd)?;
    let port = port.and_then(|port| port.parse().ok());
    Ok(Authority { given: raw.into(), full, host_field, host: host.into(), port })
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
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        let reader = Reader::default();
        let read = || {
            let read = reader.read(&uri.parse().unwrap(), &headers, || None);
            read.map(|a| {
                assert_eq!(a.full.as_str().as_bytes(), a.host_field.as_bytes());
                format!("{} {}", a.host(), a.full)
            })
        };
        let first = read();
        assert_eq!(read(), first, "read again");
        first
    }

    #[test]
    fn spellings_of_one_host_are_judged_as_one_and_go_on_as_they_are() {
        for (uri, hosts, expected) in [
            ("/", &["a.test"][..], "a.test a.test"),
            ("/", &["SECRET.test"], "secret.test SECRET.test"),
            ("/", &["secret.test."], "secret.test secret.test."),
            ("/", &["a:080"], "a a:080"),
            ("/", &["a:"], "a a:"),
            ("/", &["[::1]:80"], "[::1] [::1]:80"),
            ("/", &["[0:0::0001]:80"], "[::1] [0:0::0001]:80"),
            ("/", &["[2001:DB8:0:0::A]"], "[2001:db8::a] [2001:DB8:0:0::A]"),
            ("/", &["xn--bcher-kva.test"], "xn--bcher-kva.test xn--bcher-kva.test"),
            ("http://b/a", &["b"], "b b"),
            ("http://b/a", &[], "b b"),
            ("http://b:80/a", &["b"], "b b"),
            ("http://b/a", &["B.:80"], "b B.:80"),
            ("http://b:/a", &["b:80"], "b b:80"),
            ("https://b:443/a", &["b"], "b b"),
            ("b:80", &["b:80"], "b b:80"),
        ] {
            assert_eq!(of(uri, hosts).as_deref(), Ok(expected), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn who_names_nobody_means_whoever_was_dialled_where_that_may_be() {
        let read = |dialled: Option<&str>| {
            let read = Reader::default().read(&Uri::from_static("/"), &HeaderMap::new(), || dialled.map(str::to_owned));
            read.map(|authority| authority.host().to_owned())
        };
        assert_eq!((read(Some("10.0.0.1:80")).as_deref(), read(None).is_err()), (Ok("10.0.0.1"), true));
    }

    #[test]
    fn another_authority_is_not_taken_for_the_last_one() {
        let reader = Reader::default();
        for (uri, host, fits) in [
            ("http://a/", "a", true),
            ("http://b/", "b", true),
            ("http://a.test/", "a", false),
            ("http://a/", "A", true),
        ] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            let read = reader.read(&uri.parse().unwrap(), &headers, || None);
            assert_eq!(
                read.ok().map(|read| read.host_field().clone()),
                fits.then(|| HeaderValue::from_static(host)),
                "{uri}"
            );
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
            ("/", &["a:+1"]),
            ("/", &["b\u{fc}cher.test"]),
            ("/", &["%73ecret.test"]),
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
            ("http://b:81/a", &["b"]),
            ("https://b/a", &["b:80"]),
            ("b:80", &["b"]),
            ("http://u@b/a", &[]),
        ] {
            assert!(of(uri, hosts).is_err(), "{uri} {hosts:?}");
        }
    }
}
