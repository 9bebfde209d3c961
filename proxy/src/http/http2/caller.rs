//! The end that calls.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{
    SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex, MutexGuard},
    task::spawn_local,
    time::Instant,
};

use super::{Failed, Peer, carry};
use crate::http::Windows;

/// Header sections of responses are bounded as those of requests.
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// Resets of a peer that proved its identity are no attack; see `docs/decisions/`.
const MAX_RESETS: usize = 100_000;
/// Bytes of one request that wait to be written, at most.
const UNSENT: usize = 1 << 20;
/// Streams that are opened before the peer has said how many it takes: as few as it should take at least (RFC 9113 section
/// 6.5.2).
const FIRST_STREAMS: usize = 100;

/// Calls a peer. When it is dropped the connection ends after what is under way on it.
pub(crate) struct Caller {
    sender: Sender,
    /// Knows whether the connection takes requests.
    open: RefCell<SendRequest<Bytes>>,
}

impl Caller {
    /// A caller on `io`, which is carried on this worker; `windows` is what the peer may send ahead.
    ///
    /// # Errors
    /// The start of the connection could not be written.
    pub(crate) async fn open<T: AsyncRead + AsyncWrite + Unpin + 'static>(
        io: T,
        windows: Windows,
    ) -> Result<Self, h2::Error> {
        let (requests, connection) = Builder::new()
            .enable_push(false)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_concurrent_reset_streams(MAX_RESETS)
            .max_send_buffer_size(UNSENT)
            .initial_max_send_streams(FIRST_STREAMS)
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.shared)
            .handshake(io)
            .await?;
        let peer = Rc::new(Peer { heard: Cell::new(Instant::now()), silent: Cell::new(false) });
        spawn_local(carry(connection, peer.clone()));
        let open = RefCell::new(requests.clone());
        Ok(Self { sender: Sender { turns: Rc::new(Mutex::new(requests)), peer }, open })
    }

    /// True when it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        // Nobody sends with it, so there is nothing to wait for.
        let polled = self.open.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(polled, Poll::Ready(Err(_)))
    }

    /// Something to send a request with.
    pub(crate) fn sender(&self) -> Sender {
        self.sender.clone()
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

/// Sends a request when it is its turn: where the peer takes no more streams one request waits for its stream, and the others
/// behind it.
#[derive(Clone)]
pub(crate) struct Sender {
    turns: Rc<Mutex<SendRequest<Bytes>>>,
    peer: Rc<Peer>,
}

impl Sender {
    /// Waits until a request can be sent.
    ///
    /// # Errors
    /// The connection has ended before.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, Failed> {
        let mut requests = self.turns.lock().await;
        poll_fn(|cx| requests.poll_ready(cx)).await.map_err(|_| Failed::Unsent)?;
        Ok(Turn { requests, sender: self, opens: false })
    }
}

/// Where an answer comes, and where what follows the head of its request goes.
pub(super) type Opened = (ResponseFuture, SendStream<Bytes>);

/// The right to send one request.
pub(crate) struct Turn<'a> {
    requests: MutexGuard<'a, SendRequest<Bytes>>,
    sender: &'a Sender,
    /// Its stream is not open yet.
    opens: bool,
}

impl Turn<'_> {
    /// Opens a stream for a request, which is over with its head where it `ends`.
    ///
    /// # Errors
    /// It is no request.
    pub(super) fn open(&mut self, request: Request<()>, ends: bool) -> Result<Opened, Failed> {
        let opened = self.requests.send_request(request, ends).map_err(Failed::Ended)?;
        self.opens = true;
        Ok(opened)
    }

    /// Ready when its stream is open, or cannot be. Of those that wait on a stream the library wakes only one.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.opens {
            // The stream itself says what it has come to.
            let _ = ready!(self.requests.poll_ready(cx));
            self.opens = false;
        }
        Poll::Ready(())
    }

    /// What is known of the other end.
    pub(super) fn peer(&self) -> Rc<Peer> {
        self.sender.peer.clone()
    }
}

impl Drop for Turn<'_> {
    /// A stream that is given up before it is open the library keeps for as long as nobody asks for a turn.
    fn drop(&mut self) {
        if self.opens {
            let sender = self.sender.clone();
            spawn_local(async move { drop(sender.turn().await) });
        }
    }
}
