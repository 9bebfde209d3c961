//! The http stage: takes a request apart into what the other stages may rely on.

use http::{HeaderValue, Method, Request, Version, header::CONTENT_LENGTH};
use hyper::body::Incoming;
use selvedge_policies::reason::Reason;

use crate::{
    error::Error,
    exchange::Exchange,
    http::{
        body::Replay,
        canonical,
        case::Spelling,
        hop,
        upgrade::{self, Wanted},
    },
    judge,
    message::Received,
};

/// The request in canonical form, without what is only for this hop.
///
/// # Errors
/// Why its caller may not call, or its head cannot be relied on.
pub(crate) fn request(exchange: &mut Exchange, mut request: Request<Incoming>) -> Result<Received, Error> {
    exchange.probe = judge::is_probe(&exchange.connection, &exchange.snapshot.config, &request)?;
    let wanted = upgrade::wanted(&request);
    if wanted == Some(Wanted::Connect) && !hyper::body::Body::is_end_stream(request.body()) {
        // What a service took for the content, and what for the tunnel, nobody could know (RFC 9110 section 9.3.6).
        let detail = "a CONNECT request has no content";
        return Err(Error::new(Reason::MalformedFraming, detail));
    }
    let tunnel = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
    exchange.target = Some(canonical::canonical(&mut request, &exchange.connection.authorities)?);
    let headers = request.headers_mut();
    if exchange.connection.peer.identity.is_some() {
        match headers.remove(&hop::ORIGINAL_VERSION).as_ref().map(HeaderValue::as_bytes) {
            Some(b"1.0") => exchange.version = Version::HTTP_10,
            Some(_) => exchange.version = Version::HTTP_11,
            None => {}
        }
        exchange.spelling = Spelling::heard(headers).or(exchange.spelling.take());
    }
    hop::strip(headers).map_err(|detail| Error::new(Reason::MalformedHeader, detail))?;
    hop::strip_mesh(headers);
    if wanted.is_some() {
        headers.remove(CONTENT_LENGTH);
        exchange.asked = Some(headers.clone());
        exchange.opaque = exchange.method == Method::CONNECT && upgrade::protocol(&request).is_none();
    }
    let request = request.map(|body| Replay::new(body, |length| exchange.sender(length)));
    exchange.late = request.body().late();
    Ok(Received { request, wanted, tunnel })
}
