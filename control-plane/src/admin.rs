//! The admin port: `/live`, `/ready`, `/metrics`, `/status`. Read-only, for loopback.
//!
//! Guarantees: a page a browser was lured to cannot read it (the Host must be an address or `localhost`, RFC 9110
//! section 7.2); a client that sends or reads nothing is closed.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    serve::ACCEPT_PAUSE,
    stop::{self, Stop},
    telemetry::Telemetry,
};

/// One scrape or query; there is no use in a longer connection.
const CONNECTION: Duration = Duration::from_secs(30);
const CONNECTIONS: usize = 64;

/// What the pages show.
pub(crate) struct Pages {
    pub(crate) telemetry: Telemetry,
    /// Why the control plane is not ready; `None` when it is.
    pub(crate) unready: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// The content of `/status`.
    pub(crate) status: Box<dyn Fn() -> Value + Send + Sync>,
}

/// Serves `listener` until `stop` turns true or its sender is gone.
pub(crate) async fn serve(listener: TcpListener, pages: Arc<Pages>, mut stop: Stop) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                let socket = match accepted {
                    Ok((socket, _)) => socket,
                    Err(e) => {
                        tracing::warn!(error = &e as &dyn std::error::Error, "the admin port could not accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let pages = Arc::clone(&pages);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let response = answer(&pages, &request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(CONNECTION)
                        .serve_connection(TokioIo::new(socket), service);
                    let _ended = timeout(CONNECTION, connection).await;
                });
            }
            Some(_) = connections.join_next() => {}
            () = stop::requested(&mut stop) => return,
        }
    }
}

fn answer<B>(pages: &Pages, request: &Request<B>) -> Response<Full<Bytes>> {
    if !is_local_host(request) {
        return text(StatusCode::MISDIRECTED_REQUEST, "the Host header must be an address or localhost\n".to_owned());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/live" => text(StatusCode::OK, "live\n".to_owned()),
        "/ready" => match (pages.unready)() {
            None => text(StatusCode::OK, "ready\n".to_owned()),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        },
        "/metrics" => page(StatusCode::OK, "text/plain; version=0.0.4", pages.telemetry.render()),
        "/status" => page(StatusCode::OK, "application/json", format!("{:#}\n", (pages.status)())),
        _ => text(StatusCode::NOT_FOUND, "there are /live, /ready, /metrics and /status\n".to_owned()),
    }
}

/// A name would let a rebound DNS entry through; an address cannot be rebound.
fn is_local_host<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host();
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", body)
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
