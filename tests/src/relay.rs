//! A TCP relay that takes down what it carries: the wire between two processes under test.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// A relay on a port of its own.
pub struct Relay {
    address: SocketAddr,
    there: Tape,
    back: Tape,
    accepting: JoinHandle<()>,
}

/// The bytes of one direction, over all connections.
type Tape = Arc<watch::Sender<Vec<u8>>>;

impl Relay {
    /// Starts one that leads to `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an ephemeral port");
        let address = listener.local_addr().expect("the bound address");
        let (there, back) = (Tape::default(), Tape::default());
        let tapes = (there.clone(), back.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let Ok(called) = TcpStream::connect(target).await else { continue };
                let ((from_caller, to_caller), (from_called, to_called)) = (caller.into_split(), called.into_split());
                tokio::spawn(carry(from_caller, to_called, tapes.0.clone()));
                tokio::spawn(carry(from_called, to_caller, tapes.1.clone()));
            }
        });
        Self { address, there, back, accepting }
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes it has carried, in both directions together.
    pub fn carried(&self) -> usize {
        self.there.borrow().len() + self.back.borrow().len()
    }

    /// Whether `text` went over the wire as it is, in either direction.
    pub fn saw(&self, text: &str) -> bool {
        let shows = |tape: &Tape| tape.borrow().windows(text.len()).any(|window| window == text.as_bytes());
        shows(&self.there) || shows(&self.back)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, tape: Tape) {
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        tape.send_modify(|tape| tape.extend_from_slice(&chunk[..count]));
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}
