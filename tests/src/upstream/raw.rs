//! A TCP service that knows no HTTP: it may speak first, echoes or answers with fixed bytes, and records.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinHandle,
};

/// What the service does with a connection.
#[derive(Clone, Debug)]
pub struct Script {
    /// Sent at once, before the client says anything.
    pub greeting: Vec<u8>,
    /// Sent after the first bytes from the client, then the connection closes; without it everything is echoed.
    pub reply: Option<Vec<u8>>,
}

impl Script {
    /// A service that sends back what it gets.
    pub fn echo() -> Self {
        Self { greeting: Vec::new(), reply: None }
    }

    /// A service that greets first, and then sends back what it gets.
    pub fn greets(greeting: &[u8]) -> Self {
        Self { greeting: greeting.to_vec(), reply: None }
    }

    /// Answers the first bytes with `reply` and closes.
    pub fn replies(reply: &[u8]) -> Self {
        Self { greeting: Vec::new(), reply: Some(reply.to_vec()) }
    }
}

/// A service of raw bytes that runs until it is dropped.
pub struct RawUpstream {
    address: SocketAddr,
    received: Arc<Mutex<Vec<u8>>>,
    connections: Arc<AtomicU32>,
    accepting: JoinHandle<()>,
}

impl RawUpstream {
    /// Starts it on an ephemeral port.
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an ephemeral port");
        let address = listener.local_addr().expect("the bound address");
        let (received, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU32::new(0)));
        let (record, count) = (received.clone(), connections.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(talk(stream, script.clone(), record.clone()));
            }
        });
        Self { address, received, connections, accepting }
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every byte it was sent, over all connections.
    pub async fn received(&self) -> Vec<u8> {
        self.received.lock().await.clone()
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn talk(mut stream: TcpStream, script: Script, record: Arc<Mutex<Vec<u8>>>) {
    if stream.write_all(&script.greeting).await.is_err() {
        return;
    }
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        record.lock().await.extend_from_slice(&chunk[..count]);
        let answer = script.reply.as_deref().unwrap_or(&chunk[..count]);
        if stream.write_all(answer).await.is_err() || script.reply.is_some() {
            return;
        }
    }
}
