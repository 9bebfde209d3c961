//! Upgrades (RFC 9110 section 7.8), CONNECT (section 9.3.6) and extended CONNECT (RFC 8441): after the response
//! head the connection or stream becomes a tunnel.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::ext::Protocol;

/// What a request asks to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// HTTP/1.1 `Upgrade`, with the protocols named.
    Upgrade(HeaderValue),
    /// CONNECT on HTTP/1, which turns the connection into a tunnel.
    Connect,
    /// CONNECT, plain or extended, on HTTP/2.
    Stream,
}

/// What the request asks to become, if anything. Read before hop-by-hop fields are removed.
///
/// A server may leave `Upgrade` unheeded, and two kinds are: one to another version of HTTP, because the requests in
/// that tunnel would pass unseen by every policy, and one on a request with a body, which is the plainer half of it.
pub(crate) fn wanted<B: http_body::Body>(request: &Request<B>) -> Option<Wanted> {
    if request.method() == Method::CONNECT {
        let http2 = request.version() == http::Version::HTTP_2;
        return Some(if http2 { Wanted::Stream } else { Wanted::Connect });
    }
    let asks = request.headers().get_all(header::CONNECTION).iter().any(|value| {
        value.as_bytes().split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let protocol = request.headers().get(header::UPGRADE).filter(|_| asks)?;
    let heeded = request.version() == http::Version::HTTP_11 && request.body().is_end_stream() && !names_http(protocol);
    heeded.then(|| Wanted::Upgrade(protocol.clone()))
}

/// True when one of the protocols is HTTP itself (`h2c`, `HTTP/2.0`).
fn names_http(protocols: &HeaderValue) -> bool {
    protocols.as_bytes().split(|b| *b == b',').any(|protocol| {
        let name = protocol.split(|b| *b == b'/').next().unwrap_or_default().trim_ascii();
        [&b"h2c"[..], b"h2", b"http"].iter().any(|http| name.eq_ignore_ascii_case(http))
    })
}

/// Puts the upgrade fields back on a request that goes to an HTTP/1 connection.
pub(crate) fn restore<B>(request: &mut Request<B>, wanted: &Wanted) {
    if let Wanted::Upgrade(protocol) = wanted {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(header::UPGRADE, protocol.clone());
    }
}

/// True when `response` accepts what was wanted.
pub(crate) fn accepted<B>(response: &Response<B>, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Upgrade(_) => response.status() == StatusCode::SWITCHING_PROTOCOLS,
        Wanted::Connect | Wanted::Stream => response.status().is_success(),
    }
}

/// The `:protocol` of an extended CONNECT, to be set on the next request too.
pub(crate) fn protocol<B>(request: &Request<B>) -> Option<Protocol> {
    request.extensions().get::<Protocol>().cloned()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    fn asked(protocol: &str, body: &'static str) -> Option<Wanted> {
        let request = Request::post("/").header("connection", "keep-alive, Upgrade").header("upgrade", protocol);
        wanted(&request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap())
    }

    #[test]
    fn no_upgrade_leads_around_the_policies_for_requests() {
        assert!(matches!(asked("websocket", ""), Some(Wanted::Upgrade(_))));
        for protocol in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", " h2 "] {
            assert_eq!(asked(protocol, ""), None, "{protocol}");
        }
    }

    #[test]
    fn a_body_is_not_lost_to_an_upgrade() {
        assert_eq!(asked("websocket", "body"), None);
    }
}
