//! The respond stage: what the other stages came to goes out, an answer as well as an error.

use std::borrow::Cow;

use http::{Response, StatusCode};

use crate::{
    http::{Body, hop, pace::Polled, reply},
    message::{Answered, Halt},
    opaque,
    record::{self, Open},
    telemetry::Protocol,
};

/// Turns the outcome into a response whose end is recorded.
pub(crate) fn finish(mut open: Open, outcome: Result<Answered, Halt>) -> Response<Body> {
    open.exchange.connection.polled.set(Polled::Progressed);
    match outcome {
        Ok(answered) => forward(open, answered),
        Err(Halt::Answered(answered)) => forward(open, *answered),
        Err(Halt::Error(error)) => {
            open.exchange.reason = Some(error.reason);
            open.exchange.policy = error.policy.clone();
            let mut response = reply::reply(&error, open.exchange.caller());
            if let Some(changes) = open.exchange.changes.take() {
                changes.response.apply(response.headers_mut());
            }
            open.answered(response.status(), response.headers());
            open.ended(error.detail);
            let meter = open.exchange.response_bytes.clone();
            response.map(|body| body.metered(meter).ending(Box::new(open)))
        }
    }
}

fn forward(mut open: Open, answered: Answered) -> Response<Body> {
    let Answered { mut parts, body, held, spelling, tunnel } = answered;
    let exchange = &mut open.exchange;
    exchange.reason = reply::reason(&parts.headers).or(exchange.reason);
    // Its sender framed the body by the coding (RFC 9112 section 6.3); a length beside it is an error or an attack.
    if parts.headers.contains_key(http::header::TRANSFER_ENCODING) {
        parts.headers.remove(http::header::CONTENT_LENGTH);
    }
    let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let switching = switches.then(|| parts.headers.get(http::header::UPGRADE).cloned()).flatten();
    // What it names wrongly stays in place; the answer is as good as without the names.
    let _ = hop::strip(&mut parts.headers);
    if let Some(protocol) = switching {
        parts.headers.insert(http::header::CONNECTION, http::HeaderValue::from_static("upgrade"));
        parts.headers.insert(http::header::UPGRADE, protocol);
    }
    match spelling {
        Some(spelling) if exchange.loses_spelling() => spelling.tell(&mut parts.headers),
        Some(spelling) if exchange.connection.protocol == Protocol::Http1 => {
            spelling.keep(&mut parts.extensions, &exchange.connection.worker.spellings);
        }
        _ => {}
    }
    parts.version = http::Version::default();
    if let Some(tunnel) = tunnel {
        exchange.connection.pace.tunnel();
        let opened = record::connection_opened(&exchange.connection, exchange.endpoint.as_ref());
        let tunnelled = exchange.tunnelled();
        tokio::task::spawn_local(opaque::tunnel(opened, exchange.connection.clone(), tunnelled, tunnel));
    }
    let meter = exchange.response_bytes.clone();
    open.answered(parts.status, &parts.headers);
    match held {
        Some((picked, held)) => open.holds(picked, held),
        None => open.ended(Cow::Borrowed("")),
    }
    Response::from_parts(parts, body.metered(meter).ending(Box::new(open)))
}
