//! What a connection speaks, from its first bytes.
//!
//! [`classify`] is a pure function of the bytes so far, and it never changes its mind: once a prefix has a
//! verdict, every longer input has the same one, however the bytes were cut into segments. Input is untrusted;
//! no input panics and none is looked at beyond a fixed bound.
//!
//! A verdict of opaque must not become a way around HTTP policy, so anything an HTTP server might still read as
//! HTTP/1 (a malformed request line, a long one, empty lines before it) is called HTTP/1 and left for the parser to refuse.
//! Where nothing looks into requests, a long line without a target of HTTP is opaque.

use std::time::Duration;

pub(crate) mod client_hello;
pub(crate) mod greeting;
mod prefixed;

pub(crate) use client_hello::{ClientHello, RECORD_HANDSHAKE};
pub(crate) use prefixed::Prefixed;

/// The client connection preface of HTTP/2 (RFC 9113 section 3.4).
pub(crate) const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a caller may be silent before the service is given the chance to speak.
const SILENCE: Duration = Duration::from_millis(10);
/// The same after the start of what is hardly anything else.
const UNFINISHED: Duration = Duration::from_secs(3);
/// How long both sides may be silent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The longest first flight that must be understood: a TLS record.
pub(crate) const FIRST_BYTES: usize = 16 * 1024 + 5;

/// A first line that is longer, with the empty ones before it, is not waited for.
const LINE_MAX: usize = 4096;

/// What the first bytes of a client are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Detection {
    /// Too few bytes to tell.
    NeedMore,
    /// A request line of HTTP/1, well-formed or not.
    Http1,
    /// A line that is longer than any other protocol's, and that nothing says is one of HTTP/1.
    Long,
    /// The preface of HTTP/2 with prior knowledge.
    Http2,
    /// A TLS ClientHello, with its SNI and ALPN.
    Tls(ClientHello),
    /// None of these: bytes that are not looked into.
    Opaque,
}

/// Says what begins with `bytes`.
pub(crate) fn classify(bytes: &[u8]) -> Detection {
    match bytes.first() {
        None => Detection::NeedMore,
        Some(&RECORD_HANDSHAKE) => client_hello::classify(bytes),
        Some(_) if bytes.starts_with(HTTP2_PREFACE) => Detection::Http2,
        Some(_) if HTTP2_PREFACE.starts_with(bytes) => Detection::NeedMore,
        Some(_) => classify_text(bytes),
    }
}

/// Tells a request line of HTTP/1 (RFC 9112 section 3) from the text protocols that look like it at first:
/// `GET key` of redis and memcached, SMTP, SIP and other line protocols have no ` HTTP/` before the line ends. Servers skip
/// any number of empty lines before it, and some any white space.
fn classify_text(bytes: &[u8]) -> Detection {
    let bytes = &bytes[..bytes.len().min(LINE_MAX)];
    let is_long = bytes.len() == LINE_MAX;
    let blank = bytes.iter().take_while(|byte| **byte == b'\n' || is_space(**byte)).count();
    let line = &bytes[blank..];
    let method = line.iter().take_while(|byte| is_token(**byte)).count();
    match line.get(method) {
        // Servers skip empty lines, however many.
        None if is_long => return if line.is_empty() { Detection::Http1 } else { Detection::Long },
        None => return Detection::NeedMore,
        Some(&byte) if method > 0 && is_space(byte) => {}
        Some(_) => return Detection::Opaque,
    }
    let after = &line[method..];
    let end = after.iter().position(|byte| byte.is_ascii_control() && !is_space(*byte));
    let version = |window: &[u8]| is_space(window[0]) && window[1..].eq_ignore_ascii_case(b"HTTP/");
    match end {
        _ if after[..end.unwrap_or(after.len())].windows(6).any(version) => Detection::Http1,
        Some(_) => Detection::Opaque,
        None if is_long && (METHODS.contains(&&line[..method]) || has_target(after)) => Detection::Http1,
        None if is_long => Detection::Long,
        None => Detection::NeedMore,
    }
}

/// Methods (RFC 9110 section 9.3, RFC 5789) after which lenient servers take anything for a target.
const METHODS: [&[u8]; 9] = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];

/// Whether what follows a method begins as a target does (RFC 9112 section 3.2), in any of its forms but the authority's.
fn has_target(after: &[u8]) -> bool {
    let blank = after.iter().take_while(|byte| is_space(**byte)).count();
    let target = &after[blank..];
    let scheme = target.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count();
    target.starts_with(b"/") || target.starts_with(b"*") || target[scheme..].starts_with(b"://")
}

/// How long a caller may be silent after these bytes, which do not tell what it speaks: what may be the start of TLS or of the
/// preface of HTTP/2 is rarely anything else, and longer on its way than a word.
pub(crate) fn silence(bytes: &[u8]) -> Duration {
    let is_start = bytes.first().is_some_and(|byte| *byte == RECORD_HANDSHAKE) || HTTP2_PREFACE.starts_with(bytes);
    if is_start && !bytes.is_empty() { UNFINISHED } else { SILENCE }
}

/// What separates the parts of a request line for lenient servers (RFC 9112 section 3), and for those that split it at the
/// white space of Latin-1.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1f | 0x85 | 0xa0)
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The verdict when bytes arrive one at a time, and after how many.
    fn trickle(bytes: &[u8]) -> (Detection, usize) {
        (0..=bytes.len())
            .map(|end| (classify(&bytes[..end]), end))
            .find(|(verdict, _)| *verdict != Detection::NeedMore)
            .unwrap_or((Detection::NeedMore, bytes.len()))
    }

    #[test]
    fn http_is_recognised() {
        for (bytes, verdict) in [
            (&b"GET / HTTP/1.1\r\n"[..], Detection::Http1),
            (b"get /path?x=1 HTTP/1.0\r\n", Detection::Http1),
            (b"CONNECT example.test:443 HTTP/1.1\r\n", Detection::Http1),
            (b"OPTIONS * HTTP/1.1\r\n", Detection::Http1),
            (b"\r\nGET / HTTP/1.1\r\n", Detection::Http1),
            (b"\r\n\r\n\r\n\n\nGET / HTTP/1.1\r\n", Detection::Http1),
            (b" GET / HTTP/1.1\r\n", Detection::Http1),
            (b"GET\t/x\tHTTP/1.1\r\n", Detection::Http1),
            (b"GET\x0b/x\x0cHTTP/1.1\n", Detection::Http1),
            (b"GET\xa0/x\x1fhttp/1.1\n", Detection::Http1),
            (b"GET /a b HTTP/1.32\r\n", Detection::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Detection::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Detection::Http1),
        ] {
            assert_eq!(classify(bytes), verdict, "{}", bytes.escape_ascii());
            assert_eq!(trickle(bytes).0, verdict, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn other_protocols_are_not_http() {
        for bytes in [
            &b"GET key\r\n"[..],                      // redis inline command
            b"*1\r\n$4\r\nPING\r\n",                  // redis RESP
            b"get foo\r\n",                           // memcached
            b"EHLO client.test\r\n",                  // SMTP
            b"SSH-2.0-OpenSSH_9.2\r\n",               // SSH
            b"\0\0\0\x08\x04\xd2\x16\x2f",            // PostgreSQL SSLRequest
            b"\0\0\0\x29\0\x03\0\0user\0",            // PostgreSQL startup
            b"\x20\0\0\x01\x85\xa6\xff\x01",          // MySQL handshake response
            b"OPTIONS sip:a@b.test SIP/2.0\r\n",      // SIP
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",  // PROXY protocol
            b"requests.total 1 1700000000\n",         // graphite
            b"AMQP\0\0\x09\x01",                      // AMQP
            b"CONNECT\naccept-version:1.2\n\n\0",     // STOMP
            b"\n\nCONNECT\r\nhost:a.test\r\n",        // STOMP after heart-beats
            b"0\x0c\x02\x01\x01\x60\x07\x02\x01\x03", // LDAP bind
            b"\r\n\r\n\r\nEHLO client.test\r\n",      // SMTP after empty lines
            b"\x16\x03\x01\x00\x05hello",             // a TLS record that holds no ClientHello
        ] {
            assert_eq!(classify(bytes), Detection::Opaque, "{}", bytes.escape_ascii());
            assert_eq!(trickle(bytes).0, Detection::Opaque, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn an_overlong_request_line_does_not_become_opaque() {
        for (opening, filler, verdict) in [
            ("GET /", b'a', Detection::Http1),
            ("get\thttps://", b'a', Detection::Http1),
            ("GET HTTP://h/?", b'a', Detection::Http1),
            ("LIST\x0bws://h/", b'a', Detection::Http1),
            ("GET x", b'a', Detection::Http1),
            ("CONNECT h", b'a', Detection::Http1),
            ("\r\n", b'\n', Detection::Http1),
            ("", b'M', Detection::Long),
            ("SET key:1 ", b'v', Detection::Long),
            ("get k1 ", b'k', Detection::Long),
        ] {
            let long = [opening.as_bytes(), &[filler; 2 * LINE_MAX]].concat();
            assert_eq!(trickle(&long), (verdict, LINE_MAX), "{opening:?}");
        }
        let method = [&[b'M'; 200][..], b" / HTTP/1.1\r\n"].concat();
        assert_eq!(trickle(&method).0, Detection::Http1);
    }

    fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
        let opening = prop_oneof![
            Just(b"GET ".to_vec()),
            Just(b"\r\n".to_vec()),
            (0usize..LINE_MAX).prop_map(|blank| [&b"\n".repeat(blank)[..], b"GET\t/ HTTP/1.1"].concat()),
            Just(b"PRI * HTTP/2.0\r\n\r\nSM".to_vec()),
            Just(vec![0x16, 3, 1]),
            Just(client_hello::example(Some("web.shop"), &[b"selvedge-h2"])),
            Just(Vec::new()),
        ];
        (opening, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(mut bytes, rest)| {
            bytes.extend(rest);
            bytes
        })
    }

    proptest! {
        #[test]
        fn a_verdict_is_final(bytes in likely_bytes(), more in prop::collection::vec(any::<u8>(), 0..64)) {
            let (verdict, at) = trickle(&bytes);
            if verdict != Detection::NeedMore {
                for end in at..=bytes.len() {
                    prop_assert_eq!(&classify(&bytes[..end]), &verdict);
                }
                let longer = [&bytes[..], &more[..]].concat();
                prop_assert_eq!(&classify(&longer), &verdict);
            }
        }

        #[test]
        fn a_damaged_client_hello_never_panics(at in 0usize..200, byte: u8, cut in 0usize..200) {
            let mut bytes = client_hello::example(Some("web.shop"), &[b"h2", b"http/1.1"]);
            let len = bytes.len();
            bytes[at % len] = byte;
            let _ = trickle(&bytes[..len.min(cut)]);
            let _ = trickle(&bytes);
        }
    }
}
