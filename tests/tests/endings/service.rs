//! A service of raw bytes that answers as a row of a table says, however wrong that is.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What it does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Play {
    /// Bytes of the request's content that it reads before it answers.
    pub(crate) reads: usize,
    /// The answer, as it is written.
    pub(crate) says: &'static [u8],
    /// What follows.
    pub(crate) ends: Ends,
}

/// How its side of a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// It is closed, whatever lies there unread.
    Closes,
    /// It says that nothing follows, then it is closed.
    SaysSo,
    /// It is reset.
    Resets,
    /// The caller's content is read to its end first.
    ReadsOn,
}

/// A service that runs until it is dropped. `GET /` is answered 200, `/N` as the play number N.
pub(crate) struct Service {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Service {
    pub(crate) async fn start(plays: Vec<Play>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an ephemeral port");
        let address = listener.local_addr().expect("the bound address");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, plays.clone()));
            }
        });
        Self { address, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, plays: Vec<Play>) -> Option<()> {
    let (head, rest) = head(&mut stream).await?;
    let number = head.split_once(" /")?.1.split_once(' ')?.0.parse::<usize>();
    let hello = Play {
        reads: 0,
        says: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ends: Ends::SaysSo,
    };
    let play = number.ok().and_then(|number| plays.get(number).copied()).unwrap_or(hello);
    let (mut left, mut chunk) = (play.reads.saturating_sub(rest), vec![0; 64 * 1024]);
    while left > 0 {
        let most = left.min(chunk.len());
        match stream.read(&mut chunk[..most]).await {
            Ok(read @ 1..) => left -= read,
            _ => return None,
        }
    }
    stream.write_all(play.says).await.ok()?;
    match play.ends {
        Ends::Closes => {}
        Ends::SaysSo => stream.shutdown().await.ok()?,
        Ends::Resets => stream.set_zero_linger().ok()?,
        Ends::ReadsOn => while matches!(stream.read(&mut chunk).await, Ok(1..)) {},
    }
    Some(())
}

/// The head of a request, and how many bytes of what follows were read with it.
async fn head(stream: &mut TcpStream) -> Option<(String, usize)> {
    let mut read = Vec::new();
    loop {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = read.len() - end - 4;
            read.truncate(end);
            return Some((String::from_utf8(read).ok()?, rest));
        }
    }
}
