//! What a service says first arrives at once, wherever it pauses in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use selvedge_tests::{around::Around, client};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::{Instant, timeout},
};

/// What services begin with whose callers wait for it.
const GREETINGS: &[&[u8]] = &[
    b"220 mail.test ESMTP\r\n",
    b"220 (vsFTPd 3.0.3)\r\n",
    b"+OK ready\r\n",
    b"* OK [CAPABILITY IMAP4rev1] ready\r\n",
    b"200 news.test ready\r\n",
    b"SSH-2.0-OpenSSH_9.2p1\r\n",
    b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0",
    b"RFB 003.008\n",
    b"@RSYNCD: 31.0\n",
    b"INFO {\"server_id\":\"N\"}\r\n",
    b"( success ( 2 2 ( ) ) ) ",
    b"\"IMPLEMENTATION\" \"sieve\"\r\nOK\r\n",
    b"\xff\xfd\x18\xff\xfd\x20",
    b":irc.test NOTICE * :hello\r\n",
    b"Tarantool 2.6.0 (Binary)\n",
    b"HTTP/1.1 408 Request Timeout\r\n",
    // What a server of HTTP/2 begins with, which tells what it speaks and is no greeting; this one ends before it is that.
    b"\0\0\x06\x04\0\0\0\0",
];
/// Callers at a time.
const CALLERS: usize = 16;

/// A service that says the next of these to each who connects, the first again after the last, and ends when it is told
/// something.
async fn greeting(starts: Vec<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for start in starts.into_iter().cycle() {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            tokio::spawn(async move {
                stream.write_all(start).await?;
                stream.read(&mut [0; 16]).await
            });
        }
    });
    address
}

/// What a caller is told who says nothing before, and after which time.
async fn told(entry: SocketAddr) -> std::io::Result<(Vec<u8>, Duration)> {
    let (began, mut stream) = (Instant::now(), client::connect(entry).await?);
    let mut all = vec![stream.read_u8().await?];
    let after = began.elapsed();
    stream.write_all(b"?").await?;
    stream.read_to_end(&mut all).await?;
    Ok((all, after))
}

#[tokio::test]
async fn any_start_of_any_greeting_arrives() {
    let starts: Vec<&[u8]> = GREETINGS.iter().flat_map(|all| (1..=all.len()).map(|cut| &all[..cut])).collect();
    let mut missing: BTreeSet<&[u8]> = starts.iter().copied().collect();
    let around = Around::launch(greeting(starts).await, "").await;
    let entry = around.entry();
    let mut fastest = BTreeMap::new();
    let mut callers = JoinSet::new();
    let all_heard = async {
        while !missing.is_empty() {
            while callers.len() < CALLERS {
                callers.spawn(told(entry));
            }
            // The first callers may come before the sidecar knows where to.
            let Some(Ok(Ok((start, after)))) = callers.join_next().await else { continue };
            missing.remove(&*start);
            for (n, _) in GREETINGS.iter().enumerate().filter(|(_, all)| all.starts_with(&start)) {
                fastest.entry(n).and_modify(|least: &mut Duration| *least = after.min(*least)).or_insert(after);
            }
        }
    };
    // Each is a handshake: some seconds for all of them, and for each that is lost another round.
    let heard = timeout(Duration::from_secs(180), all_heard).await;
    let missing: Vec<String> = missing.iter().map(|start| start.escape_ascii().to_string()).collect();
    assert!(heard.is_ok(), "these do not arrive: {missing:?}");
    println!("{} greetings, the fastest start of each after {:?}", GREETINGS.len(), fastest.values().max());
    // The start of what is hardly anything but HTTP/2 is waited for by both sidecars, 3 s each.
    let limit = |n: usize| if GREETINGS[n].starts_with(b"\0") { 60 } else { 3 };
    let slow: Vec<_> = fastest.iter().filter(|(n, after)| **after > Duration::from_secs(limit(**n))).collect();
    assert!(slow.is_empty(), "none of their starts came soon: {slow:?}");
}
