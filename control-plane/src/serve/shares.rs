//! What the workloads of one identity hold together, so that one certificate does not take the memory of all: quotas.
//!
//! The limits are far above what the many pods of a deployment need, which share an identity. Whoever is over one of
//! them is told which; a connection too many can still renew its certificate.

use std::sync::Arc;

use selvedge_policies::facts::Identity;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::table::Table;

/// Bytes of responses that a stream makes room for before they are made: one of each kind.
const ROOM: u32 = 4 << 20;

/// The limits; the defaults are the documentation (`docs/control-plane.md`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections of one identity.
    pub(super) connections: usize,
    /// Discovery streams of one connection; a sidecar needs one.
    pub(super) streams: usize,
    /// Bytes that the names subscribed to by all connections of one identity may take
    /// ([`weight`](selvedge_xds::server::Stream::weight)): those of 20 000 sidecars with 180 names each.
    pub(super) names: usize,
    /// Bytes of responses to connections of one identity that the transport has not taken yet.
    pub(super) responses: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 25_000, streams: 2, names: 1 << 30, responses: 256 << 20 }
    }
}

/// A limit that is reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("{0} has {1} connections to the control plane, as many as one identity may have")]
    Connections(Identity, usize),
    #[error("this connection has {0} discovery streams, as many as one may have")]
    Streams(usize),
    #[error("the names that connections of {0} subscribe to take {1} MiB, as much as those of one identity may")]
    Names(Identity, usize),
}

/// What each identity holds of what is shared, against its quota.
#[derive(Debug)]
pub(crate) struct Shares {
    limits: Limits,
    shares: Mutex<Table<Identity, Share>>,
}

#[derive(Debug)]
struct Share {
    connections: Arc<Semaphore>,
    names: Arc<Semaphore>,
    responses: Arc<Semaphore>,
}

impl Default for Shares {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Shares {
    fn new(limits: Limits) -> Self {
        Self { limits, shares: Mutex::default() }
    }

    /// A place for one more connection of `identity`; it is taken until the value is dropped.
    pub(super) async fn enter(&self, identity: &Identity) -> Result<Place, Full> {
        let limits = self.limits;
        let mut shares = self.shares.lock().await;
        let share = shares.get(identity.clone(), || Share {
            connections: Arc::new(Semaphore::new(limits.connections)),
            names: Arc::new(Semaphore::new(limits.names)),
            responses: Arc::new(Semaphore::new(limits.responses)),
        });
        let connection = Arc::clone(&share.connections).try_acquire_owned();
        let _connection = connection.map_err(|_| self.no_place(identity))?;
        let streams = Arc::new(Semaphore::new(limits.streams));
        Ok(Place { _connection, share: Arc::clone(share), streams, identity: identity.clone(), limits })
    }

    /// What to say to a connection of `identity` that got no place.
    pub(super) fn no_place(&self, identity: &Identity) -> Full {
        Full::Connections(identity.clone(), self.limits.connections)
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(crate) struct Place {
    _connection: OwnedSemaphorePermit,
    share: Arc<Share>,
    streams: Arc<Semaphore>,
    identity: Identity,
    limits: Limits,
}

impl Place {
    /// A place for one more discovery stream.
    pub(super) fn stream(self: &Arc<Self>) -> Result<Held, Full> {
        let stream = Arc::clone(&self.streams).try_acquire_owned();
        let _stream = stream.map_err(|_| Full::Streams(self.limits.streams))?;
        Ok(Held { _stream, names: self.names(0)?, place: Arc::clone(self) })
    }

    fn names(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Full> {
        let full = || Full::Names(self.identity.clone(), self.limits.names >> 20);
        let bytes = u32::try_from(bytes).map_err(|_| full())?;
        Arc::clone(&self.share.names).try_acquire_many_owned(bytes).map_err(|_| full())
    }
}

/// What one discovery stream holds.
#[derive(Debug)]
pub(super) struct Held {
    _stream: OwnedSemaphorePermit,
    names: OwnedSemaphorePermit,
    place: Arc<Place>,
}

impl Held {
    /// The names of the stream take this many bytes now.
    pub(super) fn weigh(&mut self, bytes: usize) -> Result<(), Full> {
        let held = self.names.num_permits();
        if bytes > held {
            self.names.merge(self.place.names(bytes - held)?);
        } else {
            drop(self.names.split(held - bytes));
        }
        Ok(())
    }

    /// Waits, after others that came before, for room for the next responses.
    pub(super) async fn room(&self) -> Room {
        // A semaphore that is never closed gives a permit in the end.
        Room(Arc::clone(&self.place.share.responses).acquire_many_owned(ROOM).await.ok())
    }
}

/// Room for responses; it is free again when the value is dropped.
#[derive(Debug)]
pub(super) struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    /// Keeps what so many bytes need, and gives back the rest.
    pub(super) fn keep(&mut self, bytes: usize) {
        if let Some(room) = &mut self.0 {
            drop(room.split(room.num_permits().saturating_sub(bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LIMITS: Limits = Limits { connections: 3, streams: 2, names: 5 << 20, responses: 5 << 20 };

    fn identity(name: &str) -> Identity {
        Identity::new("mesh.local", "shop", name).unwrap()
    }

    #[tokio::test]
    async fn an_identity_has_so_many_connections_and_others_have_theirs() {
        let shares = Shares::new(LIMITS);
        let web = identity("web");
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(shares.enter(&web).await.unwrap());
        }
        let full = shares.enter(&web).await.unwrap_err();
        assert!(full.to_string().starts_with("spiffe://mesh.local/ns/shop/sa/web has 3 connections"), "{full}");
        shares.enter(&identity("api")).await.unwrap();
        places.pop();
        shares.enter(&web).await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_has_so_many_streams() {
        let place = Arc::new(Shares::new(LIMITS).enter(&identity("web")).await.unwrap());
        let streams = [place.stream().unwrap(), place.stream().unwrap()];
        assert_eq!(place.stream().unwrap_err(), Full::Streams(2));
        drop(streams);
        place.stream().unwrap();
    }

    #[tokio::test]
    async fn names_of_all_connections_of_an_identity_count_together_until_they_are_given_up() {
        let shares = Shares::new(LIMITS);
        let enter = async |name| Arc::new(shares.enter(&identity(name)).await.unwrap());
        let (one, other, stranger) = (enter("web").await, enter("web").await, enter("api").await);
        let (mut first, mut second) = (one.stream().unwrap(), other.stream().unwrap());
        first.weigh(3 << 20).unwrap();
        second.weigh(2 << 20).unwrap();
        let full = second.weigh((2 << 20) + 1).unwrap_err();
        assert!(full.to_string().contains("sa/web subscribe to take 5 MiB"), "{full}");
        stranger.stream().unwrap().weigh(5 << 20).unwrap();
        first.weigh(1 << 20).unwrap();
        second.weigh(4 << 20).unwrap();
        drop(second);
        first.weigh(5 << 20).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn responses_wait_until_others_of_the_identity_are_read() {
        let shares = Shares::new(LIMITS);
        let (one, other) =
            (shares.enter(&identity("web")).await.unwrap(), shares.enter(&identity("web")).await.unwrap());
        let (one, other) = (Arc::new(one).stream().unwrap(), Arc::new(other).stream().unwrap());
        let mut unread = one.room().await;
        unread.keep(2 << 20);
        let wait = Duration::from_secs(1);
        assert!(timeout(wait, other.room()).await.is_err(), "2 of 5 MiB are unread, and 4 might be sent");
        let api = Arc::new(shares.enter(&identity("api")).await.unwrap()).stream().unwrap();
        timeout(wait, api.room()).await.expect("another identity has room of its own");
        drop(unread);
        timeout(wait, other.room()).await.expect("all is read");
    }
}
