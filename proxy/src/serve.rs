//! Serving HTTP on a connection: hyper with the bounds it does not set by itself.
//!
//! A caller (downstream) is bounded in what it may hold: bytes of a header section, streams at once, resets, time
//! without a request, and slowness ([`crate::http::pace`]). One that has proven its identity multiplexes what its whole
//! application asks, so it may hold more; an unknown one may not keep others out.

use std::{convert::Infallible, error::Error as _, pin::pin, rc::Rc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use selvedge_policies::reason::Reason;
use tokio::time::sleep_until;

use crate::{
    arrival::{Identified, ServerStream},
    config::InForce,
    connection::Connection,
    drain::Drain,
    heading::Heading,
    http::{
        Body, SHARED_WINDOW,
        case::{self, Spelling},
        coalesce,
        guard::{Budget, FrameGuard},
        pace::Paced,
    },
    record,
    telemetry::Protocol,
};

mod streams;

use streams::Streams;

/// Bytes of a request's header section.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// How long a caller may keep a connection on which it asks nothing.
const IDLE: Duration = Duration::from_secs(60);
/// As [`IDLE`], for our own application, which may keep connections for long.
const OWN_IDLE: Duration = Duration::from_secs(600);
/// Streams of a caller that proved its identity, or of our own application; it multiplexes all its requests.
const TRUSTED_STREAMS: u32 = 10_000;
/// Streams of any other caller.
const STREAMS: u32 = 128;
/// Resets that hyper takes for an attack; a stalled peer whose clients go away is none (see `docs/decisions/`).
const TRUSTED_RESETS: usize = 100_000;

/// Serves HTTP until the connection is over, or drained. `request` answers what is asked on it, and is told how the names
/// of an HTTP/1 head were written.
pub(crate) async fn http<F, A>(identified: Identified, request: F)
where
    F: Fn(Rc<Connection>, Option<Spelling>, Request<Incoming>) -> A,
    A: Future<Output = Result<Response<Body>, Infallible>> + 'static,
{
    let Identified { connection, io, .. } = identified;
    let opened = record::connection_opened(&connection, None);
    let reason = match connection.protocol {
        Protocol::Http2 => {
            let budget = if connection.meshed() { &Budget::TRUSTED } else { &Budget::STRICT };
            let (io, flood) = FrameGuard::server(io, budget);
            let broken = http2(connection, coalesce::coalesced(io), request).await;
            flood.reason().or(broken)
        }
        _ => http1(connection, io, request).await,
    };
    opened.closed(0, 0, reason);
}

/// Why the mesh ended the connection, if it did; how its requests ended is in their records.
async fn http1<F, A>(connection: Rc<Connection>, io: ServerStream, request: F) -> Option<Reason>
where
    F: Fn(Rc<Connection>, Option<Spelling>, Request<Incoming>) -> A,
    A: Future<Output = Result<Response<Body>, Infallible>> + 'static,
{
    let own = matches!(connection.heading, Heading::Outbound { .. });
    let mut drain = connection.worker.drain();
    let io = Paced::new(io, &connection.pace, &connection.worker.caller_timeouts, connection.meshed());
    let (io, spellings) = case::tap(io, case::Kind::Requests);
    // Told to finish before its first request it would be closed without an answer, so one that comes while the
    // sidecar drains is limited to one request instead.
    let late = drain.has_begun(&connection.heading);
    let served = conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if own { OWN_IDLE } else { IDLE })
        .max_header_size(MAX_HEADER_BYTES)
        .keep_alive(!late)
        .serve_connection(
            TokioIo::new(io),
            // hyper makes room for the future with the connection; a pointer leaves idle connections small.
            service_fn(|asked| {
                let spelling = spellings.of_request(&asked);
                Box::pin(request(connection.clone(), spelling, asked))
            }),
        )
        .with_upgrades();
    let mut served = pin!(served);
    let ended = tokio::select! {
        biased; // what has come is read before the drain is looked at
        ended = served.as_mut() => ended,
        () = over(&connection, &mut drain), if !late => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    let slow = connection.pace.gave_up().then_some(Reason::CallerTimeout);
    slow.or_else(|| ended.err().as_ref().and_then(refused))
}

/// Waits until the connection should finish: the sidecar drains, the caller's certificate has run out, or an authority
/// that may have signed it is not trusted any more. Whoever is still of the mesh has a newer one and connects with that.
async fn over(connection: &Connection, drain: &mut Drain) {
    let expired = async {
        match connection.until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = drain.begun(&connection.heading, &connection.pace) => {}
        () = expired => {}
        () = distrusted(connection) => {}
    }
}

/// Waits until one of the authorities that were trusted when the caller proved its identity no longer is.
async fn distrusted(connection: &Connection) {
    let Some(proven) = &connection.proven else { return std::future::pending().await };
    let trusts_all = |in_force: &InForce| {
        let trusted = in_force.trust.mesh.as_ref().map(|tls| &tls.authorities[..]).unwrap_or_default();
        proven.authorities.iter().all(|authority| trusted.contains(authority))
    };
    let mut configs = connection.worker.configs();
    if configs.wait_for(|in_force| !trusts_all(in_force)).await.is_err() {
        std::future::pending().await // the process is ending
    }
}

/// A head that hyper itself refused never became an exchange. What is wrong with its framing hyper says in words only;
/// should they change, the reason is a less exact one.
fn refused(error: &hyper::Error) -> Option<Reason> {
    match error.to_string().as_str() {
        _ if error.is_parse_too_large() => Some(Reason::HeadersTooLarge),
        "invalid content-length parsed" | "unexpected transfer-encoding parsed" => Some(Reason::MalformedFraming),
        "invalid transfer-encoding parsed" => Some(Reason::UnsupportedTransferCoding),
        _ if error.is_parse() => Some(Reason::MalformedHeader),
        _ => None,
    }
}

/// What made the HTTP/2 library end a connection: its code for a head that never ends is COMPRESSION_ERROR, for what is
/// more than anybody needs ENHANCE_YOUR_CALM, and any other stands for frames that break the protocol.
fn broken(error: &hyper::Error) -> Option<Reason> {
    let http2 = error.source()?.downcast_ref::<h2::Error>().filter(|error| error.is_go_away() && error.is_library())?;
    match http2.reason()? {
        h2::Reason::NO_ERROR => None,
        h2::Reason::COMPRESSION_ERROR => Some(Reason::HeadersTooLarge),
        h2::Reason::ENHANCE_YOUR_CALM => Some(Reason::FrameFlood),
        _ => Some(Reason::MalformedFraming),
    }
}

/// Why the mesh ended the connection, if it did, as [`http1`] does.
async fn http2<T, F, A>(connection: Rc<Connection>, io: T, request: F) -> Option<Reason>
where
    F: Fn(Rc<Connection>, Option<Spelling>, Request<Incoming>) -> A,
    A: Future<Output = Result<Response<Body>, Infallible>> + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let trusted = connection.meshed();
    let mut drain = connection.worker.drain();
    let patience = connection.worker.caller_timeouts.reader_of(trusted);
    let mut builder = conn::http2::Builder::new(Streams::new(connection.clone(), patience));
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
        .max_concurrent_streams(if trusted { TRUSTED_STREAMS } else { STREAMS })
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .enable_connect_protocol();
    if trusted {
        builder
            .max_pending_accept_reset_streams(TRUSTED_RESETS)
            .max_local_error_reset_streams(TRUSTED_RESETS)
            .initial_connection_window_size(SHARED_WINDOW);
    } else {
        builder.max_local_error_reset_streams(128);
    }
    // As above, and hyper moves the future of a stream several times on its way to a task of its own.
    let service = service_fn(|asked| Box::pin(request(connection.clone(), None, asked)));
    let mut served = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = over(&connection, &mut drain) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    ended.err().as_ref().and_then(broken)
}
