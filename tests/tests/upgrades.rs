//! Beyond request and response: upgrades, CONNECT, streams in both directions, trailers, 1xx.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_tests::{
    client::{self, expect_bytes},
    pair::{HOST, Pair},
    upstream::raw::{RawUpstream, Script},
    wait::{DEADLINE, within},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;

/// Sends a head and reads the head of the answer.
async fn raw_head(pair: &Pair, head: &str) -> (TcpStream, String) {
    let mut stream = client::connect(pair.entry()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = within("the head of the answer", read_head(&mut stream)).await;
    (stream, answer)
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("the head is complete"));
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_websocket_stays_open_and_carries_bytes_both_ways() {
    let pair = Pair::start().await;
    let head = format!(
        "GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
         13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let (mut stream, answer) = raw_head(&pair, &head).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.to_lowercase().contains("upgrade: websocket"), "{answer}");
    for frame in [&b"\x81\x05hello"[..], b"\x82\x03\x00\x01\x02"] {
        stream.write_all(frame).await.unwrap();
        expect_bytes(&mut stream, frame).await;
    }
    assert_eq!(pair.get("/").await.status, 200);
}

/// An application that switches to a protocol of its own when it has read the content, which it says again there.
async fn switches() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = read_head(&mut stream).await.to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let mut content = vec![0; length.unwrap_or(0)];
                stream.read_exact(&mut content).await.unwrap();
                let answer: &[u8] = match head.contains("upgrade: tcp") && length.is_some() {
                    true => b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
                    false => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                };
                stream.write_all(&[answer, &content].concat()).await.unwrap();
                let (mut reading, mut writing) = stream.split();
                let _ = tokio::io::copy(&mut reading, &mut writing).await;
            });
        }
    });
    address
}

/// As `docker exec` asks for a terminal.
#[tokio::test]
async fn an_upgrade_whose_request_has_content_is_one() {
    let pair = Pair::in_front_of(switches().await, "http").await;
    for length in [17, 20_000, 200_000] {
        let content = "x".repeat(length);
        let head = format!(
            "POST /exec/1/start HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: text/plain\r\nConnection: Upgrade\r\nUpgrade: \
             tcp\r\nContent-Length: {length}\r\n\r\n{content}"
        );
        let (mut stream, answer) = raw_head(&pair, &head).await;
        assert!(answer.starts_with("HTTP/1.1 101") && answer.to_lowercase().contains("upgrade: tcp"), "{answer}");
        within("the content comes back", expect_bytes(&mut stream, content.as_bytes())).await;
        stream.write_all(b"ls\n").await.unwrap();
        within("the tunnel is there", expect_bytes(&mut stream, b"ls\n")).await;
    }
    assert_eq!(pair.get("/").await.status, 200);
}

#[tokio::test]
async fn upgrades_share_a_connection_between_sidecars_that_carries_nothing_else() {
    let pair = Pair::start().await;
    assert_eq!(pair.get("/").await.status, 200);
    let (inbound, opened) = (["direction=\"inbound\""], "selvedge_tcp_connections_opened_total");
    let before = pair.api.metrics().value(opened, &inbound).await;
    let upgrade = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let connect = format!("CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n\r\n");
    for head in [&upgrade, &connect, &upgrade, &connect].repeat(2) {
        let (mut stream, _) = raw_head(&pair, head).await;
        stream.write_all(b"there and back").await.unwrap();
        expect_bytes(&mut stream, b"there and back").await;
    }
    let spoken = ["direction=\"inbound\"", "protocol=\"http1\""];
    pair.api.metrics().until("selvedge_tcp_received_bytes_total", &spoken, 112.0).await;
    // Each tunnel is counted as one, and the connection that those of a worker share.
    let more = pair.api.metrics().value(opened, &inbound).await - before;
    assert!((9.0..12.0).contains(&more), "{more} connections for eight tunnels");
}

#[tokio::test]
async fn connect_opens_a_tunnel() {
    let pair = Pair::start().await;
    let (mut stream, answer) = raw_head(&pair, &format!("CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stream.write_all(b"through the tunnel").await.unwrap();
    expect_bytes(&mut stream, b"through the tunnel").await;
}

/// A sidecar passes no interim response on but 100, although RFC 9110 section 15.2 asks a proxy to: what a service hints
/// at early is lost, the final answer is not.
#[tokio::test]
async fn an_interim_response_is_dropped_and_the_final_one_arrives() {
    let reply = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal";
    let upstream = RawUpstream::start(Script::replies(reply.as_bytes())).await;
    let pair = Pair::in_front_of(upstream.address(), "http").await;
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let answer = client::exchange(pair.entry(), head.as_bytes(), DEADLINE).await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\nfinal"), "{text}");
    assert!(!text.contains("103") && !text.contains("a.css"), "{text}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_an_answer() {
    let pair = Pair::start().await;
    let head = format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let (mut stream, first) = raw_head(&pair, &head).await;
    assert!(first.starts_with("HTTP/1.1 100"), "{first}");
    stream.write_all(b"hello").await.unwrap();
    let last = within("the final answer", read_head(&mut stream)).await;
    assert!(last.starts_with("HTTP/1.1 200"), "{last}");
}

#[tokio::test]
async fn a_grpc_stream_flows_in_both_directions_and_ends_with_trailers() {
    let pair = Pair::start().await;
    let io = TokioIo::new(client::connect(pair.entry()).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let (send, receive) = mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
    let request = Request::post(format!("http://{HOST}/shop.Api/Chat")).header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(StreamBody::new(ReceiverStream::new(receive))).unwrap();
    send.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x03one")))).await.unwrap();
    let mut response = within("the head", sender.send_request(request)).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    // Each message comes back before the next is sent: nothing on the way waits for the end of the body.
    for (message, next) in [(&b"\0\0\0\0\x03one"[..], Some(&b"\0\0\0\0\x03two"[..])), (b"\0\0\0\0\x03two", None)] {
        let frame = within("a message", response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
        if let Some(next) = next {
            send.send(Ok(Frame::data(Bytes::copy_from_slice(next)))).await.unwrap();
        }
    }
    drop(send);
    let trailers = within("the trailers", response.frame()).await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn request_trailers_reach_the_service_over_http2() {
    let pair = Pair::start().await;
    let io = TokioIo::new(client::connect(pair.entry()).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-checksum"), HeaderValue::from_static("7"))]);
    let frames = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(trailers)];
    let body = StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
    let request = Request::post(format!("http://{HOST}/")).body(body).unwrap();
    let response = within("the answer", sender.send_request(request)).await.unwrap();
    let seen = client::Answer::read(response).await.unwrap().json();
    assert_eq!(seen["trailers"][0][1], "7", "{seen}");
}
