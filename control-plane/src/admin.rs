//! The admin port: `/live`, `/ready`, `/metrics` and `/status` to read, and `POST /confirm`. For loopback. And the health
//! port, with the first two alone, for whoever supervises the process from elsewhere.
//!
//! Guarantees: a page a browser was lured to cannot read it (the Host must be an address or `localhost`, RFC 9110
//! section 7.2) and cannot confirm anything (a browser sends `Origin` with every POST, RFC 6454 section 7); only this
//! machine can confirm, wherever the port is bound; a client that sends or reads nothing is closed, and gives way at once
//! when its place is needed ([`crowd`](crate::crowd)), so that probes are always answered.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use selvedge_scrape::gzip;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    crowd::Crowd,
    serve::ACCEPT_PAUSE,
    source::Confirm,
    stop::{self, Stop},
    telemetry::Telemetry,
};

/// One scrape or query; there is no use in a longer connection.
const CONNECTION: Duration = Duration::from_secs(30);
/// Connections of a port at once.
pub(crate) const CONNECTIONS: usize = 64;
/// Room for the head of a request, in bytes.
const HEAD: usize = 16 * 1024;
/// Longest list of paths to confirm, in bytes.
const MAX_CONFIRM: usize = 64 * 1024;

/// Which pages a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of them.
    Admin,
    /// `/live` and `/ready`.
    Health,
}

/// What the pages show.
pub(crate) struct Pages {
    /// The metrics that `/metrics` shows.
    pub(crate) telemetry: Telemetry,
    /// Why the control plane is not ready; `None` when it is.
    pub(crate) unready: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Why nobody who has no certificate gets one; `None` while they do.
    pub(crate) closed: Box<dyn Fn() -> Option<Arc<str>> + Send + Sync>,
    /// The content of `/status`.
    pub(crate) status: Box<dyn Fn() -> Value + Send + Sync>,
    /// Takes what is said to be meant.
    pub(crate) confirms: mpsc::Sender<Confirm>,
}

/// Serves `listener` until `stop` turns true or its sender is gone.
pub(crate) async fn serve(listener: TcpListener, pages: Arc<Pages>, scope: Scope, mut stop: Stop) {
    let mut connections = JoinSet::new();
    let callers = Crowd::new(CONNECTIONS);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, peer) = match accepted {
                    Ok(accepted) => accepted,
                    Err(e) => {
                        tracing::warn!(error = &e as &dyn std::error::Error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let pages = Arc::clone(&pages);
                let (caller, sent_away) = callers.enter(peer.ip());
                connections.spawn(async move {
                    let _caller = caller;
                    let service = service_fn(move |request| {
                        let pages = Arc::clone(&pages);
                        async move {
                            Ok::<_, Infallible>(match scope {
                                Scope::Admin => answer(&pages, peer, request).await,
                                Scope::Health => health(&pages, &request),
                            })
                        }
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(CONNECTION)
                        .max_buf_size(HEAD)
                        .serve_connection(TokioIo::new(socket), service);
                    tokio::select! {
                        _ended = timeout(CONNECTION, connection) => {}
                        _ = sent_away => {}
                    }
                });
            }
            Some(_) = connections.join_next() => {}
            () = stop::requested(&mut stop) => return,
        }
    }
}

async fn answer(pages: &Pages, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if !is_local_host(&request) {
        return text(StatusCode::MISDIRECTED_REQUEST, "the Host header must be an address or localhost\n".to_owned());
    }
    if request.uri().path() == "/confirm" {
        return match refusal(peer, &request) {
            Some((status, why)) => text(status, format!("{why}\n")),
            None => confirm(pages, request).await,
        };
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/live" | "/ready" => health(pages, &request),
        "/metrics" => scraped(&request, pages.telemetry.render()),
        "/status" => page(StatusCode::OK, "application/json", format!("{:#}\n", (pages.status)())),
        _ => text(StatusCode::NOT_FOUND, "there are /live, /ready, /metrics, /status and POST /confirm\n".to_owned()),
    }
}

fn health<B>(pages: &Pages, request: &Request<B>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/live" => text(StatusCode::OK, "live\n".to_owned()),
        "/ready" => match ((pages.unready)(), (pages.closed)()) {
            (Some(why), _) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
            // Sidecars that are there need it: what is not ready is taken out of its Service.
            (None, Some(why)) => text(StatusCode::OK, format!("ready, but not for new joins: {why}\n")),
            (None, None) => text(StatusCode::OK, "ready\n".to_owned()),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /live and /ready\n".to_owned()),
    }
}

/// Why this peer may not confirm anything with this request.
fn refusal(peer: SocketAddr, request: &Request<Incoming>) -> Option<(StatusCode, &'static str)> {
    if request.method() != Method::POST {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "only POST"));
    }
    if !peer.ip().to_canonical().is_loopback() {
        return Some((StatusCode::FORBIDDEN, "only this machine may confirm: run `selvedge confirm` on it"));
    }
    let is_browser = request.headers().contains_key(header::ORIGIN);
    is_browser.then_some((StatusCode::FORBIDDEN, "not for browsers: run `selvedge confirm`"))
}

/// Takes the ways in which one place is spelt, as a JSON list; answers with what was confirmed, as one.
async fn confirm(pages: &Pages, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = Limited::new(request.into_body(), MAX_CONFIRM).collect().await.map(|body| body.to_bytes());
    let paths = body.ok().and_then(|body| serde_json::from_slice::<Vec<PathBuf>>(&body).ok());
    let Some(paths) = paths else {
        return text(StatusCode::BAD_REQUEST, "expected a JSON list of paths\n".to_owned());
    };
    let (done, confirmed) = oneshot::channel();
    let asked = pages.confirms.send(Confirm { paths, done }).await.is_ok();
    let confirmed = if asked { confirmed.await.ok() } else { None };
    match confirmed.as_deref() {
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the configuration is not followed any more\n".to_owned()),
        Some([]) => text(StatusCode::NOT_FOUND, "nothing there waits to be confirmed\n".to_owned()),
        Some(confirmed) => {
            let origins: Vec<&str> = confirmed.iter().map(|origin| &**origin).collect();
            page(StatusCode::OK, "application/json", format!("{}\n", serde_json::json!(origins)))
        }
    }
}

/// A name would let a rebound DNS entry through; an address cannot be rebound.
fn is_local_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else { return false };
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host();
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// Metrics, in gzip for who asks for it.
fn scraped<B>(request: &Request<B>, text: String) -> Response<Full<Bytes>> {
    let short = if gzip::is_accepted(request.headers()) { gzip::encode(text.as_bytes()) } else { None };
    let is_short = short.is_some();
    let mut page = page(StatusCode::OK, "text/plain; version=0.0.4", short.unwrap_or_else(|| text.into_bytes()));
    page.headers_mut().insert(header::VARY, header::HeaderValue::from_static("accept-encoding"));
    if is_short {
        page.headers_mut().insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
    }
    page
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", body)
}

fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
