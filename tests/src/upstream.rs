//! Services that answer as their scenario says, and remember what they were asked.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};

use crate::{pattern, ports::Reserved};

pub mod raw;

/// Bytes of a message of `GET /events/N`.
pub const EVENT: usize = 60;

/// What an HTTP service does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scenario {
    /// 200 with a JSON description of the request; gRPC requests get their own messages back and trailers. The service
    /// NAME answers `/fail-at/NAME` with 503.
    Echo,
    /// This many requests get this status, then [`Scenario::Echo`].
    Fail(u32, u16),
    /// This many requests get 503 and are to come back after so many seconds, then [`Scenario::Echo`].
    Later(u32, u32),
    /// Calls of gRPC get this status: without a head before it, or with one.
    Grpc(u16, bool),
    /// [`Scenario::Echo`] after a while.
    Slow(Duration),
    /// The connection is closed without an answer.
    Close,
}

/// The body of an answer.
type Body = UnsyncBoxBody<Bytes, hyper::Error>;

struct Shared {
    name: String,
    scenario: watch::Sender<Scenario>,
    /// It speaks HTTP/2 only, and does not wait for its caller to send its SETTINGS.
    greets: bool,
    connections: AtomicU32,
    served: AtomicU32,
    failed: AtomicU32,
    targets: watch::Sender<Vec<String>>,
    bodies: watch::Sender<Vec<Bytes>>,
}

/// An HTTP service on a port of its own. It speaks HTTP/1 and, with prior knowledge, HTTP/2 on the same port.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// Starts a service that echoes; its answers carry `served-by: name`.
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, false).await
    }

    /// Starts a service that echoes on a port that it may give up and have again.
    pub fn start_on(port: &Reserved, name: &str) -> Self {
        Self::listening(port.listen(), name, false)
    }

    /// Starts one that speaks HTTP/2 only and greets its callers with SETTINGS, as most such services do.
    pub async fn start_http2(name: &str) -> Self {
        Self::start_with(name, true).await
    }

    async fn start_with(name: &str, greets: bool) -> Self {
        Self::listening(TcpListener::bind("127.0.0.1:0").await.expect("an ephemeral port"), name, greets)
    }

    fn listening(listener: TcpListener, name: &str, greets: bool) -> Self {
        let address = listener.local_addr().expect("the bound address");
        let scenario = watch::Sender::new(Scenario::Echo);
        let [connections, served, failed] = [(); 3].map(|()| AtomicU32::new(0));
        let (targets, bodies) = (watch::Sender::default(), watch::Sender::default());
        let shared = Shared { name: name.to_owned(), scenario, greets, connections, served, failed, targets, bodies };
        let shared = Arc::new(shared);
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, accepting }
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> u32 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Requests it has been given.
    pub fn served(&self) -> u32 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// The path and query of each request it has been given, in order.
    pub fn targets(&self) -> Vec<String> {
        self.shared.targets.borrow().clone()
    }

    /// The body of each request that had one and was read to its end, since the last call; gRPC is left out.
    pub fn take_bodies(&self) -> Vec<Bytes> {
        self.shared.bodies.send_replace(Vec::new())
    }

    /// Changes what it does from the next request on.
    pub fn play(&self, scenario: Scenario) {
        self.shared.failed.store(0, Ordering::Relaxed);
        self.shared.scenario.send_replace(scenario);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(connection(stream, shared.clone()));
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut start = [0; 14];
    let is_http2 =
        shared.greets || matches!(stream.peek(&mut start).await, Ok(count) if start[..count].starts_with(b"PRI "));
    let service = service_fn(move |request| answer(request, shared.clone()));
    // How a connection ends is the business of the peer under test.
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let _ = builder
            .timer(TokioTimer::new())
            .enable_connect_protocol()
            // Tests are about what the mesh takes of callers that give up; by itself the library takes 20 at once.
            .max_pending_accept_reset_streams(1_000)
            .max_local_error_reset_streams(1_000)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    } else {
        let mut builder = http1::Builder::new();
        let connection = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        let _ = connection.with_upgrades().await;
    }
}

/// An error makes hyper close the connection without an answer.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, std::io::Error> {
    shared.served.fetch_add(1, Ordering::Relaxed);
    shared.targets.send_modify(|targets| targets.push(request.uri().to_string()));
    let scenario = *shared.scenario.borrow();
    match scenario {
        Scenario::Close => return Err(std::io::Error::other("the scenario closes")),
        Scenario::Slow(delay) => sleep(delay).await,
        Scenario::Fail(times, status) if shared.failed.fetch_add(1, Ordering::Relaxed) < times => {
            return Ok(plain(status, "the scenario fails", &shared.name));
        }
        Scenario::Later(times, seconds) if shared.failed.fetch_add(1, Ordering::Relaxed) < times => {
            let mut answer = plain(503, "the scenario is busy", &shared.name);
            answer.headers_mut().insert("retry-after", seconds.into());
            return Ok(answer);
        }
        Scenario::Grpc(status, with_head) => return Ok(grpc_status(status, with_head, &shared.name)),
        Scenario::Fail(..) | Scenario::Later(..) | Scenario::Echo => {}
    }
    if request.uri().path().strip_prefix("/fail-at/").is_some_and(|name| name == shared.name) {
        return Ok(plain(503, "it is to fail here", &shared.name));
    }
    if request.headers().contains_key("upgrade") || request.method() == Method::CONNECT {
        return Ok(tunnel(request, &shared.name));
    }
    if let Some(count) = request.uri().path().strip_prefix("/events/").and_then(|count| count.parse().ok()) {
        return Ok(events(count, &shared.name));
    }
    let kind = request.headers().get("content-type").map(HeaderValue::as_bytes).unwrap_or_default();
    if kind.starts_with(b"application/grpc") {
        return Ok(grpc(request, &shared.name));
    }
    Ok(describe(request, &shared).await)
}

fn plain(status: u16, text: &'static str, name: &str) -> Response<Body> {
    let status = StatusCode::from_u16(status).expect("a valid status");
    let body = Full::from(text).map_err(never).boxed_unsync();
    Response::builder().status(status).header("served-by", name).body(body).expect("a valid response")
}

/// 200 and what was asked. `/bytes/N` is answered with N bytes of the pattern N instead, and `/pieces/N` with the same in
/// pieces, and a trailer.
async fn describe(request: Request<Incoming>, shared: &Shared) -> Response<Body> {
    let (head, body) = request.into_parts();
    let whole = body.collect().await;
    let trailers = whole.as_ref().ok().and_then(|whole| whole.trailers().cloned()).unwrap_or_default();
    let is_whole = whole.is_ok();
    let body = whole.map(|whole| whole.to_bytes()).unwrap_or_default();
    let length = body.len();
    if is_whole && !body.is_empty() {
        shared.bodies.send_modify(|bodies| bodies.push(body));
    }
    let number = |prefix: &str| head.uri.path().strip_prefix(prefix).and_then(|count| count.parse::<usize>().ok());
    if let Some(length) = number("/pieces/") {
        return pieces(length, &shared.name);
    }
    let answer = match number("/bytes/") {
        Some(length) => pattern::bytes(length as u64, length),
        None => Bytes::from(
            json!({
                "servedBy": shared.name,
                "method": head.method.as_str(),
                "target": head.uri.path_and_query().map_or("", |target| target.as_str()),
                "authority": head.uri.authority().map(|authority| authority.as_str()),
                "version": format!("{:?}", head.version),
                "headers": pairs(&head.headers),
                "trailers": pairs(&trailers),
                "bodyLength": length,
            })
            .to_string(),
        ),
    };
    let body = Full::new(answer).map_err(never).boxed_unsync();
    Response::builder().header("served-by", &shared.name).body(body).expect("a valid response")
}

/// `GET /pieces/N`: N bytes, each piece a chunk or frame of its own, and the trailer `x-sum`.
fn pieces(length: usize, name: &str) -> Response<Body> {
    let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from(length))]);
    let data = pattern::pieces(pattern::bytes(length as u64, length)).map(Frame::data);
    let body = StreamBody::new(tokio_stream::iter(data.chain([Frame::trailers(trailers)]).map(Ok))).boxed_unsync();
    Response::builder().header("served-by", name).header("trailer", "x-sum").body(body).expect("a valid response")
}

/// `GET /events/N`: N messages of [`EVENT`] bytes, each a chunk or frame of its own.
fn events(count: usize, name: &str) -> Response<Body> {
    let event = || Ok(Frame::data(Bytes::from_static(&[b'e'; EVENT])));
    let body = StreamBody::new(tokio_stream::iter(std::iter::repeat_with(event).take(count))).boxed_unsync();
    Response::builder().header("served-by", name).body(body).expect("a valid response")
}

fn pairs(headers: &HeaderMap) -> Vec<[String; 2]> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| [name.as_str().to_owned(), text(value)]).collect()
}

/// Sends every message back as it comes, then `grpc-status: 0` as trailer.
fn grpc(request: Request<Incoming>, name: &str) -> Response<Body> {
    let (send, receive) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(Ok(data)) = frame.map(Frame::into_data) else { break };
            if send.send(Ok(Frame::data(data))).await.is_err() {
                return;
            }
        }
        let trailers =
            HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        let _ = send.send(Ok(Frame::trailers(trailers))).await;
    });
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receive)).boxed_unsync();
    let builder = Response::builder().header("served-by", name).header("content-type", "application/grpc");
    builder.body(body).expect("a valid response")
}

/// No message, and a status: as trailers, or in the head where there is no other (gRPC over HTTP2, Trailers-Only).
fn grpc_status(status: u16, with_head: bool, name: &str) -> Response<Body> {
    let said = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from(status))]);
    let builder = Response::builder().header("served-by", name).header("content-type", "application/grpc");
    if with_head {
        let body = StreamBody::new(tokio_stream::iter([Ok(Frame::trailers(said))])).boxed_unsync();
        return builder.body(body).expect("a valid response");
    }
    let mut response = builder.body(Full::default().map_err(never).boxed_unsync()).expect("a valid response");
    response.headers_mut().extend(said);
    response
}

/// Becomes whatever was asked for, by upgrade or CONNECT, and echoes its bytes.
fn tunnel(request: Request<Incoming>, name: &str) -> Response<Body> {
    let protocol = request.headers().get("upgrade").cloned();
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let mut stream = TokioIo::new(upgraded);
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            if stream.write_all(&chunk[..count]).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Full::default().map_err(never).boxed_unsync());
    response.headers_mut().insert("served-by", name.parse().expect("a plain name"));
    if let Some(protocol) = protocol {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        response.headers_mut().insert("upgrade", protocol);
    }
    response
}

fn never(error: Infallible) -> hyper::Error {
    match error {}
}
