//! The named times and bounds of the control plane's ports, each met by a client over a real socket.
//!
//! Both ends run on one thread, and the clock moves on by itself when neither has anything to do: so times are exact to
//! what the sockets between them need, and a minute takes no time.

use std::io;

use selvedge_xds::{
    kinds::DESTINATION,
    proto::discovery::{DeltaDiscoveryRequest, Node},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::Code;

use super::{
    anonymous,
    channel::{connected, discover},
    kit::{ControlPlane, PATIENCE, get},
};

/// What a client of HTTP/2 begins with: the preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// A TLS connection of a client without a certificate, that has said the preface.
async fn stranger(control_plane: &ControlPlane) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(control_plane.address).await.unwrap();
    let name = "control-plane".try_into().unwrap();
    let mut stream = TlsConnector::from(anonymous::client()).connect(name, socket).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream
}

/// The next frame: its type, flags and content; nothing at the end.
async fn frame(stream: &mut TlsStream<TcpStream>) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut content = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut content).await.ok()?;
    Some((head[3], head[4], content))
}

/// Seconds until the other end closes.
async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> f64 {
    let began = Instant::now();
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    began.elapsed().as_secs_f64()
}

fn is_about(seconds: f64, expected: f64) -> bool {
    (seconds - expected).abs() < 1.0
}

async fn refused_handshakes(control_plane: &ControlPlane) -> u64 {
    let metrics = control_plane.get("/metrics").await;
    let of_it = |line: &str| line.strip_prefix("selvedge_control_plane_handshakes_refused_total ")?.parse().ok();
    metrics.lines().find_map(of_it).expect("the series is there")
}

#[tokio::test]
async fn a_handshake_takes_five_seconds_at_most() {
    let control_plane = ControlPlane::start().await;
    let mut silent = TcpStream::connect(control_plane.address).await.unwrap();
    tokio::time::pause();
    let seconds = until_closed(&mut silent).await;
    assert!(is_about(seconds, 5.0), "{seconds} s");
    assert_eq!(refused_handshakes(&control_plane).await, 1);
}

#[tokio::test]
async fn who_answers_no_ping_is_closed_and_who_answers_has_a_minute_without_a_certificate() {
    let control_plane = ControlPlane::start().await;
    let mut dead = stranger(&control_plane).await;
    tokio::time::pause();
    let seconds = until_closed(&mut dead).await;
    assert!(is_about(seconds, 40.0), "a PING after 20 s, an answer within 20 s: {seconds} s");

    let mut alive = stranger(&control_plane).await;
    let began = Instant::now();
    let mut pings = 0;
    while let Some((kind, flags, content)) = frame(&mut alive).await {
        if kind == GOAWAY {
            break;
        }
        if kind == PING && flags == 0 {
            pings += 1;
            alive.write_all(&[&[0, 0, 8, PING, 1, 0, 0, 0, 0][..], &content].concat()).await.unwrap();
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!(is_about(seconds, 60.0) && pings >= 2, "{seconds} s, {pings} PINGs");
    let seconds = until_closed(&mut alive).await;
    assert!(is_about(seconds, 2.0), "it has a moment to end what is under way: {seconds} s");
}

#[tokio::test]
async fn who_says_nothing_at_the_address_of_others_keeps_none_of_them_from_joining() {
    let control_plane = ControlPlane::start().await;
    let mut silent = Vec::new();
    for _ in 0..513 {
        silent.push(timeout(PATIENCE, stranger(&control_plane)).await.expect("a turn in time"));
    }
    timeout(PATIENCE, control_plane.join()).await.expect("a certificate in time");
    timeout(PATIENCE, until_closed(&mut silent[0])).await.expect("it gave way");
    let mut last = silent.pop().unwrap();
    frame(&mut last).await.expect("it stays");
}

#[tokio::test]
async fn a_connection_is_told_how_many_streams_and_how_much_at_once_it_may_send() {
    let control_plane = ControlPlane::start().await;
    let mut stream = stranger(&control_plane).await;
    let (_, _, settings) = timeout(PATIENCE, frame(&mut stream)).await.expect("settings in time").unwrap();
    let setting = |id: u8| {
        let all = settings.chunks(6).find(|setting| setting[..2] == [0, id]);
        all.map(|setting| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]))
    };
    assert_eq!((setting(3), setting(4)), (Some(4), Some(256 << 10)), "RFC 9113 section 6.5.2: {settings:?}");
}

#[tokio::test]
async fn the_end_waits_two_seconds_for_those_who_do_not_go() {
    let control_plane = ControlPlane::start().await;
    let mut stays = stranger(&control_plane).await;
    frame(&mut stays).await.expect("settings");
    tokio::time::pause();
    let began = Instant::now();
    control_plane.stop().await;
    let seconds = began.elapsed().as_secs_f64();
    assert!(is_about(seconds, 2.0), "{seconds} s");
}

/// The status with which a stream ends on which this is asked; nothing when there is an answer.
async fn answer(control_plane: &ControlPlane, request: DeltaDiscoveryRequest) -> Option<Code> {
    let channel = connected(control_plane, &control_plane.join().await).await;
    let (requests, mut responses) = discover(channel).await.unwrap();
    requests.send(DeltaDiscoveryRequest { type_url: DESTINATION.to_string(), ..request }).unwrap();
    let next = timeout(PATIENCE, responses.message()).await.expect("an answer in time");
    match next {
        Ok(Some(_)) => None,
        Ok(None) => Some(Code::Ok),
        Err(status) => Some(status.code()),
    }
}

#[tokio::test]
async fn a_discovery_request_is_two_mebibytes_at_most_and_its_names_are_few_and_short() {
    let control_plane = ControlPlane::start().await;
    control_plane.publish(|_| {});
    let node = |bytes: usize| DeltaDiscoveryRequest {
        node: Some(Node { id: "x".repeat(bytes), ..Node::default() }),
        resource_names_subscribe: vec!["shop/a".into()],
        ..DeltaDiscoveryRequest::default()
    };
    let names = |count: usize, length: usize| DeltaDiscoveryRequest {
        resource_names_subscribe: (0..count).map(|n| format!("{n:0length$}")).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    for (what, request, expected) in [
        ("less than 2 MiB", node((2 << 20) - 1024), None),
        ("more than 2 MiB", node(2 << 20), Some(Code::OutOfRange)),
        ("20 000 names", names(20_000, 20), None),
        ("20 001 names", names(20_001, 20), Some(Code::ResourceExhausted)),
        ("a name of 512 bytes", names(1, 512), None),
        ("a name of 513 bytes", names(1, 513), Some(Code::InvalidArgument)),
    ] {
        assert_eq!(answer(&control_plane, request).await, expected, "{what}");
    }
}

#[tokio::test]
async fn the_admin_port_has_sixty_four_connections_and_the_longest_silent_gives_way() {
    let control_plane = ControlPlane::start().await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(control_plane.admin).await.unwrap());
    }
    tokio::time::pause();
    let began = Instant::now();
    assert_eq!(get(control_plane.admin, "/live").await, "live\n");
    let seconds = began.elapsed().as_secs_f64();
    assert!(is_about(seconds, 0.0), "it waits for nobody: {seconds} s");
    assert!(until_closed(&mut silent[0]).await < 0.1);
    let seconds = until_closed(&mut silent[1]).await;
    assert!(is_about(seconds, 30.0), "the others have half a minute: {seconds} s");
}

#[tokio::test]
async fn the_admin_port_takes_short_lists() {
    let control_plane = ControlPlane::start().await;
    for (bytes, expected) in [(64 << 10, "503"), ((64 << 10) + 1, "400")] {
        let status = timeout(PATIENCE, confirm(&control_plane, bytes)).await.expect("an answer in time").unwrap();
        assert_eq!(status, expected, "a list of {bytes} bytes");
    }
}

/// The status of an answer to a list of one path, of so many bytes.
async fn confirm(control_plane: &ControlPlane, bytes: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect(control_plane.admin).await?;
    let list = format!("[\"{}\"]", "x".repeat(bytes - 4));
    let head = format!("POST /confirm HTTP/1.1\r\nhost: localhost\r\ncontent-length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    // What is refused may not be read to its end.
    stream.write_all(list.as_bytes()).await.ok();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(String::from_utf8_lossy(&status[9..]).into_owned())
}
