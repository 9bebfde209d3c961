//! A worker's connections to one endpoint. Nothing here is locked: a pool lives on one thread.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
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
};

/// An idle HTTP/1 connection to an application is not used after this time: servers close idle connections after
/// 5 s and more, and a request sent into a closing connection fails.
const IDLE_PLAIN: Duration = Duration::from_secs(4);
/// The same between sidecars, which keep idle connections for minutes.
const IDLE_MESH: Duration = Duration::from_secs(60);
/// Idle HTTP/1 connections kept.
const IDLE_MAX: usize = 256;

/// Connections to one endpoint.
#[derive(Default)]
pub struct Pool {
    http2: RefCell<Option<http2::SendRequest<Body>>>,
    /// Held while one task dials the shared connection; the others wait for its result.
    dialing: tokio::sync::Mutex<()>,
    dials_failed: Cell<u64>,
    last_failure: RefCell<Option<(Reason, String)>>,
    idle: Rc<Idle>,
    mean_response: Cell<u64>,
}

/// Idle HTTP/1 connections, the latest used last.
type Idle = RefCell<Vec<(http1::SendRequest<Body>, Spellings, Instant)>>;

/// An HTTP/1 connection in use. It goes back to its pool when the response has been read to its end.
#[derive(Debug)]
pub struct Lease {
    /// The connection.
    pub sender: http1::SendRequest<Body>,
    /// How the names of its responses are written.
    pub spellings: Spellings,
    /// True when it has served a request before.
    pub reused: bool,
    home: Weak<Idle>,
}

impl Lease {
    /// Returns the connection to its pool.
    pub fn give_back(self) {
        if let Some(idle) = self.home.upgrade().filter(|_| !self.sender.is_closed()) {
            let mut idle = idle.borrow_mut();
            if idle.len() < IDLE_MAX {
                idle.push((self.sender, self.spellings, Instant::now()));
            }
        }
    }
}

impl Pool {
    /// The shared HTTP/2 connection, dialled when there is none.
    pub async fn http2(&self, endpoint: &Endpoint, config: &RuntimeConfig) -> Result<http2::SendRequest<Body>, Error> {
        if let Some(sender) = self.live() {
            return Ok(sender);
        }
        let failures = self.dials_failed.get();
        let _turn = self.dialing.lock().await;
        if let Some(sender) = self.live() {
            return Ok(sender);
        }
        if self.dials_failed.get() != failures
            && let Some((reason, detail)) = self.last_failure.borrow().clone()
        {
            return Err(connect::failure(reason, detail));
        }
        match dial_http2(endpoint, config).await {
            Ok(sender) => {
                *self.http2.borrow_mut() = Some(sender.clone());
                Ok(sender)
            }
            Err(error) => {
                self.dials_failed.set(failures + 1);
                *self.last_failure.borrow_mut() = Some((error.reason, error.detail.to_string()));
                Err(error)
            }
        }
    }

    /// An HTTP/1 connection: an idle one that is still open, or a new one.
    pub async fn http1(&self, endpoint: &Endpoint, config: &RuntimeConfig) -> Result<Lease, Error> {
        let limit = if matches!(endpoint.config.transport, Transport::Mesh { .. }) { IDLE_MESH } else { IDLE_PLAIN };
        while let Some((mut sender, spellings, since)) = self.take_idle() {
            if since.elapsed() < limit && sender.ready().await.is_ok() {
                return Ok(Lease { sender, spellings, reused: true, home: Rc::downgrade(&self.idle) });
            }
        }
        let stream = connect::stream(&endpoint.config, config, Hop::Http1).await?;
        let (sender, spellings) = connect::http1(stream).await?;
        Ok(Lease { sender, spellings, reused: false, home: Rc::downgrade(&self.idle) })
    }

    /// Closes idle HTTP/1 connections that are too old, so that they do not wait for a request to be found out.
    pub fn sweep(&self) {
        self.idle.borrow_mut().retain(|(sender, _, since)| !sender.is_closed() && since.elapsed() < IDLE_MESH);
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

    fn live(&self) -> Option<http2::SendRequest<Body>> {
        self.http2.borrow().as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    fn take_idle(&self) -> Option<(http1::SendRequest<Body>, Spellings, Instant)> {
        self.idle.borrow_mut().pop()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle.borrow().len()).finish_non_exhaustive()
    }
}

async fn dial_http2(endpoint: &Endpoint, config: &RuntimeConfig) -> Result<http2::SendRequest<Body>, Error> {
    let stream: Stream = connect::stream(&endpoint.config, config, Hop::Http2).await?;
    connect::http2(stream).await
}
