//! A worker's connections to one endpoint. Nothing here is locked: a pool lives on one thread.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use hyper::client::conn::http1;
use tokio::{
    task::spawn_local,
    time::{Instant, sleep},
};

use super::connect::{self, Hop, Stream};
use crate::{
    config::{EndpointConfig, Transport, Trust},
    error::Error,
    http::{Body, case::Spellings},
    tls::TlsContext,
};

mod shared;

pub(crate) use shared::{Carries, Place, Sender, Shared};

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

/// Idle HTTP/1 connections.
#[derive(Default)]
struct Idle {
    /// The latest used last.
    leases: RefCell<Vec<(Lease, Instant)>>,
    /// Somebody closes those that are too old.
    watched: Cell<bool>,
}

/// What a request holds while it and its response are under way.
#[derive(Debug)]
pub(crate) enum Held {
    /// An HTTP/1 connection, which nobody else uses meanwhile.
    Http1(Lease),
    /// A place on a shared connection.
    Shared(#[expect(dead_code, reason = "it is taken for as long as it lives")] Place),
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
            let mut leases = idle.leases.borrow_mut();
            if leases.len() < IDLE_MAX {
                leases.push((Self { reused: true, ..self }, Instant::now()));
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
        let (sender, spellings) = Box::pin(connect::http1(stream)).await?;
        if !self.idle.watched.replace(true) {
            spawn_local(watch(Rc::downgrade(&self.idle), limit));
        }
        Ok(Lease { sender, spellings, reused: false, standing, home: Rc::downgrade(&self.idle) })
    }

    /// Closes the idle HTTP/1 connections: one of them turned out to be dead, so the others are likely to be, too.
    pub(crate) fn distrust(&self) {
        self.idle.leases.borrow_mut().clear();
    }

    /// How many HTTP/1 connections are idle.
    pub(crate) fn idle(&self) -> u64 {
        self.idle.leases.borrow().len() as u64
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
        self.idle.leases.borrow_mut().pop()
    }
}

/// Closes idle connections that nobody may use any more, for as long as there is any connection: each is two buffers and a
/// socket, and a burst leaves many.
async fn watch(pool: Weak<Idle>, limit: Duration) {
    loop {
        sleep(limit).await;
        let Some(idle) = pool.upgrade() else { return };
        idle.leases.borrow_mut().retain(|(lease, since)| !lease.sender.is_closed() && since.elapsed() < limit);
        // Every lease knows its way home, as does whoever watches.
        if Weak::weak_count(&pool) == 1 {
            idle.watched.set(false);
            return;
        }
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
        f.debug_struct("Pool").field("idle", &self.idle.leases.borrow().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener, task::yield_now};

    use super::*;

    /// An application that says nothing: where it is, and how many connections to it are open.
    async fn listens() -> (EndpointConfig, Rc<Cell<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, open) = (listener.local_addr().unwrap(), Rc::<Cell<usize>>::default());
        let counted = open.clone();
        spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let counted = counted.clone();
                counted.update(|open| open + 1);
                spawn_local(async move {
                    while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
                    counted.update(|open| open - 1);
                });
            }
        });
        let config = EndpointConfig {
            cluster: None,
            address,
            transport: Transport::Plain,
            workload: None,
            identity: String::new(),
            weight: 1,
            http2: false,
            traffic: Arc::default(),
        };
        (config, open)
    }

    #[test]
    fn what_a_burst_leaves_is_closed_within_seconds_and_what_is_in_use_is_not() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build_local(Default::default()).unwrap().block_on(async {
            let (endpoint, open) = listens().await;
            let (pool, trust) = (Pool::default(), Trust::default());
            let settled = async |expected: usize| {
                for _ in 0..100_000 {
                    if open.get() == expected {
                        break;
                    }
                    yield_now().await;
                }
                assert_eq!(open.get(), expected);
            };
            for _ in 0..2 {
                let asks = async || pool.http1(&endpoint, &trust).await.unwrap();
                let (first, second, busy) = (asks().await, asks().await, asks().await);
                settled(3).await;
                first.give_back();
                second.give_back();
                sleep(2 * IDLE_PLAIN).await;
                settled(1).await;
                busy.give_back();
                sleep(2 * IDLE_PLAIN).await;
                settled(0).await;
                assert!(!pool.idle.watched.get(), "nothing is left to be closed");
            }
        });
    }
}
