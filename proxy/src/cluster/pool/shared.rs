//! Connections that many requests share, of HTTP/2 or of frames. One is enough for as many streams as its endpoint takes; requests beyond
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
use selvedge_policies::reason::Reason;
use tokio::time::Instant;

use super::{
    super::connect::{self, Hop},
    Pool, Standing,
};
use crate::{
    config::{EndpointConfig, Transport, Trust},
    error::Error,
    frames::{CONNECTION_WINDOW, MAX_STREAMS, STREAM_WINDOW},
    http::{Windows, guard::MaxStreams, http2, link},
};

/// Connections to one endpoint; when all of them are full, requests wait for a stream.
const CONNECTIONS: usize = 32;
/// Tunnels on one connection, which carries nothing else then. A reader that stalls keeps a stream's window of the
/// connection's for as long as it likes: so many cannot stop one another, and none can stop a request.
const TUNNELS: u32 = 32;
const _: () = assert!(TUNNELS as usize * STREAM_WINDOW < CONNECTION_WINDOW);
/// How often one request has a connection made that is closed, or full, before its turn comes.
const DIALS: u32 = 3;
/// A connection that nobody has used for so long is closed: it costs both ends its memory and a PING now and then. Longer
/// than a minute, so that who calls once a minute, as scrapers do, pays no handshake each time.
const IDLE: Duration = Duration::from_secs(90);

/// The shared connections to one endpoint.
#[derive(Default)]
pub(crate) struct Shared {
    connections: RefCell<Vec<Connection>>,
    /// The connection that is being made, for requests and for tunnels. It does not end with the request that began it: the next
    /// one needs it too.
    dials: RefCell<[Option<Dial>; 2]>,
}

type Dial = Joint<LocalBoxFuture<'static, Result<(), (Reason, Arc<str>)>>>;

struct Connection {
    speaks: Speaks,
    carries: Carries,
    standing: Standing,
    streams: Rc<Cell<u32>>,
    /// Since when nobody was seen to use it.
    idle: Cell<Option<Instant>>,
    /// As the endpoint says, which it may do again at any time.
    max_streams: MaxStreams,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// Requests, each of which has an end.
    Requests,
    /// What requests have become.
    Tunnels,
}

/// What is spoken on a connection.
enum Speaks {
    Http2(http2::Caller),
    Frames(link::Caller),
}

/// Sends one request on a shared connection.
pub(crate) enum Sender {
    /// Over HTTP/2.
    Http2(http2::Sender),
    /// Over frames.
    Frames(link::Sender),
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
        (hop, carries): (Hop, Carries),
    ) -> Result<(Sender, Place), Error> {
        let shared = &pool.shared;
        for _ in 0..DIALS {
            if let Some(place) = shared.find(endpoint, trust, carries, false) {
                return Ok(place);
            }
            let dial = {
                let mut dials = shared.dials.borrow_mut();
                dials[carries as usize].get_or_insert_with(|| begin(pool, endpoint, trust, (hop, carries))).clone()
            };
            if let Err((reason, detail)) = dial.await {
                // Where there is a connection, waiting for a stream is better than failing.
                let crowded = shared.find(endpoint, trust, carries, true);
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
        connections.retain(|connection| !connection.speaks.is_closed());
        connections.len() < before
    }

    /// Gives up connections that nobody uses: the first, which is warm for the next request, after a while. This side
    /// dialled them, and it alone knows that no request is on its way.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut connections = self.connections.borrow_mut();
        let mut first = [true; 2];
        connections.retain(|connection| match std::mem::take(&mut first[connection.carries as usize]) {
            true => !connection.is_idle(now),
            false => connection.streams.get() > 0,
        });
    }

    /// How many connections are open, and how many streams on them.
    pub(crate) fn open(&self) -> (u64, u64) {
        let connections = self.connections.borrow();
        let open = connections.iter().filter(|connection| !connection.speaks.is_closed());
        open.fold((0, 0), |(open, streams), connection| (open + 1, streams + u64::from(connection.streams.get())))
    }

    /// A place on the first connection with room; on the emptiest when there is to be no other, or may be none.
    fn find(
        &self,
        endpoint: &EndpointConfig,
        trust: &Trust,
        carries: Carries,
        crowded: bool,
    ) -> Option<(Sender, Place)> {
        let connections = self.connections.borrow();
        let all = || connections.iter().filter(|connection| connection.carries == carries);
        let live = || all().filter(|c| !c.speaks.is_closed() && c.standing.holds(endpoint, trust));
        let found = live().find(|connection| connection.streams.get() < connection.most());
        let crowded = crowded || all().count() >= CONNECTIONS;
        let found = found.or_else(|| live().min_by_key(|connection| connection.streams.get()).filter(|_| crowded))?;
        found.streams.update(|streams| streams + 1);
        found.idle.take();
        Some((found.speaks.sender(), Place(found.streams.clone())))
    }
}

impl Speaks {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http2(caller) => caller.is_closed(),
            Self::Frames(caller) => caller.is_closed(),
        }
    }

    fn sender(&self) -> Sender {
        match self {
            Self::Http2(caller) => Sender::Http2(caller.sender()),
            Self::Frames(caller) => Sender::Frames(caller.sender()),
        }
    }
}

impl Connection {
    /// How many streams there may be.
    fn most(&self) -> u32 {
        match self.carries {
            Carries::Requests => self.max_streams.get(),
            Carries::Tunnels => self.max_streams.get().min(TUNNELS),
        }
    }

    /// Whether nobody has used it for long, as far as was looked.
    fn is_idle(&self, now: Instant) -> bool {
        let since = self.idle.take().filter(|_| self.streams.get() == 0);
        self.idle.set((self.streams.get() == 0).then(|| since.unwrap_or(now)));
        since.is_some_and(|since| now - since >= IDLE)
    }
}

/// Begins to dial on this worker, whoever waits for it.
fn begin(pool: &Rc<Pool>, endpoint: &Arc<EndpointConfig>, trust: &Arc<Trust>, (hop, carries): (Hop, Carries)) -> Dial {
    let (pool, endpoint, trust) = (pool.clone(), endpoint.clone(), trust.clone());
    let dial = async move {
        let dialled = dial(&endpoint, &trust, (hop, carries)).await;
        let shared = &pool.shared;
        shared.dials.borrow_mut()[carries as usize].take();
        let connection = dialled.map_err(|error| (error.reason, Arc::from(&*error.detail)))?;
        let mut connections = shared.connections.borrow_mut();
        connections.retain(|old| !old.speaks.is_closed() && old.standing.holds(&endpoint, &trust));
        connections.push(connection);
        Ok(())
    };
    let dial = dial.boxed_local().shared();
    tokio::task::spawn_local(dial.clone().map(drop));
    dial
}

async fn dial(endpoint: &EndpointConfig, trust: &Trust, (hop, carries): (Hop, Carries)) -> Result<Connection, Error> {
    let stream = connect::stream(endpoint, trust, hop).await?;
    let standing = Standing::of(&stream, endpoint, trust);
    // A sidecar takes as many as there may be; what an application takes is known when it has said so.
    let mesh = matches!(endpoint.transport, Transport::Mesh { .. });
    let assumed = if mesh { MaxStreams::many() } else { MaxStreams::default() };
    let speaks = if connect::takes_frames(&stream) {
        assumed.learn(u32::try_from(MAX_STREAMS).unwrap_or(u32::MAX));
        Speaks::Frames(link::Caller::new(stream))
    } else {
        let windows = if endpoint.transport == Transport::Plain { Windows::NEAR } else { Windows::FAR };
        Speaks::Http2(connect::http2(stream, windows, assumed.clone()).await?)
    };
    Ok(Connection { speaks, carries, standing, streams: Rc::default(), idle: Cell::default(), max_streams: assumed })
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
            let asks = async || Shared::place(&pool, &endpoint, &trust, (Hop::Http2, Carries::Requests)).await.unwrap();
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

    #[test]
    fn tunnels_share_connections_that_no_request_waits_on() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(async {
            let (endpoint, _ended) = listens().await;
            let (pool, trust) = (Rc::<Pool>::default(), Arc::default());
            let asks = async |carries| Shared::place(&pool, &endpoint, &trust, (Hop::Http2, carries)).await.unwrap();
            let mut tunnels = Vec::new();
            for _ in 0..=TUNNELS {
                tunnels.push(asks(Carries::Tunnels).await);
            }
            let _request = asks(Carries::Requests).await;
            let connections = pool.shared.connections.borrow();
            let open = connections.iter().map(|connection| (connection.carries, connection.streams.get()));
            let wanted = [(Carries::Tunnels, TUNNELS), (Carries::Tunnels, 1), (Carries::Requests, 1)];
            assert_eq!(open.collect::<Vec<_>>(), wanted);
        });
    }
}
