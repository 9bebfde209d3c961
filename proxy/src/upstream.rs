//! One request over one connection to one endpoint.
//!
//! Between sidecars requests share one connection of frames per worker and peer, upgrades included; bulk bodies take pooled
//! HTTP/1 connections over the same mutual TLS. To a sidecar that knows no frames HTTP/2 is spoken, and HTTP/1 for upgrades
//! and CONNECT. To the application and to services outside the mesh the caller's own HTTP version is spoken.

use std::rc::Rc;

use http::{
    HeaderValue, Request, Response, Uri, Version,
    header::{HOST, TRANSFER_ENCODING},
    request,
    uri::{self, InvalidUriParts, Scheme},
};
use hyper::client::conn::http2;
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
        hop,
        link::{self, Failed},
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
    address(exchange, endpoint, &mut request, Wire::Http1)?;
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
    mut sender: http2::SendRequest<Body>,
    head: &request::Parts,
    body: Body,
    place: Place,
) -> Result<Answer, Error> {
    let mut request = Request::from_parts(head.clone(), body);
    address(exchange, endpoint, &mut request, Wire::Http2)?;
    let sent = sender.try_send_request(request).await;
    let mut response = sent.map_err(|mut e| failed(endpoint, e.take_message().is_some(), e.error()))?;
    let spelling = hear(endpoint, &mut response);
    Ok(Answer { response: response.map(Content::Http), held: Held::Shared(place), spelling })
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
fn cut(Failed(end): Failed) -> Error {
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
    if matches!(endpoint.config.transport, Transport::Mesh { .. }) {
        return Spelling::heard(response.headers_mut());
    }
    hop::strip_mesh(response.headers_mut());
    None
}

/// Gives the request the target form and marks of its wire.
fn address(exchange: &Exchange, endpoint: &Endpoint, request: &mut Request<Body>, wire: Wire) -> Result<(), Error> {
    let target = exchange.target()?;
    let internal = |e: InvalidUriParts| Error::new(Reason::Internal, e.to_string());
    let mesh = matches!(endpoint.config.transport, Transport::Mesh { .. });
    if let Some(version) = hop::original_version(exchange.version).filter(|_| mesh) {
        request.headers_mut().insert(&hop::ORIGINAL_VERSION, version);
    }
    if wire == Wire::Http2 {
        if let Some(spelling) = exchange.spelling.as_ref().filter(|_| mesh) {
            spelling.tell(request.headers_mut());
        }
        request.headers_mut().remove(HOST);
        *request.version_mut() = Version::HTTP_2;
        let mut parts = uri::Parts::default();
        let outside = matches!(endpoint.config.transport, Transport::External { .. });
        parts.scheme = Some(if outside { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(target.authority.full().clone());
        parts.path_and_query = Some(target.path_and_query.clone());
        *request.uri_mut() = Uri::from_parts(parts).map_err(internal)?;
    } else {
        *request.version_mut() = Version::HTTP_11;
        // By itself the library frames no body of unknown length on a GET, and drops it.
        if http_body::Body::size_hint(request.body()).exact().is_none() {
            request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        request.headers_mut().insert(HOST, target.authority.host_field().clone());
        if request.method() == http::Method::CONNECT {
            *request.uri_mut() = Uri::from(target.authority.full().clone());
        }
    }
    Ok(())
}

/// What a failed send means. `unsent` is true when the endpoint provably did not process the request.
fn failed(endpoint: &Endpoint, unsent: bool, error: &hyper::Error) -> Error {
    let http2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    let refused =
        http2.is_some_and(|e| e.reason() == Some(h2::Reason::REFUSED_STREAM) || (e.is_go_away() && e.is_remote()));
    if unsent || refused {
        let detail = "the endpoint closed the connection before it took the request";
        return Error::failed_try(Reason::UpstreamReset, TryOutcome::Refused, detail);
    }
    let detail = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    // What the library itself refuses of an answer is no HTTP, and no failure of the connection.
    let refuses = http2.is_some_and(|e| e.is_library() && !e.is_io());
    let reason = if error.is_parse() || refuses { Reason::UpstreamProtocolError } else { Reason::UpstreamReset };
    let lost = matches!(endpoint.config.transport, Transport::Mesh { .. }) && is_lost(error);
    Error::failed_try(reason, if lost { TryOutcome::Lost } else { TryOutcome::Reset }, detail)
}

/// Whether the connection ended without a word of the peer's, as when its process was killed. A peer that gives up one
/// request says so.
fn is_lost(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let broke = source.is_some_and(|source| {
        source.is::<std::io::Error>() || source.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_io)
    });
    broke || error.is_incomplete_message()
}
