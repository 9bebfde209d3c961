//! Requests share connections; no request pays for another that is slow, endless or made of crumbs.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_tests::{
    around::{Around, talk},
    client::{self, Connection, request},
    pair::{HOST, Pair},
    upstream::{EVENT, Scenario},
    wait::{self, within},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

/// More messages than all buffers of the way hold, so that some lie unread between the sidecars.
const MESSAGES: usize = 120_000;

#[tokio::test]
async fn a_service_that_pauses_over_small_chunks_holds_up_nobody() {
    let pair = Pair::start().await;
    let pause = Duration::from_secs(4);
    pair.upstream.play(Scenario::Slow(pause));
    let served = pair.upstream.served();
    let (mut read, mut write) = client::connect(pair.entry()).await.unwrap().into_split();
    let head = format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    write.write_all(head.as_bytes()).await.unwrap();
    let pair = &pair;
    wait::until_true("the service has the request", || async move { pair.upstream.served() > served }).await;
    pair.upstream.play(Scenario::Echo);
    let chunk = format!("{EVENT:x}\r\n{}\r\n", "c".repeat(EVENT));
    let upload = tokio::spawn(async move {
        for _ in 0..MESSAGES / 100 {
            write.write_all(chunk.repeat(100).as_bytes()).await.unwrap();
        }
        write.write_all(b"0\r\n\r\n").await.unwrap();
        write
    });
    for _ in 0..50 {
        assert_eq!(pair.get("/").await.status, 200);
    }
    let _open = within("the upload", upload).await.unwrap();
    let whole = format!("\"bodyLength\":{}", MESSAGES * EVENT);
    let mut answer = String::new();
    while !answer.contains(&whole) {
        let mut part = [0; 4096];
        let count = within("the answer", read.read(&mut part)).await.unwrap();
        assert!(count > 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&part[..count]));
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_caller_that_does_not_read_its_events_holds_up_nobody() {
    let pair = Pair::start().await;
    let mut unread = client::connect(pair.entry()).await.unwrap();
    let head = format!("GET /events/{MESSAGES} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    unread.write_all(head.as_bytes()).await.unwrap();
    // The head is there, and the rest fills whatever is on the way.
    within("the head", unread.readable()).await.unwrap();
    for _ in 0..100 {
        assert_eq!(pair.get("/").await.status, 200);
    }
    let mut events = Vec::new();
    within("all events", unread.read_to_end(&mut events)).await.unwrap();
    assert!(events.starts_with(b"HTTP/1.1 200"));
    let carried = events.iter().filter(|byte| **byte == b'e').count();
    assert!(carried >= MESSAGES * EVENT, "{carried} bytes of events and in the head");
    assert_eq!(pair.get("/").await.status, 200);
}

#[tokio::test]
async fn messages_arrive_as_they_come_however_small() {
    let pair = Pair::start().await;
    let mut stream = client::connect(pair.entry()).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for message in ["first", "second", "third"] {
        let chunk = format!("{:x}\r\n{message}\r\n", message.len());
        talk(&mut stream, chunk.as_bytes(), message, 1).await;
    }
}

/// An HTTP/2 service that takes `streams` requests at once and never answers `/hang`.
async fn takes_few(streams: u32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                if request.uri().path() == "/hang" {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("here")))
            });
            let mut builder = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.max_concurrent_streams(streams).serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

/// An HTTP/2 service that begins and ends the content of an answer with an empty frame, on the one connection that it takes.
async fn says_nothing_first_and_last() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_, mut answer))) = connection.accept().await {
            let mut content = answer.send_response(Response::new(()), false).unwrap();
            for piece in ["", "here", ""] {
                content.send_data(Bytes::from(piece), false).unwrap();
            }
            content.send_trailers(HeaderMap::new()).unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_service_that_says_nothing_now_and_then_keeps_its_connection() {
    let around = Around::launch(says_nothing_first_and_last().await, "http2").await;
    let mut connection = Connection::open_http2(around.entry()).await.unwrap();
    for n in 0..300 {
        let answer = connection.call(request(Method::GET, HOST, "/")).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, b"here".as_slice()), "{n}");
    }
}

/// `GET target` on a connection of its own; `None` when there is no answer in good time.
async fn get(entry: SocketAddr, target: &str) -> Option<StatusCode> {
    let mut connection = Connection::open_http2(entry).await.ok()?;
    let answer = timeout(Duration::from_secs(5), connection.call(request(Method::GET, HOST, target))).await;
    Some(answer.ok()?.ok()?.status)
}

#[tokio::test]
async fn endless_requests_do_not_use_up_the_streams_of_a_service() {
    let around = Around::launch(takes_few(2).await, "http2").await;
    let entry = around.entry();
    wait::until_true("the service answers", || async move { get(entry, "/").await == Some(StatusCode::OK) }).await;
    let mut hanging = Vec::new();
    for _ in 0..7 {
        let mut connection = Connection::open_http2(entry).await.unwrap();
        hanging.push(tokio::spawn(async move { connection.send(request(Method::GET, HOST, "/hang")).await.map(drop) }));
        assert_eq!(get(entry, "/").await, Some(StatusCode::OK), "it waits for nobody");
    }
    assert!(hanging.iter().all(|request| !request.is_finished()));
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
}
