//! What looks a little like an attack and is none: a polite client of many streams, many requests with tokens, and tunnels that
//! nobody reads. None is cut or refused, and others are answered.

use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderValue, Method};
use selvedge_tests::{
    around::talk,
    client::{self, Connection, request},
    frames::{
        ACK, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, POST, RST_STREAM, SETTINGS, WINDOW_UPDATE,
        frame, hello, parse,
    },
    load::{self, Load, Plan},
    long,
    mesh::Sidecar,
    pair::{HOST, Pair},
    wait::within,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    stolen::{connect, older, stolen},
    wire::{get, id, reset},
};

/// Requests that a polite client has open at a time.
const STREAMS: u32 = 100;
/// Of so many it gives up one.
const GIVES_UP: u32 = 20;
/// `:status: 200` (RFC 7541 appendix A).
const OK: u8 = 0x88;

/// A caller over HTTP/2 that writes every frame itself.
struct Caller<T> {
    io: T,
    read: BytesMut,
    pongs: u32,
    /// Streams with another status than 200.
    refused: Vec<u32>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Caller<T> {
    /// Its answers may come 16 KiB ahead each.
    async fn begin(io: T) -> Self {
        let mut caller = Self { io, read: BytesMut::new(), pongs: 0, refused: Vec::new() };
        caller.say(&[hello(), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x40, 0])].concat()).await;
        caller
    }

    async fn say(&mut self, bytes: &[u8]) {
        let said = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        within("what it says is taken", said).await.expect("the connection is not cut");
    }

    /// What has come of answers, waiting so long for the first of it. What is owed for it is sent.
    async fn heard(&mut self, patience: Duration) -> Vec<Frame> {
        if let Ok(count) = timeout(patience, self.io.read_buf(&mut self.read)).await {
            assert!(count.expect("the connection is not broken off") > 0, "the connection is not closed");
        }
        let frames = parse(&self.read);
        let whole = frames.iter().map(|frame| 9 + frame.payload.len()).sum();
        let _ = self.read.split_to(whole);
        let owed: Vec<u8> = frames.iter().flat_map(|frame| self.owes(frame)).collect();
        self.say(&owed).await;
        frames.into_iter().filter(|frame| matches!(frame.kind, HEADERS | DATA)).collect()
    }

    fn owes(&mut self, heard: &Frame) -> Vec<u8> {
        let is_ack = heard.flags & ACK != 0;
        match heard.kind {
            SETTINGS if !is_ack => frame(SETTINGS, ACK, 0, &[]),
            PING if !is_ack => frame(PING, ACK, 0, &heard.payload),
            DATA if !heard.payload.is_empty() => {
                let length = u32::try_from(heard.payload.len()).expect("a length of 24 bits");
                frame(WINDOW_UPDATE, 0, 0, &length.to_be_bytes())
            }
            PING => {
                self.pongs += 1;
                Vec::new()
            }
            HEADERS => {
                self.refused.extend((heard.payload.first() != Some(&OK)).then_some(heard.stream));
                Vec::new()
            }
            RST_STREAM | GOAWAY => panic!("it is cut, stream {} with code {}", heard.stream, heard.code()),
            _ => Vec::new(),
        }
    }

    /// Sends these requests, of which nothing is ended before all were begun, and waits for every answer.
    async fn hold_open(&mut self, heads: impl Iterator<Item = Vec<u8>>) {
        let mut open = 0;
        for head in heads {
            self.say(&head).await;
            self.heard(Duration::ZERO).await;
            open += 1;
        }
        let ends: Vec<u8> = (0..open).flat_map(|n| frame(DATA, END_STREAM, id(n), &[])).collect();
        self.say(&ends).await;
        let answered = async {
            while open > 0 {
                let heard = self.heard(Duration::from_secs(1)).await;
                open -= heard.iter().filter(|frame| frame.flags & END_STREAM != 0).count() as u32;
            }
        };
        within("every request is answered", answered).await;
        assert_eq!(self.refused, [0; 0]);
    }
}

/// `GET /bytes/100000`: more than may come ahead.
fn long_answer(n: u32) -> Vec<u8> {
    let fields = [&b"\x82\x86\x04\x0d/bytes/100000"[..], b"\x01\x08api.shop"].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, id(n), &fields)
}

/// A client with [`STREAMS`] requests open at all times, of which it gives up a part, and that sends a PING now and then.
/// Its requests that had another status than 200.
async fn be_polite<T: AsyncRead + AsyncWrite + Unpin>(io: T, span: Duration, rhythm: Duration) -> Vec<u32> {
    let ask = |n: u32| if n.is_multiple_of(GIVES_UP) { long_answer(n) } else { get(n) };
    let mut caller = Caller::begin(io).await;
    caller.say(&(0..STREAMS).flat_map(ask).collect::<Vec<u8>>()).await;
    let (began, mut pinged, mut asked, mut given_up) = (Instant::now(), Instant::now(), STREAMS, 0);
    // A machine that is busy does little in a moment.
    while began.elapsed() < span || asked < 5 * STREAMS || caller.pongs == 0 {
        if pinged.elapsed() >= rhythm {
            caller.say(&frame(PING, 0, 0, b"8 octets")).await;
            pinged = Instant::now();
        }
        let mut says = Vec::new();
        for heard in caller.heard(rhythm.min(Duration::from_millis(100))).await {
            let n = (heard.stream - 1) / 2;
            let is_given_up = n.is_multiple_of(GIVES_UP) && heard.kind == HEADERS;
            if is_given_up {
                says.extend(reset(n));
                given_up += 1;
            }
            if is_given_up || (!n.is_multiple_of(GIVES_UP) && heard.flags & END_STREAM != 0) {
                says.extend(ask(asked));
                asked += 1;
            }
        }
        caller.say(&says).await;
    }
    println!("{asked} requests, {given_up} given up, {} PINGs answered, in {:.0?}", caller.pongs, began.elapsed());
    caller.refused
}

/// What the log of a sidecar says of requests that were not given up by their caller.
fn refusals(sidecar: &Sidecar) -> Vec<String> {
    let log = sidecar.access_log().into_iter().filter(|line| line["selvedge.reason"] != "downstream_closed");
    log.take(5).map(|line| line.to_string()).collect()
}

async fn nothing_was_refused(sidecar: &Sidecar) {
    sidecar.metrics().absent("selvedge_tcp_connections_closed_total", &["reason=\"frame_flood\""]).await;
    for reason in ["overloaded", "headers_too_large"] {
        let label = format!("reason=\"{reason}\"");
        sidecar.metrics().absent("selvedge_requests_total", &[&label]).await;
    }
}

#[tokio::test]
async fn a_polite_client_of_many_streams_is_never_cut() {
    let (span, rhythm) = long::either((2, Duration::from_millis(100)), (600, Duration::from_secs(10)));
    let (span, pair) = (Duration::from_secs(span), Pair::start().await);
    let peer = older(&stolen(pair.web.home()));
    let peer = connect(&peer, pair.api.inbound(8080)).await;
    let itself = client::connect(pair.entry()).await.unwrap();
    let polite = async { tokio::join!(be_polite(itself, span, rhythm), be_polite(peer, span, rhythm)) };
    let refused = timeout(span + Duration::from_secs(120), polite).await.expect("the requests are answered");
    let said = [&pair.web, &pair.api].map(refusals);
    assert_eq!(refused, (vec![], vec![]), "{said:#?}");
    nothing_was_refused(&pair.web).await;
    nothing_was_refused(&pair.api).await;
}

/// The start of a POST with `token` as a field `x`, by the table of compression from its second time on where it is `kept` there.
fn with_token(n: u32, token: &[u8], kept: bool) -> Vec<u8> {
    // A length from 127 on is that, and the rest in sevens of bits (RFC 7541 section 5.1).
    let rest = token.len() - 127;
    let written = [&[if kept { 0x40 } else { 0 }, 1, b'x', 0x7f, (rest & 127) as u8 | 128, (rest >> 7) as u8], token];
    let written = if kept && n > 0 { vec![0xbe] } else { written.concat() };
    frame(HEADERS, END_HEADERS, id(n), &[POST, &written].concat())
}

#[tokio::test]
async fn open_requests_with_tokens_are_answered() {
    let pair = Pair::start_with("http2", &[]).await;
    let each = |n: u32| vec![b'a' + (n % 26) as u8; 4096];
    let mut caller = Caller::begin(client::connect(pair.entry()).await.unwrap()).await;
    caller.hold_open((0..64).map(|n| with_token(n, &each(n), false))).await;
    let mut caller = Caller::begin(client::connect(pair.entry()).await.unwrap()).await;
    caller.hold_open((0..1_000).map(|n| with_token(n, &[b't'; 2048], true))).await;
    nothing_was_refused(&pair.web).await;
    nothing_was_refused(&pair.api).await;
}

#[tokio::test]
async fn any_number_of_requests_with_a_token_pass_one_after_the_other() {
    let pair = Pair::start().await;
    let (count, token) = (long::either(2_000, 1_000_000), HeaderValue::from_bytes(&[b't'; 2048]).unwrap());
    let (mut connection, began) = (Connection::open_http2(pair.entry()).await.unwrap(), Instant::now());
    for n in 0..count {
        let mut asked = request(Method::GET, HOST, "/bytes/2");
        asked.headers_mut().insert("x-token", token.clone());
        let answer = connection.call(asked).await.unwrap();
        assert_eq!(answer.status, 200, "request {n}: {}", answer.text());
    }
    println!("{count} requests in {:.0?}", began.elapsed());
    nothing_was_refused(&pair.web).await;
    nothing_was_refused(&pair.api).await;
}

/// A tunnel to a service that sends back what it gets.
async fn tunnel(pair: &Pair) -> TcpStream {
    let mut stream = client::connect(pair.entry()).await.unwrap();
    let head = format!("GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(talk(&mut stream, head.as_bytes(), "\r\n\r\n", 1).await.starts_with("HTTP/1.1 101"));
    stream
}

#[tokio::test]
async fn tunnels_that_stall_hold_up_nobody() {
    let pair = Pair::start().await;
    let mut stalled = Vec::new();
    for _ in 0..64 {
        let mut stream = tunnel(&pair).await;
        // What comes back nobody reads, so it can write no more once all between them is full.
        stalled.push(tokio::spawn(async move {
            let piece = vec![0; 64 << 10];
            while stream.write_all(&piece).await.is_ok() {}
        }));
    }
    let others = Load::start(&Plan::new(pair.entry(), HOST, "/"), 2, load::ok);
    others.progress(20).await;
    let mut other = tunnel(&pair).await;
    assert_eq!(talk(&mut other, b"another tunnel", "tunnel", 1).await, "another tunnel");
    others.progress(20).await;
    others.stop().await.assert_flawless(40);
    assert!(stalled.iter().all(|tunnel| !tunnel.is_finished()), "a tunnel was cut");
    stalled.iter().for_each(tokio::task::JoinHandle::abort);
}
