//! Serving HTTP on a connection: hyper with the bounds it does not set by itself.
//!
//! A caller (downstream) is bounded in what it may hold: bytes of a header section, streams at once, resets, time
//! without a request, and slowness ([`crate::http::pace`]). One that has proven its identity multiplexes what its whole
//! application asks, so it may hold more; an unknown one may not keep others out.

use std::{convert::Infallible, pin::pin, rc::Rc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use selvedge_policies::reason::Reason;
use tokio::{
    task::yield_now,
    time::{sleep, sleep_until},
};

use crate::{
    arrival::{Identified, ServerStream},
    config::InForce,
    connection::Connection,
    error::Error,
    frames::Broken,
    heading::Heading,
    http::{
        Body, Content, PIECE, UNSENT, Windows, case, coalesce,
        guard::{FrameGuard, Seen},
        pace::Paced,
        told::{Size, Told},
    },
    record,
    telemetry::Protocol,
};

mod frames;
mod refused;
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
/// What both tables of a connection's header compression may take (RFC 7541 section 4.2).
const TABLES: Size = Size { held: 2 * 4096, sent: 2 * 4096 };
/// Streams that may be reset before anybody has looked at them: those of a sidecar that stalls while its clients go away are
/// no attack (`docs/decisions/`).
const TRUSTED_RESETS: usize = 1_000;
/// Streams of a connection that the library resets for what its peer did.
const LOCAL_ERRORS: usize = 128;
/// How long a caller may take to begin, over HTTP/2 or in frames.
const BEGIN: Duration = Duration::from_secs(10);

/// Serves HTTP until the connection is over, or drained. `request` answers what is asked on it, and is told how the names
/// of an HTTP/1 head were written.
pub(crate) async fn http<F, A>(identified: Identified, request: F)
where
    F: Fn(Rc<Connection>, Told, Request<Content>) -> A,
    A: Future<Output = Result<Response<Body>, Infallible>> + 'static,
{
    let Identified { connection, io, .. } = identified;
    let opened = record::connection_opened(&connection, None);
    // What many requests share is boxed: connections of HTTP/1, of which there are more, would keep room for it.
    let ended = match connection.protocol {
        Protocol::Http2 => {
            let (io, seen) = FrameGuard::server(io, connection.ledger.account(connection.budget()));
            let refusing = connection.clone();
            seen.tell_refused(move |reason| record::request_refused(&refusing, &refused::request(reason)));
            let io = coalesce::coalesced(io, Some(connection.pace.clone()));
            let broken = Box::pin(http2(connection, io, &seen, request)).await;
            seen.reason().or(broken).map(Error::from)
        }
        Protocol::Frames => Box::pin(frames(connection, io, request)).await.map(Error::from),
        _ => http1(connection, io, request).await,
    };
    match ended {
        Some(error) => opened.cut(0, 0, &error),
        None => opened.closed(0, 0, None),
    }
}

/// Why the mesh ended the connection, if it did; how its requests ended is in their records.
async fn http1<F, A>(connection: Rc<Connection>, io: ServerStream, request: F) -> Option<Error>
where
    F: Fn(Rc<Connection>, Told, Request<Content>) -> A,
    A: Future<Output = Result<Response<Body>, Infallible>> + 'static,
{
    let own = matches!(connection.heading, Heading::Outbound { .. });
    let io = Paced::new(io, &connection.pace, &connection.worker.caller_timeouts, connection.meshed());
    let (io, spellings) = case::tap(io, case::Kind::Requests);
    let spellings = connection.spellings.get_or_init(|| spellings);
    // Told to finish before its first request it would be closed without an answer, so one that comes while the
    // sidecar drains is limited to one request instead.
    let late = connection.worker.drain().has_begun(&connection.heading);
    let served = conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if own { OWN_IDLE } else { IDLE })
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(PIECE)
        .keep_alive(!late)
        .serve_connection(
            TokioIo::new(io),
            // hyper makes room for the future with the connection; a pointer leaves idle connections small.
            service_fn(|asked| {
                let spelling = spellings.of_request(&asked);
                let told = Told { version: None, spelling, size: Size::of(&asked) };
                let (connection, tunnel) = (connection.clone(), *asked.method() == Method::CONNECT);
                let answering = request(connection.clone(), told, asked.map(Content::Http));
                Box::pin(async move { answering.await.map(|answer| last(&connection, tunnel, answer)) })
            }),
        )
        .with_upgrades();
    let mut served = pin!(served);
    let ended = tokio::select! {
        biased; // what has come is read before the drain is looked at
        ended = served.as_mut() => ended,
        () = finish(connection.clone()), if !late => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    let slow = connection.pace.gave_up().then_some(Error::from(Reason::CallerTimeout));
    slow.or_else(|| ended.err().as_ref().and_then(refused::head))
}

/// Has the answer be the last on its connection where another process takes the place of this one. A tunnel has its own
/// end.
fn last(connection: &Connection, tunnel: bool, mut answer: Response<Body>) -> Response<Body> {
    let upgrades = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    if connection.worker.gives_way() && !tunnel && !upgrades {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Why the mesh ended the connection, if it did, as [`http1`] does.
async fn frames<F, A>(connection: Rc<Connection>, io: ServerStream, request: F) -> Option<Reason>
where
    F: Fn(Rc<Connection>, Told, Request<Content>) -> A,
    A: Future<Output = Result<Response<Body>, Infallible>> + 'static,
{
    let patience = connection.worker.caller_timeouts.reader_of(true);
    let request = |told, asked| request(connection.clone(), told, asked);
    let broken = frames::serve(io, &connection, patience, finish(connection.clone()), request).await;
    broken.map(|broken| match broken {
        Broken::FLOOD => Reason::FrameFlood,
        Broken::SILENCE => Reason::CallerTimeout,
        _ => Reason::MalformedFraming,
    })
}

/// Waits until the connection should finish. A connection is polled several times for each request; this looks again only
/// when there is news.
fn finish(connection: Rc<Connection>) -> impl Future<Output = ()> {
    let mut over = FuturesUnordered::from_iter([over(connection)]);
    async move { over.next().await.unwrap_or_default() }
}

/// Ready when the sidecar drains, the caller's certificate has run out, or an authority that may have signed it is not
/// trusted any more. Whoever is still of the mesh has a newer one and connects with that.
async fn over(connection: Rc<Connection>) {
    let mut drain = connection.worker.drain();
    let expired = async {
        match connection.until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = drain.begun(&connection.heading, &connection.pace, connection.protocol != Protocol::Http1) => {}
        () = expired => {}
        () = distrusted(&connection) => {}
    }
}

/// Waits until a caller had the time to begin to speak, and on when it has.
async fn silent(has_begun: impl Fn() -> bool) {
    sleep(BEGIN).await;
    if has_begun() {
        std::future::pending().await
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

/// Why the mesh ended the connection, if it did, as [`http1`] does.
async fn http2<T, F, A>(connection: Rc<Connection>, io: T, seen: &Seen, request: F) -> Option<Reason>
where
    F: Fn(Rc<Connection>, Told, Request<Content>) -> A,
    A: Future<Output = Result<Response<Body>, Infallible>> + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let trusted = connection.meshed();
    let patience = connection.worker.caller_timeouts.reader_of(trusted);
    let _tables = connection.ledger.hold(TABLES);
    let mut builder = conn::http2::Builder::new(Streams::new(connection.clone(), patience));
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
        .max_send_buf_size(UNSENT)
        .max_local_error_reset_streams(LOCAL_ERRORS)
        .max_concurrent_streams(if trusted { TRUSTED_STREAMS } else { STREAMS })
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .enable_connect_protocol();
    if trusted {
        builder
            .max_pending_accept_reset_streams(TRUSTED_RESETS)
            .initial_stream_window_size(Windows::REQUESTS.stream)
            .initial_connection_window_size(Windows::REQUESTS.shared);
    }
    // As above, and hyper moves the future of a stream several times on its way to a task of its own.
    let service = service_fn(|asked: Request<Incoming>| {
        seen.given(asked.body().stream_id());
        let size = Size::of(&asked);
        let told = Told { size: size.sent_as(seen.sent(size.held)), ..Told::default() };
        let (wary, answering) = (seen.is_wary(), request(connection.clone(), told, asked.map(Content::Http)));
        Box::pin(async move {
            if wary {
                yield_now().await; // and with that the library looks whether it is still wanted
            }
            answering.await
        })
    });
    let silent = silent(|| seen.has_begun());
    let mut served = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = finish(connection.clone()) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
        () = silent => return Some(Reason::CallerTimeout),
    };
    ended.err().as_ref().and_then(refused::connection)
}
