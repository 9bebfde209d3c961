//! A caller that floods its HTTP/2 connection loses that connection, and nobody else notices. The frames come from a raw
//! client that keeps to no rule.

use std::net::SocketAddr;

use http::Method;
use selvedge_tests::{
    around::Around,
    client::{self, Connection, request},
    frames::{
        CONTINUATION, END_HEADERS, END_STREAM, Frame, GET, GOAWAY, HEADERS, PING, POST, PRIORITY, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, frame, hello, parse,
    },
    load::{self, Load, Plan},
    pair::{HOST, Pair},
    wait::{self, within},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PERMISSIVE: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: { name: permissive, namespace: shop }
spec: { mtls: { inbound: PERMISSIVE } }
";

/// A type that nobody has defined.
const UNKNOWN: u8 = 0xfa;
const ENHANCE_YOUR_CALM: u32 = 11;
const REFUSED_STREAM: u32 = 7;

/// Sends `frames` after the preface and reads nothing meanwhile, then waits until the sidecar has closed. Returns what
/// it said before; that may be cut short by the reset of the connection.
async fn flood(address: SocketAddr, frames: &[u8]) -> Vec<Frame> {
    let mut stream = open(address).await;
    // The sidecar closes in the middle of it.
    let _ = within("the flood is taken or refused", stream.write_all(frames)).await;
    let mut bytes = Vec::new();
    let _ = within("the sidecar ends the connection", stream.read_to_end(&mut bytes)).await;
    parse(&bytes)
}

async fn open(address: SocketAddr) -> TcpStream {
    let mut stream = client::connect(address).await.unwrap();
    stream.write_all(&hello()).await.unwrap();
    stream
}

/// Floods both sidecars, the caller's and, as a stranger, the application's, while others send requests.
async fn unharmed(what: &str, frames: Vec<u8>) {
    let pair = permissive().await;
    let others = [
        Plan::new(pair.entry(), HOST, "/"),
        Plan::new(pair.entry(), HOST, "/").over_http2(),
        Plan::new(pair.api.inbound(8080), HOST, "/"),
    ];
    let others = others.map(|plan| Load::start(&plan, 1, load::ok));
    for door in [pair.entry(), pair.api.inbound(8080)] {
        for said in flood(door, &frames).await.iter().filter(|frame| frame.kind == GOAWAY) {
            assert!(matches!(said.code(), 0 | ENHANCE_YOUR_CALM), "{what}: GOAWAY with {}", said.code());
        }
    }
    // That the reset may cut short what the sidecar says is no matter: its own log has the reason.
    for sidecar in [&pair.web, &pair.api] {
        let flood = |line: &serde_json::Value| line["selvedge.reason"] == "frame_flood";
        wait::until_true(&format!("the flood of {what} is logged"), || async {
            sidecar.access_log().iter().any(flood)
        })
        .await;
        sidecar.metrics().until("selvedge_tcp_connections_closed_total", &["reason=\"frame_flood\""], 1.0).await;
    }
    for load in &others {
        load.progress(20).await;
    }
    for load in others {
        load.stop().await.assert_flawless(20);
    }
}

async fn permissive() -> Pair {
    let pair = Pair::start_with("", &[]).await;
    pair.mesh.write("permissive.yaml", PERMISSIVE);
    let inside = pair.api.inbound(8080);
    wait::until_true("strangers may call", || async move {
        client::get(inside, "/").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    pair
}

#[tokio::test]
async fn pings_and_settings() {
    unharmed("PING", frame(PING, 0, 0, b"8 octets").repeat(20_000)).await;
    unharmed("SETTINGS", frame(SETTINGS, 0, 0, &[]).repeat(20_000)).await;
}

#[tokio::test]
async fn window_updates() {
    unharmed("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(20_000)).await;
}

#[tokio::test]
async fn priorities_and_unknown_frames() {
    unharmed("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).repeat(20_000)).await;
    unharmed("unknown", frame(UNKNOWN, 0, 0, b"?").repeat(20_000)).await;
}

#[tokio::test]
async fn rapid_resets_start_few_requests() {
    let mut pair = permissive().await;
    let others = Load::start(&Plan::new(pair.entry(), HOST, "/").over_http2(), 2, load::ok);
    let frames: Vec<u8> = (0..2_000)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            let opened = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
            [opened, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let memory = pair.api.process().resident_bytes();
    others.progress(20).await;
    let (before, served) = (others.succeeded(), pair.upstream.served());
    let said = flood(pair.api.inbound(8080), &frames).await;
    let codes: Vec<u32> = said.iter().filter(|frame| frame.kind == GOAWAY).map(|frame| frame.code()).collect();
    assert!(codes.iter().all(|code| matches!(*code, 0 | ENHANCE_YOUR_CALM)), "{codes:?}");
    others.progress(20).await;
    let started = u64::from(pair.upstream.served() - served).saturating_sub(others.succeeded() - before);
    assert!(started < 250, "{started} requests of the flood reached the service");
    others.stop().await.assert_flawless(40);
    let grown = pair.api.process().resident_bytes().saturating_sub(memory);
    assert!(grown < 40 << 20, "{grown} bytes more memory");
}

#[tokio::test]
async fn a_stranger_has_a_bounded_number_of_streams() {
    let pair = permissive().await;
    let served = pair.upstream.served();
    let mut stream = open(pair.api.inbound(8080)).await;
    // Requests that never end.
    let opened: Vec<u8> = (0..500).flat_map(|number| frame(HEADERS, END_HEADERS, 2 * number + 1, POST)).collect();
    stream.write_all(&opened).await.unwrap();
    let mut bytes = Vec::new();
    let refused = within("a stream is refused", async {
        loop {
            let count = parse(&bytes).iter().filter(|f| f.kind == RST_STREAM && f.code() == REFUSED_STREAM).count();
            if count >= 500 - 128 || matches!(stream.read_buf(&mut bytes).await, Ok(0) | Err(_)) {
                return count;
            }
        }
    })
    .await;
    assert!(refused > 0, "no stream was refused");
    wait::until_true("what was refused is counted", || async {
        let labels = ["reason=\"overloaded\"", "direction=\"inbound\""];
        pair.api.metrics().so_far("selvedge_requests_total", &labels).await > 0.0
    })
    .await;
    assert!(pair.upstream.served() - served <= 128, "{}", pair.upstream.served() - served);
    assert_eq!(pair.get("/").await.status, 200);
}

/// A service that answers every HTTP/2 connection with its settings and then `flood`, until nobody reads any more.
async fn hostile_service(flood: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let flood = flood.clone();
            tokio::spawn(async move {
                let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
                while stream.write_all(&flood).await.is_ok() {}
            });
        }
    });
    address
}

#[tokio::test]
async fn a_service_that_floods_its_callers_is_left() {
    for (what, flood) in [("PING", frame(PING, 0, 0, b"8 octets")), ("SETTINGS", frame(SETTINGS, 0, 0, &[]))] {
        let around = Around::launch(hostile_service(flood.repeat(1000)).await, "http2").await;
        let entry = around.entry();
        wait::until("the flood is noticed", || async move {
            let mut connection = Connection::open_http2(entry).await.ok()?;
            let answer = connection.call(request(Method::GET, HOST, "/")).await.ok()?;
            // One that found the connection closed before it began says so instead.
            (answer.status == 502 && answer.text().contains("control frames")).then_some(())
        })
        .await;
        assert!(around.api.is_ready().await, "{what}");
    }
}

/// A number from 127 on, behind its first seven bits (RFC 7541 section 5.1).
fn number(value: usize) -> Vec<u8> {
    let (mut bytes, mut rest) = (vec![0x7f], value - 127);
    while rest > 127 {
        bytes.push((rest & 127) as u8 | 128);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

#[tokio::test]
async fn a_connection_that_breaks_the_protocol_leaves_its_reason_in_the_log() {
    // A field of 4000 bytes is named twenty times, which is too much; the next one never ends.
    let field = [b"\x40\x01x", &number(4000)[..], &[b'x'; 4000]].concat();
    let endless = [GET, &field, &[0xbe; 20], b"\x00\x01y", &number(1 << 20)].concat();
    let more = frame(CONTINUATION, 0, 1, &[b'y'; 16_000]);
    let cases = [
        (frame(CONTINUATION, END_HEADERS, 1, GET), "malformed_framing"),
        (frame(HEADERS, END_HEADERS, 0, GET), "malformed_framing"),
        ([frame(HEADERS, END_STREAM, 1, &endless), more.repeat(5)].concat(), "headers_too_large"),
        ([frame(HEADERS, END_STREAM, 1, GET), frame(CONTINUATION, 0, 1, &[]).repeat(50)].concat(), "frame_flood"),
    ];
    let pair = Pair::start_with("", &[]).await;
    for (sent, (frames, reason)) in cases.iter().enumerate() {
        flood(pair.entry(), frames).await;
        let refused =
            |line: &serde_json::Value| line["http.request.method"].is_null() && !line["selvedge.reason"].is_null();
        let line = wait::until("the end of the connection is logged", || async {
            pair.web.access_log().into_iter().filter(refused).nth(sent)
        })
        .await;
        assert_eq!(line["selvedge.reason"], *reason, "case {sent}: {line}");
    }
}
