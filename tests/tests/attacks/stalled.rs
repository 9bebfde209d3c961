//! Whoever begins and then stalls is cut after ten seconds. Nothing shortens that time, so it is tried in the long form alone.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use rustls::ClientConfig;
use selvedge_tests::{client, frames::hello, long, pair::Pair, skip, wait::DEADLINE};
use selvedge_xds::alpn;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::stolen::{connect, older, stolen};

/// How long a caller may take to go on.
const PATIENCE: Duration = Duration::from_secs(10);

trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// After which time the connection of one who says this, its last byte by itself, and then nothing is over.
async fn cut_after(mut io: Box<dyn Io>, said: &[u8]) -> Option<Duration> {
    let (last, start) = said.split_last().unwrap();
    let began = Instant::now();
    for part in [start, &[*last]] {
        io.write_all(part).await.unwrap();
        io.flush().await.unwrap();
    }
    // That it is cut may be an error.
    let cut = timeout(DEADLINE, io.read_to_end(&mut Vec::new())).await;
    cut.ok().map(|_| began.elapsed())
}

#[tokio::test]
async fn whoever_begins_and_stalls_is_cut() {
    if !long::is_long() {
        return skip("it takes ten seconds: make attack");
    }
    let pair = Pair::start_with("http", &[]).await;
    let (tls, entry, peer) = (stolen(pair.web.home()), pair.entry(), pair.api.inbound(8080));
    let itself = client::connect(entry).await.unwrap();
    let preface = &hello()[..20];
    let mut bulk = ClientConfig::clone(&tls.frames);
    bulk.alpn_protocols = vec![alpn::HTTP1.to_vec()];
    let cases: [(&str, Box<dyn Io>, &[u8]); 4] = [
        ("the workload itself, a head", Box::new(itself), b"GET / HTTP/1.1\r\nHo"),
        ("a peer, a head", Box::new(connect(&Arc::new(bulk), peer).await), b"GET / HT"),
        ("a peer, the preface of HTTP/2", Box::new(connect(&older(&tls), peer).await), preface),
        ("a peer, a frame", Box::new(connect(&tls.frames, peer).await), b"\0\0"),
    ];
    let all = cases.map(async |(what, io, said)| (what, cut_after(io, said).await));
    let all = join_all(all).await;
    all.iter().for_each(|(what, after)| println!("{what}: cut after {after:.2?}"));
    let in_time =
        |after: &Option<Duration>| after.is_some_and(|after| after > PATIENCE * 9 / 10 && after < 2 * PATIENCE);
    let wrong: Vec<_> = all.iter().filter(|(_, after)| !in_time(after)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
