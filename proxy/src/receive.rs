//! The http stage: takes a request apart into what the other stages may rely on.

use http::{HeaderValue, Method, Request, Version, header::CONTENT_LENGTH};
use hyper::body::Body as _;
use selvedge_policies::reason::Reason;

use crate::{
    error::Error,
    exchange::Exchange,
    http::{
        Content,
        body::Replay,
        canonical,
        case::Spelling,
        hop, trace,
        upgrade::{self, Tunnel, Wanted},
    },
    judge,
    message::Received,
};

/// The request in canonical form, without what is only for this hop.
///
/// # Errors
/// Why its caller may not call, or its head cannot be relied on.
pub(crate) fn request(exchange: &mut Exchange, mut request: Request<Content>) -> Result<Received, Error> {
    if exchange.held.is_none() {
        let detail = "the heads of what this caller has asked, and has no answer to, take too much memory";
        return Err(Error::new(Reason::Overloaded, detail));
    }
    exchange.probe = judge::is_probe(&exchange.connection, &exchange.snapshot.config, &request)?;
    let (wanted, has_none) = (upgrade::wanted(&request), request.body().is_end_stream());
    if wanted == Some(Wanted::Connect) && !has_none {
        // What a service took for the content, and what for the tunnel, nobody could know (RFC 9110 section 9.3.6).
        let detail = "a CONNECT request has no content";
        return Err(Error::new(Reason::MalformedFraming, detail));
    }
    let tunnel = wanted.is_some().then(|| Tunnel::of_request(&mut request));
    let connection = &exchange.connection;
    exchange.target =
        Some(canonical::canonical(&mut request, &connection.authorities, || connection.heading.dialled())?);
    let headers = request.headers_mut();
    let found = hop::look(headers);
    if found.of_mesh && exchange.connection.peer.identity.is_some() {
        match headers.remove(&hop::ORIGINAL_VERSION).as_ref().map(HeaderValue::as_bytes) {
            Some(b"1.0") => exchange.version = Version::HTTP_10,
            Some(_) => exchange.version = Version::HTTP_11,
            None => {}
        }
        exchange.spelling = Spelling::heard(headers).or(exchange.spelling.take());
    }
    if found.of_connection {
        hop::strip(headers).map_err(|detail| Error::new(Reason::MalformedHeader, detail))?;
    }
    if found.of_mesh {
        hop::strip_mesh(headers);
    }
    if wanted.is_some() {
        if has_none {
            headers.remove(CONTENT_LENGTH);
        }
        exchange.asked = Some(headers.clone());
        exchange.opaque = exchange.method == Method::CONNECT && upgrade::protocol(&request).is_none();
    }
    // One field more than the next may take would be the end of a request that is good.
    if exchange.request_id.is_none() && !exchange.probe && request.headers().len() < canonical::MAX_FIELDS {
        exchange.request_id = trace::identify(request.headers_mut());
    }
    match &exchange.span {
        None => {}
        Some(_) if exchange.probe => exchange.span = None, // what is asked every second tells nobody anything
        Some(span) => span.write(request.headers_mut()),
    }
    let request = request.map(|body| Replay::new(body, |length| exchange.sender(length)));
    exchange.late = request.body().late();
    Ok(Received { request, wanted, tunnel })
}
