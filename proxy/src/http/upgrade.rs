//! Upgrades (RFC 9110 section 7.8), CONNECT (section 9.3.6) and extended CONNECT (RFC 8441): after the response
//! head the connection or stream becomes a tunnel.

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request};
use hyper::{
    ext::Protocol,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio_util::either::Either;

use super::{Content, content::Stream};

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

/// One side of what a request becomes.
#[derive(Debug)]
pub(crate) enum Tunnel {
    /// What HTTP leaves, once it has switched.
    Http(OnUpgrade),
    /// A stream of frames or of HTTP/2.
    Stream(Stream),
}

impl Tunnel {
    /// The side of whoever asked, with what it said behind its request.
    pub(crate) fn of_request(request: &mut Request<Content>) -> Self {
        request.body_mut().take_tunnel().map_or_else(|| Self::Http(hyper::upgrade::on(request)), Self::Stream)
    }

    /// The side of the service, of an answer that accepts.
    pub(crate) fn of_response(response: &mut Response<Content>) -> Self {
        response.body_mut().take_tunnel().map_or_else(|| Self::Http(hyper::upgrade::on(response)), Self::Stream)
    }

    /// Its bytes, once it is there; nothing when it came to nothing.
    pub(crate) async fn open(self) -> Option<Either<TokioIo<Upgraded>, Stream>> {
        match self {
            Self::Http(upgrade) => upgrade.await.ok().map(|upgraded| Either::Left(TokioIo::new(upgraded))),
            Self::Stream(tunnel) => Some(Either::Right(tunnel)),
        }
    }
}

/// What the request asks to become, if anything. Read before hop-by-hop fields are removed.
///
/// What comes over frames was [heard](hear) already, and has no fields for it.
///
/// A server may leave `Upgrade` unheeded, and two kinds are: one to another version of HTTP, because the requests in
/// that tunnel would pass unseen by every policy, and one on a request with content of which nobody has said how long it
/// is: where that ends and the tunnel begins is the service's to say alone where a length says it, too.
pub(crate) fn wanted<B: http_body::Body>(request: &Request<B>) -> Option<Wanted> {
    if let Some(heard) = request.extensions().get() {
        return Some(Wanted::clone(heard));
    }
    if request.method() == Method::CONNECT {
        let http2 = request.version() == http::Version::HTTP_2;
        return Some(if http2 { Wanted::Stream } else { Wanted::Connect });
    }
    let asks = request.headers().get_all(header::CONNECTION).iter().any(|value| {
        value.as_bytes().split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let protocol = request.headers().get(header::UPGRADE).filter(|_| asks)?;
    let is_sized = request.body().is_end_stream() || request.body().size_hint().exact().is_some();
    let heeded = request.version() == http::Version::HTTP_11 && is_sized && !names_http(protocol);
    heeded.then(|| Wanted::Upgrade(protocol.clone()))
}

/// What a request with this head should become, told to another sidecar; empty for a plain CONNECT.
pub(crate) fn tell<'a>(head: &'a request::Parts, wanted: &'a Wanted) -> &'a [u8] {
    match wanted {
        Wanted::Upgrade(protocols) => protocols.as_bytes(),
        Wanted::Connect => &[],
        Wanted::Stream => head.extensions.get::<Protocol>().map_or(&[], |protocol| protocol.as_str().as_bytes()),
    }
}

/// Takes into `head` what another sidecar has told with it, for a caller that spoke `version`; `false` when that is nothing
/// that a request may become, as in [`wanted`].
pub(crate) fn hear(head: &mut request::Parts, version: Version, told: &[u8]) -> bool {
    let wanted = match (head.method == Method::CONNECT, version) {
        (false, Version::HTTP_11) => {
            let protocols = HeaderValue::from_bytes(told).ok().filter(|told| !told.is_empty() && !names_http(told));
            protocols.map(Wanted::Upgrade)
        }
        (true, Version::HTTP_2) => std::str::from_utf8(told).ok().map(|protocol| {
            if !protocol.is_empty() {
                head.extensions.insert(Protocol::from(protocol));
            }
            Wanted::Stream
        }),
        (true, _) => told.is_empty().then_some(Wanted::Connect),
        (false, _) => None,
    };
    wanted.is_some_and(|wanted| head.extensions.insert(wanted).is_none())
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
    fn another_sidecar_asks_for_nothing_that_callers_may_not() {
        let (http1, http2) = (Version::HTTP_11, Version::HTTP_2);
        for (method, version, told, heard) in [
            (Method::GET, http1, &b"websocket"[..], true),
            (Method::GET, http1, b"websocket, h2c", false),
            (Method::GET, http1, b"", false),
            (Method::GET, http2, b"websocket", false),
            (Method::CONNECT, http1, b"", true),
            (Method::CONNECT, http1, b"websocket", false),
            (Method::CONNECT, http2, b"", true),
            (Method::CONNECT, http2, b"websocket", true),
            (Method::CONNECT, http2, b"\xff", false),
        ] {
            let (mut head, ()) = Request::new(()).into_parts();
            head.method = method;
            assert_eq!(hear(&mut head, version, told), heard, "{} {told:?} by {version:?}", head.method);
            assert_eq!(head.extensions.get::<Wanted>().is_some(), heard);
        }
    }

    #[test]
    fn content_is_not_lost_to_an_upgrade() {
        assert!(matches!(asked("tcp", "content"), Some(Wanted::Upgrade(_))));
        let frames = futures_util::stream::empty::<Result<hyper::body::Frame<Bytes>, std::convert::Infallible>>();
        let chunks = Request::post("/").header("connection", "upgrade").header("upgrade", "tcp");
        assert_eq!(wanted(&chunks.body(http_body_util::StreamBody::new(frames)).unwrap()), None, "of no known length");
    }
}
