//! Whoever attacks, on a thread of its own, so that what it costs is known.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustls::ClientConfig;
use selvedge_tests::frames::hello;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::TcpStream,
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::wire::{Attack, Round};

/// Rounds that are written at once.
const BATCH: u32 = 64;
/// Connections that attack at once.
const CONNECTIONS: usize = 4;

/// The way in.
#[derive(Clone)]
pub(crate) enum Door {
    /// As the workload itself, over HTTP/2.
    Own(SocketAddr),
    /// As a peer with a certificate, over HTTP/2.
    Http2(SocketAddr, Arc<ClientConfig>),
    /// As a peer with a certificate, in frames.
    Frames(SocketAddr, Arc<ClientConfig>),
}

impl Door {
    /// What `attack` sends through it.
    pub(crate) fn round(&self, attack: &Attack) -> Option<Round> {
        if matches!(self, Self::Frames(..)) { attack.frames } else { attack.http2 }
    }
}

/// An attack that is going on.
pub(crate) struct Attacker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Attacker {
    /// Attacks until it is stopped, on new connections in place of those that are closed.
    pub(crate) fn start(door: &Door, attack: &Attack) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, door, attack) = (stop.clone(), door.clone(), *attack);
        Self { stop, thread: thread::spawn(move || run(&door, &attack, &stopped)) }
    }

    /// Ends it; the time of a processor that it has used.
    pub(crate) fn stop(self) -> Duration {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("an attacker does not panic")
    }
}

fn run(door: &Door, attack: &Attack, stop: &Arc<AtomicBool>) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (local, round) = (LocalSet::new(), door.round(attack).expect("an attack for this door"));
    for _ in 0..CONNECTIONS {
        let (door, attack, stop) = (door.clone(), *attack, stop.clone());
        local.spawn_local(async move {
            loop {
                // It closes at any point.
                let _ = once(&door, &attack, round).await;
                if stop.load(Relaxed) {
                    break;
                }
            }
        });
    }
    let stopped = stop.clone();
    local.block_on(&runtime, async move {
        while !stopped.load(Relaxed) {
            sleep(Duration::from_millis(20)).await;
        }
    });
    drop(local);
    used("thread-self")
}

async fn once(door: &Door, attack: &Attack, round: Round) -> std::io::Result<()> {
    match door {
        Door::Own(address) => flood(TcpStream::connect(address).await?, &hello(), attack, round).await,
        Door::Http2(address, tls) => flood(meshed(*address, tls).await?, &hello(), attack, round).await,
        Door::Frames(address, tls) => flood(meshed(*address, tls).await?, &[], attack, round).await,
    }
}

async fn meshed(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> std::io::Result<impl AsyncRead + AsyncWrite + 'static> {
    let name = "api.shop".try_into().expect("a name");
    TlsConnector::from(tls.clone()).connect(name, TcpStream::connect(address).await?).await
}

/// Floods one connection until it is closed.
async fn flood<T>(io: T, hello: &[u8], attack: &Attack, round: Round) -> std::io::Result<()>
where
    T: AsyncRead + AsyncWrite + 'static,
{
    let (mut read, mut write) = split(io);
    let reads = attack.reads;
    let mut closed = spawn_local(async move {
        let mut buffer = vec![0; 64 * 1024];
        while reads && read.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        read
    });
    let flooding = async {
        write.write_all(hello).await?;
        let mut done = 0;
        while done < attack.rounds {
            let until = (done + BATCH).min(attack.rounds);
            let bytes: Vec<u8> = (done..until).flat_map(round).collect();
            write.write_all(&bytes).await?;
            write.flush().await?;
            done = until;
        }
        std::io::Result::Ok(())
    };
    tokio::select! {
        result = flooding => result?,
        _ = &mut closed, if reads => return Ok(()),
    }
    // All was sent; it stays until it is closed.
    let _ = timeout(Duration::from_secs(60), closed).await;
    sleep(Duration::from_secs(60)).await;
    Ok(())
}

/// The time of a processor that a thread has used, by its folder in `/proc`.
pub(crate) fn used(folder: &str) -> Duration {
    let text = fs::read_to_string(format!("/proc/{folder}/schedstat")).expect("the kernel tells");
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}
