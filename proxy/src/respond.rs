//! The respond stage: what the other stages came to goes out, an answer as well as an error.

use http::{HeaderValue, Response, StatusCode, header::CONNECTION};
use hyper::ext::ReasonPhrase;

use crate::{
    http::{Body, hop, pace::Polled, reply},
    message::{Answered, Halt},
    opaque,
    record::{self, Open},
    telemetry::Protocol,
};

/// Turns the outcome into a response whose end is recorded.
pub(crate) fn finish(open: Open, outcome: Result<Answered, Halt>) -> Response<Body> {
    let connection = open.exchange.connection.clone();
    connection.polled.set(Polled::Progressed);
    let mut response = respond(open, outcome);
    if connection.protocol == Protocol::Http1 && connection.pace.owes_content() {
        // The library closes the connection then, and would not say so (RFC 9112 section 9.6).
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn respond(mut open: Open, outcome: Result<Answered, Halt>) -> Response<Body> {
    match outcome {
        Ok(answered) => forward(open, answered),
        Err(Halt::Answered(answered)) => forward(open, *answered),
        Err(Halt::Error(error)) => {
            open.exchange.reason = Some(error.reason);
            open.exchange.policy = error.policy.clone();
            open.exchange.rule = error.rule;
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
    let found = hop::look(&parts.headers);
    if found.of_mesh {
        exchange.reason = reply::reason(&parts.headers).or(exchange.reason);
        exchange.policy_there = reply::heard(&mut parts.headers, &hop::POLICY).unwrap_or_default().into();
        open.detail = reply::heard(&mut parts.headers, &hop::DETAIL).unwrap_or_default().into();
    }
    let exchange = &mut open.exchange;
    let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let switching = switches.then(|| parts.headers.get(http::header::UPGRADE).cloned()).flatten();
    if found.of_connection {
        // What it names wrongly stays in place; the answer is as good as without the names.
        let _ = hop::strip(&mut parts.headers);
    }
    if let Some(protocol) = switching {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(http::header::UPGRADE, protocol);
    }
    match spelling {
        Some(spelling) if exchange.loses_spelling() => spelling.tell(&mut parts.headers),
        Some(spelling) => exchange.connection.spellings.get().iter().for_each(|names| names.spell(&spelling)),
        None => {}
    }
    parts.version = http::Version::default();
    if parts.status.canonical_reason().is_none() && parts.extensions.get::<ReasonPhrase>().is_none() {
        // By itself the library writes `<none>`.
        parts.extensions.insert(ReasonPhrase::from_static(b""));
    }
    let held = match (tunnel, held) {
        (Some(tunnel), held) => {
            exchange.connection.pace.tunnel();
            let opened = record::connection_opened(&exchange.connection, exchange.endpoint.as_ref());
            let opened = opened.tunnelled(exchange.version);
            let tunnelled = exchange.tunnelled();
            let kept = held.map(|(_, kept)| kept);
            tokio::task::spawn_local(opaque::tunnel(opened, exchange.connection.clone(), tunnelled, (tunnel, kept)));
            None
        }
        (None, held) => held,
    };
    let meter = exchange.response_bytes.clone();
    open.answered(parts.status, &parts.headers);
    match held {
        Some((picked, held)) => open.holds(picked, held),
        None => {
            let detail = std::mem::take(&mut open.detail);
            open.ended(detail);
        }
    }
    Response::from_parts(parts, body.metered(meter).ending(Box::new(open)))
}
