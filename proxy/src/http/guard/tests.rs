use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::{JoinHandle, LocalSet},
};

use super::*;
use crate::sniff::HTTP2_PREFACE;

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
}

/// A guarded hyper server with its client end, and the reason when it is over.
fn serve(budget: &'static Budget) -> (DuplexStream, JoinHandle<Option<Reason>>) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let (guarded, flood) = FrameGuard::server(server, Account::new(budget, Instant::now()));
    let connection = tokio::task::spawn_local(async move {
        let answer = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&[b'x'; 100_000]))))
        });
        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // The outcome is told by the guard.
        let _ = served.serve_connection(TokioIo::new(guarded), answer).await;
        flood.reason()
    });
    (client, connection)
}

/// Sends the preface and `count` times `flood`, and tells whether the server gave up and said so.
async fn attack(budget: &'static Budget, flood: &[u8], count: usize) -> (Option<Reason>, bool) {
    let (mut client, connection) = serve(budget);
    let (mut read, mut write) = tokio::io::split(&mut client);
    let attack = async {
        write.write_all(HTTP2_PREFACE).await?;
        write.write_all(&frame(4, 0, &[])).await?;
        for _ in 0..count {
            write.write_all(flood).await?;
        }
        write.shutdown().await
    };
    let mut answer = Vec::new();
    // A broken pipe is what the attacker is meant to see.
    let _ = tokio::join!(attack, read.read_to_end(&mut answer));
    let calm_down = answer.windows(4).any(|code| code == [0, 0, 0, 11]);
    (connection.await.unwrap(), calm_down)
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_flood_ends_the_connection() {
    let floods = [
        ("PING", frame(6, 0, &[0; 8])),
        ("SETTINGS", frame(4, 0, &[])),
        ("PRIORITY", frame(2, 3, &[0, 0, 0, 0, 9])),
        ("WINDOW_UPDATE", frame(8, 0, &[0, 0, 0, 1])),
        ("unknown", frame(0x42, 0, b"x")),
    ];
    LocalSet::new()
        .run_until(async {
            for (name, flood) in floods {
                let outcome = attack(&Budget::STRICT, &flood, 20_000).await;
                assert_eq!(outcome, (Some(Reason::FrameFlood), true), "{name}");
            }
        })
        .await;
}

/// Asks a service that answers with `flood`, `count` times, and tells why the request failed and what the service was
/// told.
async fn ask_a_hostile_service(flood: Vec<u8>, count: usize) -> (String, Vec<u8>) {
    let (ours, mut service) = tokio::io::duplex(1 << 20);
    let hostile = tokio::task::spawn_local(async move {
        let mut heard = vec![0; HTTP2_PREFACE.len()];
        service.read_exact(&mut heard).await.unwrap();
        service.write_all(&frame(4, 0, &[])).await.unwrap();
        let (mut read, mut write) = tokio::io::split(service);
        let attack = async {
            for _ in 0..count {
                write.write_all(&flood).await?;
            }
            write.shutdown().await
        };
        let _ = tokio::join!(attack, read.read_to_end(&mut heard));
        heard
    });
    let guarded = FrameGuard::client(ours, &Budget::CALLED, MaxStreams::default());
    let (mut requests, driver) = h2::client::handshake(guarded).await.unwrap();
    tokio::task::spawn_local(driver);
    let (answer, _) = requests.send_request(Request::new(()), true).unwrap();
    let told = answer.await.unwrap_err().to_string();
    drop(requests);
    (told, hostile.await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_service_that_floods_its_callers_is_left() {
    LocalSet::new()
        .run_until(async {
            for (name, flood) in [
                ("PING", frame(6, 0, &[0; 8])),
                ("SETTINGS", frame(4, 0, &[])),
                ("WINDOW_UPDATE", frame(8, 0, &[0, 0, 0, 1])),
                ("unknown", frame(0x42, 0, b"x")),
            ] {
                let (told, heard) = ask_a_hostile_service(flood, 40_000).await;
                let calm_down = heard.windows(4).any(|code| code == [0, 0, 0, 11]);
                assert!(told.contains("faster than anybody") && calm_down, "{name}: {told}");
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_clients_do_is_within_the_budget() {
    LocalSet::new()
        .run_until(async {
            let (client, connection) = serve(&Budget::STRICT);
            let (mut requests, driver) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
            let driver = tokio::task::spawn_local(driver);
            for _ in 0..300 {
                let request = Request::new(Full::<Bytes>::default());
                let response = requests.send_request(request).await.unwrap();
                http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
            }
            drop(requests);
            driver.await.unwrap().unwrap();
            assert_eq!(connection.await.unwrap(), None);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn tokens_come_back_with_time() {
    let now = Instant::now;
    let mut account = Account::new(&Budget::STRICT, now());
    let pings = |account: &mut Account| (0..1000).take_while(|_| account.received(Kind::Ping, now)).count();
    assert_eq!(pings(&mut account), 50);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!((9..=10).contains(&pings(&mut account)));
}

#[test]
fn a_peer_that_measures_the_delay_with_every_frame_is_no_flood() {
    let now = Instant::now();
    let mut account = Account::new(&Budget::STRICT, now);
    let mut pinged = || {
        account.data_sent();
        account.received(Kind::Ping, || now)
    };
    assert!((0..10_000).all(|_| pinged()), "as fast as grpc-go does on a short way");
}

/// Frames of a kind that one account takes at once.
fn taken(account: &mut Account, kind: Kind, now: Instant) -> usize {
    (0..1_000_000).take_while(|_| account.received(kind, || now)).count()
}

#[test]
fn what_use_earns_is_capped() {
    let now = Instant::now();
    let used = || {
        let mut account = Account::new(&Budget::STRICT, now);
        for _ in 0..200_000 {
            account.stream_opened();
            account.data_sent();
        }
        account
    };
    assert_eq!(taken(&mut used(), Kind::Ping, now), 50, "a burst of them");
    assert_eq!(taken(&mut used(), Kind::Reset, now), 100, "a burst of them");
    for kind in [Kind::WindowUpdate, Kind::Priority] {
        assert_eq!(taken(&mut used(), kind, now), 100_000, "{kind:?}");
    }
    let mut busy = Account::new(&Budget::STRICT, now);
    (0..200_000).for_each(|_| busy.data_sent());
    assert_eq!(taken(&mut busy, Kind::WindowUpdate, now), 100_000, "for data alone");
}

#[test]
fn resets_are_judged_against_the_streams_opened() {
    let now = Instant::now();
    let resets = |budget: &'static Budget, cancelled: u32, opened: u32| {
        let mut account = Account::new(budget, now);
        let fits = |n: u32, account: &mut Account| {
            account.stream_opened();
            n % 100 >= cancelled || account.received(Kind::Reset, || now)
        };
        (0..opened).take_while(|n| fits(*n, &mut account)).count()
    };
    assert_eq!(resets(&Budget::STRICT, 5, 100_000), 100_000, "one request in 20 is given up, for ever");
    // One in a hundred more than is earned, and a hundred at once: all are taken for about ten thousand requests.
    assert!((9_000..=11_000).contains(&resets(&Budget::STRICT, 6, 100_000)));
    assert!((100..=110).contains(&resets(&Budget::STRICT, 100, 200)), "every request is reset at once");
    assert_eq!(resets(&Budget::KNOWN, 20, 100_000), 100_000, "a fifth of what a sidecar carries is given up, for ever");
    let at_once = resets(&Budget::KNOWN, 100, 100_000);
    assert!((10_000..=12_500).contains(&at_once), "a sidecar's callers may all give up at once: {at_once}");
    assert_eq!(resets(&Budget::CALLED, 100, 100_000), 100_000, "a service may refuse everybody");
}

/// HEADERS of a whole request (RFC 7541: `GET http://a/`), which opens `stream`.
fn open(stream: u32) -> Vec<u8> {
    let mut headers = frame(1, stream, &[0x82, 0x86, 0x84, 0x41, 1, b'a']);
    headers[4] = 0x5; // END_STREAM and END_HEADERS
    headers
}

/// The last stream that the GOAWAY frames in `answer` with ENHANCE_YOUR_CALM name.
fn named(mut answer: &[u8]) -> Vec<u32> {
    let mut named = Vec::new();
    while let Some(([a, b, c, kind, ..], rest)) = answer.split_at_checked(9) {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(len) else { break };
        if *kind == 7 && payload[4..8] == [0, 0, 0, 11] {
            named.push(u32::from_be_bytes(payload[..4].try_into().unwrap()));
        }
        answer = rest;
    }
    named
}

#[tokio::test(start_paused = true)]
async fn the_goodbye_names_the_last_stream_that_was_taken() {
    LocalSet::new()
        .run_until(async {
            let (mut client, connection) = serve(&Budget::STRICT);
            let requests = [1, 3, 5].map(open).concat();
            client.write_all(&[HTTP2_PREFACE.as_slice(), &frame(4, 0, &[]), &requests].concat()).await.unwrap();
            let mut answer = vec![0; 1 << 20];
            // As much of the three answers as the window of the connection lets pass: they are under way.
            let mut read = 0;
            while read < 65_535 {
                read += client.read(&mut answer[read..]).await.unwrap();
            }
            answer.truncate(read);
            client.write_all(&frame(6, 0, &[0; 8]).repeat(100)).await.unwrap();
            client.shutdown().await.unwrap();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(named(&answer), [5], "so that its sender knows what may be sent again elsewhere");
            assert_eq!(connection.await.unwrap(), Some(Reason::FrameFlood));
        })
        .await;
}
