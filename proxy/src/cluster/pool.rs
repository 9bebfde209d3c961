//! A worker's connections to one endpoint. Nothing here is locked: a pool lives on one thread.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use hyper::client::conn::http1;
use tokio::time::Instant;

use super::connect::{self, Hop, Stream};
use crate::{
    config::{EndpointConfig, Transport, Trust},
    error::Error,
    http::{Body, case::Spellings},
    tls::TlsContext,
};

mod shared;

pub(crate) use shared::{Place, Shared};

/// An idle HTTP/1 connection to an application is not used after this time: servers close idle connections after
/// 5 s and more, and a request sent into a closing connection fails.
const IDLE_PLAIN: Duration = Duration::from_secs(4);
/// As [`IDLE_PLAIN`], between sidecars, which close idle connections after a minute.
const IDLE_MESH: Duration = Duration::from_secs(50);
/// Idle HTTP/1 connections kept.
const IDLE_MAX: usize = 256;

/// Connections to one endpoint. Those that stand on older credentials, of either side, are not used for new requests:
/// whom the mesh no longer trusts must not be reached, and peers must not see a certificate that has run out.
#[derive(Default)]
pub(crate) struct Pool {
    /// The HTTP/2 connections, which many requests share.
    pub shared: Shared,
    idle: Rc<Idle>,
    mean_response: Cell<u64>,
}

/// What a connection was made with.
#[derive(Debug)]
struct Standing {
    /// Our credentials; `None` outside the mesh.
    credentials: Option<Arc<TlsContext>>,
    /// When the peer should have a newer certificate than it had.
    until: Option<Instant>,
}

/// Idle HTTP/1 connections, the latest used last.
type Idle = RefCell<Vec<(Lease, Instant)>>;

/// What a request holds while it and its response are under way.
#[derive(Debug)]
pub(crate) enum Held {
    /// An HTTP/1 connection, which nobody else uses meanwhile.
    Http1(Lease),
    /// A place on a shared HTTP/2 connection.
    Http2(#[expect(dead_code, reason = "it is taken for as long as it lives")] Place),
}

/// An HTTP/1 connection in use. It goes back to its pool when the response has been read to its end.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Sends requests on the connection, one at a time.
    pub sender: http1::SendRequest<Body>,
    /// How the names of its responses are written.
    pub spellings: Spellings,
    /// True when it has served a request before.
    pub reused: bool,
    standing: Standing,
    home: Weak<Idle>,
}

impl Lease {
    /// Returns the connection to its pool.
    pub(crate) fn give_back(self) {
        if let Some(idle) = self.home.upgrade().filter(|_| !self.sender.is_closed()) {
            let mut idle = idle.borrow_mut();
            if idle.len() < IDLE_MAX {
                idle.push((Self { reused: true, ..self }, Instant::now()));
            }
        }
    }
}

impl Pool {
    /// An HTTP/1 connection: an idle one that is still open, or a new one.
    pub(crate) async fn http1(&self, endpoint: &EndpointConfig, trust: &Trust) -> Result<Lease, Error> {
        let limit = if matches!(endpoint.transport, Transport::Mesh { .. }) { IDLE_MESH } else { IDLE_PLAIN };
        while let Some((lease, since)) = self.take_idle() {
            // One that is not ready may still be sending the body of a request that was answered early: another
            // caller's pace, which nobody else should wait for.
            if since.elapsed() < limit && lease.sender.is_ready() && lease.standing.holds(endpoint, trust) {
                return Ok(lease);
            }
        }
        // Boxed: a handshake is large and rare, and every request would carry the room for it.
        let stream = Box::pin(connect::stream(endpoint, trust, Hop::Http1)).await?;
        let standing = Standing::of(&stream, endpoint, trust);
        let (sender, spellings) = connect::http1(stream).await?;
        Ok(Lease { sender, spellings, reused: false, standing, home: Rc::downgrade(&self.idle) })
    }

    /// Closes idle connections that are too old or too many, so that they do not wait for a request to be found out.
    pub(crate) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|(lease, since)| !lease.sender.is_closed() && now - *since < IDLE_MESH);
        self.shared.sweep(now);
    }

    /// Closes the idle HTTP/1 connections: one of them turned out to be dead, so the others are likely to be, too.
    pub(crate) fn distrust(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Mean payload of recent responses in bytes; tells bulk services from chatty ones.
    pub(crate) const fn mean_response(&self) -> u64 {
        self.mean_response.get()
    }

    /// Takes one response's payload into the mean (weight 1/8).
    pub(crate) fn observe_response(&self, bytes: u64) {
        let mean = self.mean_response.get();
        self.mean_response.set(mean - mean / 8 + bytes / 8);
    }

    fn take_idle(&self) -> Option<(Lease, Instant)> {
        self.idle.borrow_mut().pop()
    }
}

fn credentials<'a>(endpoint: &EndpointConfig, trust: &'a Trust) -> Option<&'a Arc<TlsContext>> {
    trust.mesh.as_ref().filter(|_| matches!(endpoint.transport, Transport::Mesh { .. }))
}

impl Standing {
    fn of(stream: &Stream, endpoint: &EndpointConfig, trust: &Trust) -> Self {
        let credentials = credentials(endpoint, trust).cloned();
        let until = credentials.as_ref().and_then(|_| connect::until(stream));
        Self { credentials, until }
    }

    /// Whether both ends still stand on what the connection was made with.
    fn holds(&self, endpoint: &EndpointConfig, trust: &Trust) -> bool {
        self.credentials.as_ref().map(Arc::as_ptr) == credentials(endpoint, trust).map(Arc::as_ptr)
            && self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle.borrow().len()).finish_non_exhaustive()
    }
}
