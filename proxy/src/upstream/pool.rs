//! A worker's connections to one endpoint. Nothing here is locked: a pool lives on one thread.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use hyper::client::conn::{http1, http2};
use selvedge_policies::reason::Reason;
use tokio::time::Instant;

use super::connect::{self, Hop, Stream};
use crate::{
    balance::endpoint::Endpoint,
    config::{RuntimeConfig, Transport},
    error::Error,
    http::{Body, case::Spellings},
    tls::TlsContext,
};

/// An idle HTTP/1 connection to an application is not used after this time: servers close idle connections after
/// 5 s and more, and a request sent into a closing connection fails.
const IDLE_PLAIN: Duration = Duration::from_secs(4);
/// The same between sidecars, which close them after a minute.
const IDLE_MESH: Duration = Duration::from_secs(50);
/// Idle HTTP/1 connections kept.
const IDLE_MAX: usize = 256;

/// Connections to one endpoint. Those that stand on older credentials, of either side, are not used for new requests:
/// whom the mesh no longer trusts must not be reached, and peers must not see a certificate that has run out.
#[derive(Default)]
pub struct Pool {
    http2: RefCell<Option<Shared>>,
    /// Held while one task dials the shared connection; the others wait for its result.
    dialing: tokio::sync::Mutex<()>,
    dials_failed: Cell<u64>,
    last_failure: RefCell<Option<(Reason, String)>>,
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

/// The HTTP/2 connection that all requests share.
struct Shared {
    sender: http2::SendRequest<Body>,
    standing: Standing,
}

/// Idle HTTP/1 connections, the latest used last.
type Idle = RefCell<Vec<(Lease, Instant)>>;

/// An HTTP/1 connection in use. It goes back to its pool when the response has been read to its end.
#[derive(Debug)]
pub struct Lease {
    /// The connection.
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
    pub fn give_back(self) {
        if let Some(idle) = self.home.upgrade().filter(|_| !self.sender.is_closed()) {
            let mut idle = idle.borrow_mut();
            if idle.len() < IDLE_MAX {
                idle.push((Self { reused: true, ..self }, Instant::now()));
            }
        }
    }
}

impl Pool {
    /// The shared HTTP/2 connection, dialled when there is none.
    pub async fn http2(&self, endpoint: &Endpoint, config: &RuntimeConfig) -> Result<http2::SendRequest<Body>, Error> {
        if let Some(sender) = self.live(endpoint, config) {
            return Ok(sender);
        }
        let failures = self.dials_failed.get();
        let _turn = self.dialing.lock().await;
        if let Some(sender) = self.live(endpoint, config) {
            return Ok(sender);
        }
        if self.dials_failed.get() != failures
            && let Some((reason, detail)) = self.last_failure.borrow().clone()
        {
            return Err(connect::failure(reason, detail));
        }
        match dial_http2(endpoint, config).await {
            Ok((sender, standing)) => {
                *self.http2.borrow_mut() = Some(Shared { sender: sender.clone(), standing });
                Ok(sender)
            }
            Err(error) => {
                self.dials_failed.set(failures + 1);
                *self.last_failure.borrow_mut() = Some((error.reason, error.detail.to_string()));
                Err(error)
            }
        }
    }

    /// True once after the endpoint has closed the shared connection, as it does when it is about to stop.
    pub fn was_left(&self) -> bool {
        self.http2.borrow_mut().take_if(|shared| shared.sender.is_closed()).is_some()
    }

    /// An HTTP/1 connection: an idle one that is still open, or a new one.
    pub async fn http1(&self, endpoint: &Endpoint, config: &RuntimeConfig) -> Result<Lease, Error> {
        let limit = if matches!(endpoint.config.transport, Transport::Mesh { .. }) { IDLE_MESH } else { IDLE_PLAIN };
        while let Some((lease, since)) = self.take_idle() {
            // One that is not ready may still be sending the body of a request that was answered early: another
            // caller's pace, which nobody else should wait for.
            if since.elapsed() < limit && lease.sender.is_ready() && lease.standing.holds(endpoint, config) {
                return Ok(lease);
            }
        }
        let stream = connect::stream(&endpoint.config, config, Hop::Http1).await?;
        let standing = Standing::of(&stream, endpoint, config);
        let (sender, spellings) = connect::http1(stream).await?;
        Ok(Lease { sender, spellings, reused: false, standing, home: Rc::downgrade(&self.idle) })
    }

    /// Closes idle HTTP/1 connections that are too old, so that they do not wait for a request to be found out.
    pub fn sweep(&self) {
        self.idle.borrow_mut().retain(|(lease, since)| !lease.sender.is_closed() && since.elapsed() < IDLE_MESH);
    }

    /// Mean payload of recent responses in bytes; tells bulk services from chatty ones.
    pub const fn mean_response(&self) -> u64 {
        self.mean_response.get()
    }

    /// Takes one response's payload into the mean (weight 1/8).
    pub fn observe_response(&self, bytes: u64) {
        let mean = self.mean_response.get();
        self.mean_response.set(mean - mean / 8 + bytes / 8);
    }

    fn live(&self, endpoint: &Endpoint, config: &RuntimeConfig) -> Option<http2::SendRequest<Body>> {
        let shared = self.http2.borrow();
        let live = |shared: &&Shared| !shared.sender.is_closed() && shared.standing.holds(endpoint, config);
        shared.as_ref().filter(live).map(|shared| shared.sender.clone())
    }

    fn take_idle(&self) -> Option<(Lease, Instant)> {
        self.idle.borrow_mut().pop()
    }
}

fn credentials<'a>(endpoint: &Endpoint, config: &'a RuntimeConfig) -> Option<&'a Arc<TlsContext>> {
    config.tls.as_ref().filter(|_| matches!(endpoint.config.transport, Transport::Mesh { .. }))
}

impl Standing {
    fn of(stream: &Stream, endpoint: &Endpoint, config: &RuntimeConfig) -> Self {
        let credentials = credentials(endpoint, config).cloned();
        let until = credentials.as_ref().and_then(|_| connect::until(stream));
        Self { credentials, until }
    }

    /// Whether both ends still stand on what the connection was made with.
    fn holds(&self, endpoint: &Endpoint, config: &RuntimeConfig) -> bool {
        self.credentials.as_ref().map(Arc::as_ptr) == credentials(endpoint, config).map(Arc::as_ptr)
            && self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle.borrow().len()).finish_non_exhaustive()
    }
}

async fn dial_http2(
    endpoint: &Endpoint,
    config: &RuntimeConfig,
) -> Result<(http2::SendRequest<Body>, Standing), Error> {
    let stream: Stream = connect::stream(&endpoint.config, config, Hop::Http2).await?;
    let standing = Standing::of(&stream, endpoint, config);
    Ok((connect::http2(stream).await?, standing))
}
