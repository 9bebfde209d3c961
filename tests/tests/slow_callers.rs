//! Callers that are slow where they owe something are given up, so that they hold no place at the service; whoever may
//! be silent is left in peace.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{body::Frame, client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_tests::{
    around::{talk, talk_to_the_end},
    client::{self, Answer, expect_bytes, request},
    mesh::{Mesh, Sidecar, Workload},
    pair::{DESTINATION, HOST},
    upstream::{Scenario, Upstream},
    wait::{self, within},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;

/// Longer than any limit of these tests.
const LONG: Duration = Duration::from_secs(5);

/// `web` calls `api`; both sidecars give callers three seconds for everything, unless a test says otherwise: a busy machine
/// stands still for less.
struct Hasty {
    web: Sidecar,
    _api: Sidecar,
    upstream: Upstream,
    _mesh: Mesh,
}

impl Hasty {
    async fn start() -> Self {
        Self::start_with("3s").await
    }

    /// The same with another limit.
    async fn start_with(limit: &str) -> Self {
        let upstream = Upstream::start("api").await;
        let mesh = Mesh::start().await;
        mesh.service("shop/api", 80, 8080, "");
        let hasty =
            &format!("callerTimeouts: {{head: {limit}, body: {limit}, reader: {limit}, meshedReader: {limit}}}\n");
        let api = mesh.start_sidecar(Workload::new("shop/api").serves(8080, upstream.address()).with(hasty));
        let web = mesh.start_sidecar(Workload::new("shop/web").calls(DESTINATION).with(hasty));
        api.ready().await;
        web.ready().await;
        let entry = web.outbound(DESTINATION);
        wait::until_true("a request gets through", || client::answers(entry)).await;
        Self { web, _api: api, upstream, _mesh: mesh }
    }

    async fn connect(&self) -> TcpStream {
        client::connect(self.web.outbound(DESTINATION)).await.unwrap()
    }

    async fn http2<B>(&self) -> http2::SendRequest<B>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + Unpin
            + 'static,
    {
        let io = TokioIo::new(self.connect().await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Waits until the caller's sidecar has counted `count` requests that ended for their caller's slowness.
    async fn until_given_up(&self, count: f64) {
        self.web.metrics().until("selvedge_requests_total", &["reason=\"caller_timeout\""], count).await;
    }
}

#[tokio::test]
async fn a_head_or_body_that_drips_is_answered_with_408() {
    let hasty = Hasty::start().await;
    let served = hasty.upstream.served();
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Slow: a");
    let answer = talk_to_the_end(&mut hasty.connect().await, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("caller_timeout"), "{answer}");
    assert_eq!(hasty.upstream.served(), served);

    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\nbegin");
    let (mut read, mut write) = hasty.connect().await.into_split();
    let dripping = tokio::spawn(async move {
        write.write_all(head.as_bytes()).await.unwrap();
        while write.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = vec![0; 12];
    within("the refusal", read.read_exact(&mut answer)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408");
    within("the connection is closed", dripping).await.unwrap();
    hasty.until_given_up(1.0).await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let hasty = Hasty::start().await;
    let asked = format!("GET /bytes/30000000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut unread = hasty.connect().await;
    unread.write_all(asked.as_bytes()).await.unwrap();
    hasty.until_given_up(1.0).await;
    let mut sender = hasty.http2().await;
    let asked = Request::get(format!("http://{HOST}/bytes/30000000")).body(Empty::<Bytes>::new()).unwrap();
    let unread = within("the head", sender.send_request(asked)).await.unwrap();
    hasty.until_given_up(2.0).await;
    assert!(unread.into_body().collect().await.is_err(), "the stream was reset");
    let asked = Request::get(format!("http://{HOST}/")).body(Empty::new()).unwrap();
    let other = within("another stream", sender.send_request(asked)).await.unwrap();
    assert_eq!(Answer::read(other).await.unwrap().status, 200, "its connection lives");
}

#[tokio::test]
async fn services_and_streams_may_be_silent() {
    let hasty = Hasty::start().await;
    // A service that thinks.
    hasty.upstream.play(Scenario::Slow(LONG));
    let entry = hasty.web.outbound(DESTINATION);
    assert_eq!(client::call(entry, request(Method::GET, HOST, "/")).await.unwrap().status, 200);
    hasty.upstream.play(Scenario::Echo);
    // A gRPC stream on which neither side has anything to say.
    let mut sender = hasty.http2().await;
    let (send, receive) = mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
    let asked = Request::post(format!("http://{HOST}/shop.Api/Chat")).header("content-type", "application/grpc");
    let asked = asked.header("te", "trailers").body(StreamBody::new(ReceiverStream::new(receive))).unwrap();
    let mut stream = within("the head", sender.send_request(asked)).await.unwrap();
    for message in [&b"\0\0\0\0\x03one"[..], b"\0\0\0\0\x03two"] {
        sleep(LONG).await;
        send.send(Ok(Frame::data(Bytes::copy_from_slice(message)))).await.unwrap();
        let echoed = within("the message", stream.frame()).await.unwrap().unwrap();
        assert_eq!(echoed.into_data().unwrap(), message);
    }
    // A WebSocket of either version, and a kept connection between two requests.
    let mut asked = Request::connect(format!("http://{HOST}/chat")).body(Empty::<Bytes>::new()).unwrap();
    asked.extensions_mut().insert(Protocol::from_static("websocket"));
    let accepted = within("the answer", hasty.http2().await.send_request(asked)).await.unwrap();
    assert_eq!(accepted.status(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(accepted).await.unwrap());
    let mut tunnel = hasty.connect().await;
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(talk(&mut tunnel, head.as_bytes(), "\r\n\r\n", 1).await.starts_with("HTTP/1.1 101"));
    let mut kept = hasty.connect().await;
    let asked = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    talk(&mut kept, asked.as_bytes(), "\"version\"", 1).await;
    sleep(LONG).await;
    stream.write_all(b"late").await.unwrap();
    let mut late = [0; 4];
    within("the echo", stream.read_exact(&mut late)).await.unwrap();
    assert_eq!(&late, b"late");
    tunnel.write_all(b"late").await.unwrap();
    expect_bytes(&mut tunnel, b"late").await;
    talk(&mut kept, asked.as_bytes(), "\"version\"", 1).await;
}

#[tokio::test]
async fn events_in_chunks_may_trickle() {
    // A busy machine may be late with a byte, but not by nearly as much as the limit.
    let hasty = Hasty::start_with("4s").await;
    let mut stream = hasty.connect().await;
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..12 {
        stream.write_all(b"1\r\nx\r\n").await.unwrap();
        sleep(Duration::from_millis(400)).await;
    }
    let answer = talk(&mut stream, b"0\r\n\r\n", "\"version\"", 1).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"bodyLength\":12"), "{answer}");
}
