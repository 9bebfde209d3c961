//! One request over one connection to one endpoint.
//!
//! Between sidecars requests share one connection of frames per worker and peer, upgrades included; bulk bodies take pooled
//! HTTP/1 connections over the same mutual TLS. To a sidecar that knows no frames HTTP/2 is spoken, and HTTP/1 for upgrades
//! and CONNECT. To the application and to services outside the mesh the caller's own HTTP version is spoken.

use std::rc::Rc;

use http::{
    HeaderMap, HeaderValue, Request, Response, Uri, Version,
    header::{HOST, TRANSFER_ENCODING},
    request,
    uri::{self, InvalidUriParts, Scheme},
};
use hyper::ext::Protocol;
use selvedge_policies::{attempt::retry::TryOutcome, reason::Reason};

use crate::{
    cluster::{
        connect::Hop,
        endpoint::Endpoint,
        pool::{Carries, Held, Place, Sender, Shared},
    },
    config::Transport,
    error::Error,
    exchange::Exchange,
    frames::{Asked, Code, End},
    http::{
        Body, Content,
        case::Spelling,
        hop, http2, link,
        upgrade::{self, Wanted},
    },
};

/// Bodies announced at this size or above take HTTP/1 between sidecars: 28 % less CPU per MiB than HTTP/2.
const BULK: u64 = 256 * 1024;

/// How one request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP/1.1 on a pooled connection.
    Http1,
    /// HTTP/2 on a shared connection.
    Http2,
    /// Frames on a shared connection, or HTTP/2 where the peer does not know them.
    Frames,
}

/// A response, and what must be kept until its body is over.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The response head, with the body that still streams.
    pub response: Response<Content>,
    /// The connection it came on, or its place there.
    pub held: Held,
    /// How the names of its head were written.
    pub spelling: Option<Spelling>,
}

/// Sends a request with this head, whose URI is in origin form, to `endpoint`. The head stays for another try.
pub(crate) async fn send(
    exchange: &Exchange,
    endpoint: &Rc<Endpoint>,
    head: &request::Parts,
    body: Body,
    wanted: Option<&Wanted>,
) -> Result<Answer, Error> {
    let pool = &endpoint.pool;
    let http1 = |body| over_http1(exchange, endpoint, head, body, wanted);
    let hop = match wire(exchange, endpoint, &body, wanted) {
        Wire::Http1 => return http1(body).await,
        Wire::Http2 => Hop::Http2,
        Wire::Frames => Hop::Frames,
    };
    if pool.shared.was_left() {
        endpoint.leave_alone(exchange.connection.worker.now());
    }
    let carries = if wanted.is_some() { Carries::Tunnels } else { Carries::Requests };
    match Shared::place(pool, &endpoint.config, &exchange.snapshot.trust, (hop, carries)).await? {
        (Sender::Frames(sender), place) => over_frames(exchange, sender, head, body, wanted, place).await,
        (Sender::Http2(_), _) if matches!(wanted, Some(Wanted::Upgrade(_) | Wanted::Connect)) => http1(body).await,
        (Sender::Http2(sender), place) => over_http2(exchange, endpoint, sender, head, body, place).await,
    }
}

async fn over_http1(
    exchange: &Exchange,
    endpoint: &Rc<Endpoint>,
    head: &request::Parts,
    body: Body,
    wanted: Option<&Wanted>,
) -> Result<Answer, Error> {
    let pool = &endpoint.pool;
    let mut lease = pool.http1(&endpoint.config, &exchange.snapshot.trust).await?;
    let mut request = Request::from_parts(head.clone(), body);
    for_http1(exchange, endpoint, &mut request)?;
    if let Some(wanted) = wanted {
        upgrade::restore(&mut request, wanted);
    }
    let idempotent = request.method().is_idempotent();
    exchange.spelling.iter().for_each(|spelling| lease.spellings.spell(spelling));
    let sent = lease.sender.try_send_request(request).await;
    let mut response = sent.map_err(|mut e| {
        // Closed by its server when the request came, as it seems. That is no proof: the next try is on a new
        // connection, and there will be no other one without a policy.
        let stale = lease.reused && idempotent && e.error().is_incomplete_message();
        if stale {
            pool.distrust();
            exchange.in_doubt.set(true);
        }
        failed(endpoint, e.take_message().is_some() || stale, e.error())
    })?;
    let spelling = lease.spellings.of_response(&response);
    hear(endpoint, &mut response);
    Ok(Answer { response: response.map(Content::Http), held: Held::Http1(lease), spelling })
}

async fn over_http2(
    exchange: &Exchange,
    endpoint: &Endpoint,
    sender: http2::Sender,
    head: &request::Parts,
    body: Body,
    place: Place,
) -> Result<Answer, Error> {
    let failed = |failed| unanswered(endpoint, failed);
    let turn = sender.turn().await.map_err(failed)?;
    let sent = http2::send(turn, for_http2(exchange, endpoint, head)?, body).map_err(failed)?;
    let mut response = sent.await.map_err(failed)?;
    let spelling = hear(endpoint, &mut response);
    Ok(Answer { response, held: Held::Shared(place), spelling })
}

async fn over_frames(
    exchange: &Exchange,
    sender: link::Sender,
    head: &request::Parts,
    body: Body,
    wanted: Option<&Wanted>,
    place: Place,
) -> Result<Answer, Error> {
    let target = exchange.target()?;
    let asked = Asked {
        method: &head.method,
        version: exchange.version,
        authority: target.authority.full().as_str(),
        path_and_query: target.path_and_query.as_str(),
        headers: &head.headers,
        spelling: exchange.spelling.as_ref().map(Spelling::value),
        becomes: wanted.map(|wanted| upgrade::tell(head, wanted)),
    };
    let (response, spelling) = sender.send(&asked, body).await.map_err(cut)?;
    let spelling = spelling.and_then(Spelling::believed);
    Ok(Answer { response, held: Held::Shared(place), spelling })
}

/// What a stream between sidecars that ended without an answer means.
fn cut(link::Failed(end): link::Failed) -> Error {
    let lost = |outcome, detail| Error::failed_try(Reason::UpstreamReset, outcome, detail);
    match end {
        End::Reset(Code::Refused) => {
            lost(TryOutcome::Refused, "the endpoint closed the connection before it took the request")
        }
        End::Reset(Code::TooLarge) => Error::new(Reason::HeadersTooLarge, "the head is larger than a sidecar takes"),
        End::Reset(_) => lost(TryOutcome::Reset, "the endpoint gave the request up"),
        End::Lost => lost(TryOutcome::Lost, "the connection to the endpoint was lost"),
        End::Broken(what) => Error::failed_try(Reason::UpstreamProtocolError, TryOutcome::Reset, what),
    }
}

fn wire(exchange: &Exchange, endpoint: &Endpoint, body: &Body, wanted: Option<&Wanted>) -> Wire {
    match (&endpoint.config.transport, wanted) {
        // A stream of frames has content or becomes a tunnel.
        (Transport::Mesh { .. }, Some(_)) if http_body::Body::is_end_stream(body) => Wire::Frames,
        (_, Some(Wanted::Upgrade(_) | Wanted::Connect)) => Wire::Http1,
        (_, Some(Wanted::Stream)) => Wire::Http2,
        (Transport::Mesh { .. }, None) if exchange.version == Version::HTTP_2 || !bulk(endpoint, body) => Wire::Frames,
        (Transport::Plain | Transport::External { .. }, None)
            if exchange.version == Version::HTTP_2 || endpoint.config.http2 =>
        {
            Wire::Http2
        }
        _ => Wire::Http1,
    }
}

fn bulk(endpoint: &Endpoint, body: &Body) -> bool {
    let announced = http_body::Body::size_hint(body).exact();
    announced.is_some_and(|size| size >= BULK) || endpoint.pool.mean_response() >= BULK
}

/// Takes the mesh's own fields out of a response. What they say is believed when a sidecar says it; the reason then
/// goes on to the caller.
fn hear<B>(endpoint: &Endpoint, response: &mut Response<B>) -> Option<Spelling> {
    if is_meshed(endpoint) {
        return Spelling::heard(response.headers_mut());
    }
    hop::strip_mesh(response.headers_mut());
    None
}

/// Gives the request the target form and marks of HTTP/1.
fn for_http1(exchange: &Exchange, endpoint: &Endpoint, request: &mut Request<Body>) -> Result<(), Error> {
    let target = exchange.target()?;
    mark(exchange, endpoint, request.headers_mut());
    *request.version_mut() = Version::HTTP_11;
    // By itself the library frames no body of unknown length on a GET, and drops it.
    if http_body::Body::size_hint(request.body()).exact().is_none() {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    request.headers_mut().insert(HOST, target.authority.host_field().clone());
    if request.method() == http::Method::CONNECT {
        *request.uri_mut() = Uri::from(target.authority.full().clone());
    }
    Ok(())
}

/// The request with the target form and marks of HTTP/2.
fn for_http2(exchange: &Exchange, endpoint: &Endpoint, head: &request::Parts) -> Result<Request<()>, Error> {
    let target = exchange.target()?;
    let internal = |e: InvalidUriParts| Error::new(Reason::Internal, e.to_string());
    let mut request = Request::new(());
    let headers = request.headers_mut();
    headers.clone_from(&head.headers);
    headers.remove(HOST);
    mark(exchange, endpoint, headers);
    if let Some(spelling) = exchange.spelling.as_ref().filter(|_| is_meshed(endpoint)) {
        spelling.tell(headers);
    }
    if let Some(protocol) = head.extensions.get::<Protocol>() {
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol.as_str()));
    }
    let mut parts = uri::Parts::default();
    let outside = matches!(endpoint.config.transport, Transport::External { .. });
    parts.scheme = Some(if outside { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(target.authority.full().clone());
    parts.path_and_query = Some(target.path_and_query.clone());
    *request.uri_mut() = Uri::from_parts(parts).map_err(internal)?;
    *request.version_mut() = Version::HTTP_2;
    request.method_mut().clone_from(&head.method);
    Ok(request)
}

fn is_meshed(endpoint: &Endpoint) -> bool {
    matches!(endpoint.config.transport, Transport::Mesh { .. })
}

/// Tells another sidecar which version the caller spoke.
fn mark(exchange: &Exchange, endpoint: &Endpoint, headers: &mut HeaderMap) {
    if let Some(version) = hop::original_version(exchange.version).filter(|_| is_meshed(endpoint)) {
        headers.insert(&hop::ORIGINAL_VERSION, version);
    }
}

/// What a request over HTTP/1 that failed means. `unsent` is true when the endpoint provably did not process it.
fn failed(endpoint: &Endpoint, unsent: bool, error: &hyper::Error) -> Error {
    if unsent {
        return refused();
    }
    let source = std::error::Error::source(error);
    let detail = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    let reason = if error.is_parse() { Reason::UpstreamProtocolError } else { Reason::UpstreamReset };
    let lost = source.is_some_and(|source| source.is::<std::io::Error>()) || error.is_incomplete_message();
    broken_off(endpoint, (reason, detail), lost)
}

/// What a request over HTTP/2 without an answer means.
fn unanswered(endpoint: &Endpoint, failed: http2::Failed) -> Error {
    let error = match failed {
        http2::Failed::Unsent => return refused(),
        http2::Failed::Silent => {
            return broken_off(endpoint, (Reason::UpstreamReset, "http2 error: keep-alive timed out".into()), false);
        }
        http2::Failed::Ended(error) => error,
    };
    if error.reason() == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote()) {
        return refused();
    }
    let what = if error.is_io() { "connection error" } else { "http2 error" };
    // What the library itself refuses of an answer is no HTTP, and no failure of the connection.
    let reason = if error.is_library() { Reason::UpstreamProtocolError } else { Reason::UpstreamReset };
    broken_off(endpoint, (reason, format!("{what}: {error}")), error.is_io())
}

/// The endpoint provably did not process the request.
fn refused() -> Error {
    let detail = "the endpoint closed the connection before it took the request";
    Error::failed_try(Reason::UpstreamReset, TryOutcome::Refused, detail)
}

/// The endpoint may have processed the request. `lost` is true when the connection ended without a word of the peer's, as when its
/// process was killed: a peer that gives up one request says so.
fn broken_off(endpoint: &Endpoint, (reason, detail): (Reason, String), lost: bool) -> Error {
    let lost = lost && is_meshed(endpoint);
    Error::failed_try(reason, if lost { TryOutcome::Lost } else { TryOutcome::Reset }, detail)
}
