//! HTTP/2 connections that many requests share. One is enough for as many streams as its endpoint takes; requests beyond
//! that would wait for others to end, which a few long ones never do, so they get another connection.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared as Joint},
};
use hyper::client::conn::http2;
use selvedge_policies::reason::Reason;
use tokio::time::Instant;

use super::{
    super::connect::{self, Hop},
    Pool, Standing,
};
use crate::{
    config::{EndpointConfig, Transport, Trust},
    error::Error,
    http::{Body, guard::MaxStreams},
};

/// Connections to one endpoint; when all of them are full, requests wait for a stream.
const CONNECTIONS: usize = 32;
/// How often one request has a connection made that is closed, or full, before its turn comes.
const DIALS: u32 = 3;
/// A connection that nobody has used for so long is closed: it costs both ends its memory and a PING now and then. Longer
/// than a minute, so that who calls once a minute, as scrapers do, pays no handshake each time.
const IDLE: Duration = Duration::from_secs(90);

/// The shared connections to one endpoint.
#[derive(Default)]
pub(crate) struct Shared {
    connections: RefCell<Vec<Connection>>,
    /// The connection that is being made. It does not end with the request that began it: the next one needs it too.
    dial: RefCell<Option<Dial>>,
}

type Dial = Joint<LocalBoxFuture<'static, Result<(), (Reason, Arc<str>)>>>;

struct Connection {
    sender: http2::SendRequest<Body>,
    standing: Standing,
    streams: Rc<Cell<u32>>,
    /// Since when nobody was seen to use it.
    idle: Cell<Option<Instant>>,
    /// As the endpoint says, which it may do again at any time.
    max_streams: MaxStreams,
}

/// One stream's place on a connection, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Rc<Cell<u32>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.update(|streams| streams.saturating_sub(1));
    }
}

impl Shared {
    /// A connection to `endpoint` and a place on it. One is dialled when none has room.
    ///
    /// # Errors
    /// Why there is no connection; always safe to try again elsewhere.
    pub(crate) async fn place(
        pool: &Rc<Pool>,
        endpoint: &Arc<EndpointConfig>,
        trust: &Arc<Trust>,
    ) -> Result<(http2::SendRequest<Body>, Place), Error> {
        let shared = &pool.shared;
        for _ in 0..DIALS {
            if let Some(place) = shared.find(endpoint, trust, false) {
                return Ok(place);
            }
            let dial = shared.dial.borrow_mut().get_or_insert_with(|| begin(pool, endpoint, trust)).clone();
            if let Err((reason, detail)) = dial.await {
                // Where there is a connection, waiting for a stream is better than failing.
                let crowded = shared.find(endpoint, trust, true);
                return crowded.ok_or_else(|| connect::failure(reason, detail.to_string()));
            }
        }
        let detail = format!("{} closed each connection as soon as it was made", endpoint.address);
        Err(connect::failure(Reason::UpstreamConnectFailed, detail))
    }

    /// True once after the endpoint has closed a connection, as it does when it is about to stop.
    pub(crate) fn was_left(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let before = connections.len();
        connections.retain(|connection| !connection.sender.is_closed());
        connections.len() < before
    }

    /// Gives up connections that nobody uses: the first, which is warm for the next request, after a while. This side
    /// dialled them, and it alone knows that no request is on its way.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut connections = self.connections.borrow_mut();
        let mut first = true;
        connections.retain(|connection| match std::mem::take(&mut first) {
            true => !connection.is_idle(now),
            false => connection.streams.get() > 0,
        });
    }

    /// A place on the first connection with room; on the emptiest when there is to be no other, or may be none.
    fn find(
        &self,
        endpoint: &EndpointConfig,
        trust: &Trust,
        crowded: bool,
    ) -> Option<(http2::SendRequest<Body>, Place)> {
        let connections = self.connections.borrow();
        let live = || {
            let holds = |c: &&Connection| !c.sender.is_closed() && c.standing.holds(endpoint, trust);
            connections.iter().filter(holds)
        };
        let found = live().find(|connection| connection.streams.get() < connection.max_streams.get());
        let crowded = crowded || connections.len() >= CONNECTIONS;
        let found = found.or_else(|| live().min_by_key(|connection| connection.streams.get()).filter(|_| crowded))?;
        found.streams.update(|streams| streams + 1);
        found.idle.take();
        Some((found.sender.clone(), Place(found.streams.clone())))
    }
}

impl Connection {
    /// Whether nobody has used it for long, as far as was looked.
    fn is_idle(&self, now: Instant) -> bool {
        let since = self.idle.take().filter(|_| self.streams.get() == 0);
        self.idle.set((self.streams.get() == 0).then(|| since.unwrap_or(now)));
        since.is_some_and(|since| now - since >= IDLE)
    }
}

/// Begins to dial on this worker, whoever waits for it.
fn begin(pool: &Rc<Pool>, endpoint: &Arc<EndpointConfig>, trust: &Arc<Trust>) -> Dial {
    let (pool, endpoint, trust) = (pool.clone(), endpoint.clone(), trust.clone());
    let dial = async move {
        let dialled = dial(&endpoint, &trust).await;
        let shared = &pool.shared;
        shared.dial.take();
        let connection = dialled.map_err(|error| (error.reason, Arc::from(&*error.detail)))?;
        let mut connections = shared.connections.borrow_mut();
        connections.retain(|old| !old.sender.is_closed() && old.standing.holds(&endpoint, &trust));
        connections.push(connection);
        Ok(())
    };
    let dial = dial.boxed_local().shared();
    tokio::task::spawn_local(dial.clone().map(drop));
    dial
}

async fn dial(endpoint: &EndpointConfig, trust: &Trust) -> Result<Connection, Error> {
    let stream = connect::stream(endpoint, trust, Hop::Http2).await?;
    let standing = Standing::of(&stream, endpoint, trust);
    // A sidecar takes as many as there may be; what an application takes is known when it has said so.
    let mesh = matches!(endpoint.transport, Transport::Mesh { .. });
    let assumed = if mesh { MaxStreams::many() } else { MaxStreams::default() };
    let sender = connect::http2(stream, assumed.clone()).await?;
    Ok(Connection { sender, standing, streams: Rc::default(), idle: Cell::default(), max_streams: assumed })
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener, task::spawn_local};

    use super::*;

    /// An application that speaks HTTP/2 and does no more than listen: the end of its first connection.
    async fn listens() -> (Arc<EndpointConfig>, impl Future<Output = ()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ended = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
        };
        let config = EndpointConfig {
            cluster: None,
            address,
            transport: Transport::Plain,
            workload: None,
            identity: String::new(),
            weight: 1,
            http2: true,
            traffic: Arc::default(),
        };
        (Arc::new(config), ended)
    }

    #[test]
    fn a_connection_is_closed_by_its_dialler_once_nobody_has_used_it_for_long() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(async {
            let (endpoint, ended) = listens().await;
            let (pool, trust, ended) = (Rc::<Pool>::default(), Arc::default(), spawn_local(ended));
            let asks = async || Shared::place(&pool, &endpoint, &trust).await.unwrap();
            let mut now = Instant::now();
            let mut kept_after = |time| {
                now += time;
                pool.shared.sweep(now);
                !pool.shared.connections.borrow().is_empty()
            };
            let asked = asks().await;
            assert!(kept_after(IDLE));
            assert!(kept_after(IDLE), "its request goes on");
            drop(asked);
            assert!(kept_after(IDLE), "it was just seen to be idle");
            drop(asks().await);
            assert!(kept_after(IDLE), "it has been used since");
            assert!(kept_after(IDLE - Duration::from_secs(1)));
            assert!(!kept_after(Duration::from_secs(1)));
            ended.await.unwrap();
        });
    }
}
