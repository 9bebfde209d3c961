//! What the HTTP/2 library of a sidecar refuses by itself: each has a line in the log and a series, and the other requests of
//! the connection go on.

use std::collections::BTreeMap;

use http::{Method, header::CONTENT_TYPE};
use selvedge_tests::{
    client::{self, Connection, request},
    frames::{CONTINUATION, END_HEADERS, END_STREAM, GET, HEADERS, frame, hello, parse},
    pair::{HOST, Pair},
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The flag of a HEADERS frame that says what its stream depends on.
const PRIORITY: u8 = 0x20;
/// `:method: GET`, `:scheme: http`, `:path: /` and `:authority:`, whose value follows.
const AUTHORITY: &[u8] = b"\x82\x86\x84\x01";

/// A field that no table knows (RFC 7541 section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &text(name), &text(value)].concat()
}

/// Text behind its length (RFC 7541 section 5.2).
fn text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    match text.len().checked_sub(127) {
        None => bytes.push(text.len() as u8),
        Some(mut rest) => {
            bytes.push(127);
            while rest > 127 {
                bytes.push((rest & 127) as u8 | 128);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        }
    }
    [&bytes, text.as_bytes()].concat()
}

/// The frames of a head on this stream.
fn head(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(16_000);
    let first = pieces.next().unwrap_or_default();
    let more: Vec<&[u8]> = pieces.collect();
    let ends = if more.is_empty() { END_HEADERS } else { 0 };
    let mut frames = frame(HEADERS, flags | ends, stream, first);
    for (number, piece) in more.iter().enumerate() {
        let ends = if number + 1 == more.len() { END_HEADERS } else { 0 };
        frames.extend(frame(CONTINUATION, ends, stream, piece));
    }
    frames
}

/// Heads that are refused, and why.
fn rows() -> Vec<(&'static str, u8, Vec<u8>, &'static str)> {
    let beside = |name: &str, value: &str| [GET, &field(name, value)].concat();
    let lengths = [field("content-length", "1"), field("content-length", "2")].concat();
    let connect = [&field(":method", "CONNECT")[..], b"\x01", &text(HOST), &field("content-length", "5")].concat();
    let on_itself = [&[0, 0, 0, 0, 16][..], GET].concat();
    let header = "malformed_header";
    vec![
        ("a field of the connection", END_STREAM, beside("connection", "close"), header),
        ("TE with a coding", END_STREAM, beside("te", "gzip"), header),
        ("no path", END_STREAM, [b"\x82\x86\x01", &text(HOST)[..]].concat(), header),
        ("a method twice", END_STREAM, [GET, b"\x82"].concat(), header),
        ("a path behind a field", END_STREAM, [GET, &field("x", "1"), b"\x84"].concat(), header),
        ("a status", END_STREAM, beside(":status", "200"), header),
        ("an authority that is a list", END_STREAM, [AUTHORITY, &text("ipv4:a:1,b:2")].concat(), header),
        (
            "a path with a character that none has",
            END_STREAM,
            [b"\x82\x86\x04", &text("/<x>")[..], b"\x01", &text(HOST)].concat(),
            header,
        ),
        ("a length that is no number", END_STREAM, beside("content-length", "x"), header),
        ("two lengths", 0, [GET, &lengths].concat(), header),
        ("a length, and no content", END_STREAM, beside("content-length", "5"), header),
        ("a stream that depends on itself", END_STREAM | PRIORITY, on_itself, header),
        ("content of CONNECT", 0, connect, "malformed_framing"),
        ("70 KiB of fields", END_STREAM, beside("x-long", &"x".repeat(70 << 10)), "headers_too_large"),
        ("70 KiB of fields, and content", 0, beside("x-long", &"x".repeat(70 << 10)), "headers_too_large"),
    ]
}

/// Waits until something is answered on this stream.
async fn answered(connection: &mut TcpStream, heard: &mut Vec<u8>, stream: u32) {
    let answer = async {
        while !parse(heard).iter().any(|frame| frame.kind == HEADERS && frame.stream == stream) {
            let read = connection.read_buf(heard).await.expect("the connection stays open");
            assert!(read > 0, "the connection was closed before stream {stream} was answered: {:?}", parse(heard));
        }
    };
    wait::within("an answer", answer).await;
}

#[tokio::test]
async fn a_request_that_the_library_refuses_leaves_its_reason() {
    let pair = Pair::start_with("http2", &[]).await;
    let mut connection = client::connect(pair.entry()).await.unwrap();
    connection.write_all(&hello()).await.unwrap();
    let (mut heard, mut stream, rows) = (Vec::new(), 1_u32, rows());
    for (_, flags, block, _) in &rows {
        let mut block = block.clone();
        if flags & PRIORITY != 0 {
            block[..4].copy_from_slice(&stream.to_be_bytes());
        }
        let next = head(END_STREAM, stream + 2, GET);
        connection.write_all(&[head(*flags, stream, &block), next].concat()).await.unwrap();
        answered(&mut connection, &mut heard, stream + 2).await;
        stream += 4;
    }
    let refused = |line: &serde_json::Value| {
        line["http.request.method"].is_null() && !line["http.response.status_code"].is_null()
    };
    let lines = wait::until("all of them are logged", || async {
        let lines: Vec<_> = pair.web.access_log().into_iter().filter(refused).collect();
        (lines.len() >= rows.len()).then_some(lines)
    })
    .await;
    let mut counts = BTreeMap::<&str, f64>::new();
    for ((what, _, _, reason), line) in rows.iter().zip(&lines) {
        assert_eq!(line["selvedge.reason"], *reason, "{what}: {line}");
        assert!(line["selvedge.detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what}: {line}");
        *counts.entry(reason).or_default() += 1.0;
    }
    for (reason, count) in counts {
        let labels = [&*format!("reason=\"{reason}\""), "destination_service=\"shop/api\"", "protocol=\"http2\""];
        pair.web.metrics().until("selvedge_requests_total", &labels, count).await;
    }
    assert_eq!(pair.api.access_log().into_iter().filter(refused).count(), 0, "nothing of it has left");
}

#[tokio::test]
async fn a_call_of_grpc_with_too_many_fields_is_told_so_as_one() {
    let pair = Pair::start_with("http2", &[]).await;
    let mut asked = request(Method::POST, HOST, "/package.Service/Method");
    asked.headers_mut().insert(CONTENT_TYPE, "application/grpc".parse().unwrap());
    for number in 0..101 {
        let name = http::HeaderName::try_from(format!("x-field-{number}")).unwrap();
        asked.headers_mut().insert(name, "1".parse().unwrap());
    }
    let answer = Connection::open_http2(pair.entry()).await.unwrap().call(asked).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.reason()), (200, "headers_too_large"), "{answer:?}");
    assert_eq!(answer.headers["grpc-status"], "13", "INTERNAL, as gRPC reads a 431");
}
