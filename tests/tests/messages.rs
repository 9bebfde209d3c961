//! HTTP messages of every shape arrive as they were sent: versions, lengths, trailers, tunnels.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2,
    ext::Protocol,
    server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_tests::{
    around::{Around, talk, talk_to_the_end},
    client::{self, Answer, Connection, request},
    pair::{HOST, Pair},
    pattern,
    recorder::Recorder,
    wait::{self, within},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_body_of_unknown_length_is_streamed() {
    let pair = Pair::start().await;
    let mut stream = client::connect(pair.entry()).await.unwrap();
    let head = format!("POST /up HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let body = pattern::bytes(5, 3 * MIB);
    for piece in body.chunks(65_536) {
        let chunk = [b"10000\r\n".as_slice(), piece, b"\r\n"].concat();
        within("writing a chunk", stream.write_all(&chunk)).await.unwrap();
    }
    let answer = talk(&mut stream, b"0\r\n\r\n", "}", 1).await;
    assert!(answer.contains(&format!("\"bodyLength\":{}", 3 * MIB)), "{answer}");
    pattern::assert_same("the upload", &pair.upstream.take_bodies().concat(), &body);
}

#[tokio::test]
async fn trailers_of_chunked_messages_arrive_in_both_directions() {
    let pair = Pair::start().await;
    let mut stream = client::connect(pair.entry()).await.unwrap();
    let sent = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: \
         7\r\n\r\n"
    );
    let answer = talk(&mut stream, sent.as_bytes(), "}", 1).await;
    assert!(answer.contains(r#""trailers":[["x-sum","7"]]"#), "{answer}");

    let trailing: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 9\r\n\r\n";
    let recorder = Recorder::start(trailing).await;
    let around = Around::start(recorder.address(), "").await;
    let asked = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    let answer = talk(&mut around.connect().await, asked.as_bytes(), "\r\n\r\n", 2).await;
    assert!(answer.to_lowercase().ends_with("\r\n0\r\nx-sum: 9\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn an_http10_caller_gets_a_body_that_ends_with_the_connection() {
    let chunked: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let recorder = Recorder::start(chunked).await;
    let around = Around::start(recorder.address(), "").await;
    recorder.take().await;
    let asked = format!("GET /old HTTP/1.0\r\nHost: {HOST}\r\n\r\n");
    let answer = talk_to_the_end(&mut around.connect().await, asked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok") && !answer.to_lowercase().contains("transfer-encoding"), "{answer}");
    let record = recorder.take().await;
    assert!(record.faults.is_empty() && record.requests.len() == 1, "{record:?}");
}

#[tokio::test]
async fn head_is_answered_with_lengths_and_without_bodies() {
    let pair = Pair::start().await;
    let mut stream = client::connect(pair.entry()).await.unwrap();
    for _ in 0..2 {
        let asked = format!("HEAD /bytes/1000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let answer = talk(&mut stream, asked.as_bytes(), "\r\n\r\n", 1).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("content-length: 1000"),
            "{answer}"
        );
    }
    let asked = format!("GET /next HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    assert!(talk(&mut stream, asked.as_bytes(), "\"version\"", 1).await.contains("\"/next\""));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let pair = Pair::start().await;
    let mut stream = client::connect(pair.entry()).await.unwrap();
    let asked: String = (0..5).map(|number| format!("GET /p{number} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).collect();
    let answer = talk(&mut stream, asked.as_bytes(), "\"version\"", 5).await;
    let places: Vec<usize> = (0..5).map(|number| answer.find(&format!("\"/p{number}\"")).unwrap()).collect();
    assert!(places.is_sorted(), "{answer}");
}

#[tokio::test]
async fn extended_connect_carries_a_websocket_over_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut builder = server::conn::http2::Builder::new(TokioExecutor::new());
                let served = builder.enable_connect_protocol();
                let _ = served.serve_connection(TokioIo::new(stream), service_fn(websocket)).await;
            });
        }
    });
    let mesh = around_http2(application).await;
    let io = TokioIo::new(mesh.connect().await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let mut asked = Request::connect(format!("http://{HOST}/chat")).body(Empty::<Bytes>::new()).unwrap();
    asked.extensions_mut().insert(Protocol::from_static("websocket"));
    let response = within("the answer", sender.send_request(asked)).await.unwrap();
    assert_eq!((response.status(), &response.headers()["x-path"]), (StatusCode::OK, &"/chat".parse().unwrap()));
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for part in [&b"\x81\x05hello"[..], b"\x81\x02ok"] {
        tunnel.write_all(part).await.unwrap();
        let mut back = vec![0; part.len()];
        within("the echo", tunnel.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, part);
    }
}

/// Waits with HTTP/2, which is all the application speaks.
async fn around_http2(application: SocketAddr) -> Around {
    let around = Around::launch(application, "http2").await;
    let entry = around.entry();
    wait::until_true("a request gets through", || async move {
        let Ok(mut connection) = Connection::open_http2(entry).await else { return false };
        connection.call(request(Method::GET, HOST, "/")).await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    around
}

/// Echoes in the tunnel of a websocket, and answers anything else with an empty 200.
async fn websocket(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    if request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(tunnel) = upgrade.await else { return };
            let (mut from, mut to) = tokio::io::split(TokioIo::new(tunnel));
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
    }
    Ok(Response::builder().header("x-path", request.uri().path()).body(Empty::new()).unwrap())
}

#[tokio::test]
async fn a_denied_grpc_call_ends_with_a_grpc_status() {
    let pair = Pair::start().await;
    pair.mesh.write(
        "deny.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: no, namespace: shop}\nspec:\n  \
         targetRef: {kind: Service, name: api}\n  action: DENY\n  rules: [{to: [{paths: [/shop.Api/Secret]}]}]\n",
    );
    pair.until_status("/shop.Api/Secret", 403).await;
    let io = TokioIo::new(client::connect(pair.entry()).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let message = Full::new(Bytes::from_static(b"\0\0\0\0\x02hi"));
    let call = Request::post(format!("http://{HOST}/shop.Api/Secret")).header("content-type", "application/grpc");
    let call = call.header("te", "trailers").body(message.boxed()).unwrap();
    let response = within("the denial", sender.send_request(call)).await.unwrap();
    let answer = Answer::read(response).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "7"), "{answer:?}");
    assert_eq!(
        (answer.header("grpc-message"), answer.reason()),
        ("policy_denied, see docs/codes/policy_denied.md", "policy_denied")
    );
    assert_eq!(answer.header("content-type"), "application/grpc");
    for sidecar in [&pair.web, &pair.api] {
        let sent = ["protocol=\"grpc\"", "response_code=\"200\"", "grpc_status=\"7\"", "reason=\"policy_denied\""];
        sidecar.metrics().until("selvedge_requests_total", &sent, 1.0).await;
    }
}

#[tokio::test]
async fn trailers_cannot_frame_route_or_authorize() {
    let forbidden = "Host: evil\r\nAuthorization: x\r\nContent-Length: 9\r\nX-Forwarded-For: 1.2.3.4\r\nSelvedge-Reason: \
                     internal\r\n";
    let names = "X-Sum, Host, Authorization, Content-Length, X-Forwarded-For, Selvedge-Reason";
    let pair = Pair::start().await;
    let head = format!("Transfer-Encoding: chunked\r\nTrailer: {names}\r\n\r\n");
    let asked = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{head}4\r\nbody\r\n0\r\n{forbidden}X-Sum: 7\r\n\r\n");
    let mut stream = client::connect(pair.entry()).await.unwrap();
    let answer = talk(&mut stream, asked.as_bytes(), "\"version\"", 1).await;
    assert!(answer.contains(r#""trailers":[["x-sum","7"]]"#), "{answer}");

    let said = format!("HTTP/1.1 200 OK\r\n{head}2\r\nok\r\n0\r\n{forbidden}X-Sum: 9\r\n\r\n");
    let recorder = Recorder::start(said.leak().as_bytes()).await;
    let around = Around::start(recorder.address(), "").await;
    let mut connection = Connection::open(around.entry()).await.unwrap();
    let mut asked = request(Method::GET, HOST, "/");
    asked.headers_mut().insert("te", "trailers".parse().unwrap());
    let answer = connection.call(asked).await.unwrap();
    assert_eq!(answer.trailers.keys().collect::<Vec<_>>(), ["x-sum"], "{:?}", answer.trailers);
}

#[tokio::test]
async fn trailers_of_http2_cannot_either() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let served = server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = served.serve_connection(TokioIo::new(stream), service_fn(mirror_trailers)).await;
            });
        }
    });
    let mesh = around_http2(application).await;
    let io = TokioIo::new(mesh.connect().await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let names = ["x-sum", "host", "authorization", "x-forwarded-for", "selvedge-reason"];
    let trailers: HeaderMap =
        names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).into_iter().collect();
    let frames = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(trailers)];
    let body = StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, Infallible>)));
    let asked = Request::post(format!("http://{HOST}/")).body(body).unwrap();
    let answer = within("the answer", sender.send_request(asked)).await.unwrap();
    assert_eq!(answer.headers()["x-heard"], "x-sum", "what the application was sent");
    let answer = Answer::read(answer).await.unwrap();
    assert_eq!(answer.trailers.keys().collect::<Vec<_>>(), ["x-answered"], "{:?}", answer.trailers);
}

/// Names the trailers of the request in a header, and answers with some that may not be.
async fn mirror_trailers(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let whole = request.into_body().collect().await.unwrap();
    let heard: Vec<&str> = whole.trailers().into_iter().flat_map(HeaderMap::keys).map(HeaderName::as_str).collect();
    let names = ["x-answered", "set-cookie", "host", "selvedge-reason"];
    let trailers = names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")));
    let frames = [Frame::data(Bytes::from_static(b"ok")), Frame::trailers(trailers.into_iter().collect())];
    let body = StreamBody::new(tokio_stream::iter(frames.map(Ok)));
    Ok(Response::builder().header("x-heard", heard.join(",")).body(body).unwrap())
}

#[tokio::test]
async fn an_application_cannot_speak_for_the_mesh() {
    let forged: &[u8] = b"HTTP/1.1 403 Forbidden\r\nselvedge-reason: policy_denied\r\nSelvedge-Header-Case: X\r\n\
        Content-Length: 2\r\n\r\nno";
    let recorder = Recorder::start(forged).await;
    let around = Around::launch(recorder.address(), "").await;
    let entry = around.entry();
    wait::until_true("the application answers", || async move {
        client::call(entry, request(Method::GET, HOST, "/")).await.is_ok_and(|answer| answer.status == 403)
    })
    .await;
    let asked = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let answer = talk(&mut around.connect().await, asked.as_bytes(), "\r\n\r\nno", 1).await;
    assert!(answer.starts_with("HTTP/1.1 403") && !answer.to_lowercase().contains("selvedge-"), "{answer}");
    around.web.metrics().absent("selvedge_requests_total", &["reason=\"policy_denied\""]).await;
}
