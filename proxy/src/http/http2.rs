//! HTTP/2 to an application, to a service outside the mesh or to a sidecar that knows no frames (RFC 9113): who carries the
//! connection, and who calls on it.
//!
//! Guarantees: a peer that answers no PING is given up; a request that is given up is reset; of a body one piece is taken before
//! the peer makes room for it; a request whose turn never came was not sent, and says so.

use std::{cell::Cell, future::pending, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::{Ping, PingPong, client::Connection};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};

mod caller;
mod content;
mod pump;
mod sent;
mod tunnel;
#[cfg(test)]
mod tests;

pub(crate) use caller::{Caller, Sender};
pub(crate) use content::Content;
pub(crate) use sent::send;
pub(crate) use tunnel::Tunnel;

/// A peer of which nothing came for so long is asked for a sign of life, also while nothing is under way.
const SILENCE: Duration = Duration::from_secs(20);
/// How long it has to give one.
const SIGN: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The connection has ended, and nothing of the request was sent on it.
    Unsent,
    /// The peer gave no sign of life.
    Silent,
    /// This has ended the stream.
    Ended(h2::Error),
}

/// What is known of the other end of a connection.
#[derive(Debug)]
struct Peer {
    /// When something of an answer was taken last.
    heard: Cell<Instant>,
    /// It has given no sign of life.
    silent: Cell<bool>,
}

impl Peer {
    fn hear(&self) {
        self.heard.set(Instant::now());
    }
}

/// Carries a connection until it is over. How it ended, its streams are told.
async fn carry<T: AsyncRead + AsyncWrite + Unpin>(mut connection: Connection<T, Bytes>, peer: Rc<Peer>) {
    let silence = silence(connection.ping_pong(), &peer);
    tokio::select! {
        // What has come is read before anybody is taken to be silent: of a thread that is late everybody's time is up.
        biased;
        _ended = connection => {}
        () = silence => {}
    }
}

/// Ends when the peer leaves a PING unanswered.
async fn silence(pings: Option<PingPong>, peer: &Peer) {
    // There is one, because nobody took it before.
    let Some(mut pings) = pings else { return pending().await };
    loop {
        let quiet = peer.heard.get() + SILENCE;
        if Instant::now() < quiet {
            sleep_until(quiet).await;
        } else if matches!(timeout(SIGN, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            peer.hear();
        } else {
            peer.silent.set(true);
            return;
        }
    }
}
