//! Admission control: how many connections there may be, so that nobody keeps the sidecars out: in all, from one
//! address, and, much fewer, of those that have proven nothing yet.
//!
//! A burst of honest sidecars waits for its turn and is served; what is over the limits of connections is closed.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::table::Table;

/// Connections at once; more wait in the kernel's queue.
pub(crate) const MAX_CONNECTIONS: usize = 50_000;
/// How long a connection may wait for its handshake.
const TURN: Duration = Duration::from_secs(30);

/// The limits; the defaults are the documentation (`docs/control-plane.md`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections from one address: half of all, because a whole cluster may come from behind one.
    pub(super) per_address: usize,
    /// Connections in the handshake or without a certificate, in all.
    pub(super) strangers: usize,
    /// Of those, how many may come from one address.
    pub(super) strangers_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_address: MAX_CONNECTIONS / 2, strangers: 4096, strangers_per_address: 256 }
    }
}

/// Admission control: the connections that there are, by address, and the places that are left.
#[derive(Debug)]
pub(super) struct Doors {
    limits: Limits,
    strangers: Arc<Semaphore>,
    addresses: Table<IpAddr, Semaphore>,
}

impl Doors {
    pub(super) fn new(limits: Limits) -> Self {
        let strangers = Arc::new(Semaphore::new(limits.strangers));
        Self { limits, strangers, addresses: Table::default() }
    }

    /// Lets a connection in, unless its address has as many as it may. It is inside until the entry is dropped.
    pub(super) fn enter(&mut self, address: IpAddr) -> Option<Entry> {
        let limit = self.limits.strangers_per_address;
        let here = self.addresses.get(place(address), || Semaphore::new(limit));
        // One more than there are entries: the table's own.
        (Arc::strong_count(here) <= self.limits.per_address)
            .then(|| Entry { here: Arc::clone(here), everywhere: Arc::clone(&self.strangers) })
    }
}

/// What counts as one address: that of IPv4, the network of a host of IPv6.
fn place(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// One connection that is inside.
#[derive(Debug)]
pub(super) struct Entry {
    here: Arc<Semaphore>,
    everywhere: Arc<Semaphore>,
}

/// Held while a connection has proven nothing.
#[derive(Debug)]
pub(super) struct Unproven {
    _here: OwnedSemaphorePermit,
    _everywhere: OwnedSemaphorePermit,
}

impl Entry {
    /// Waits until the connection may begin its handshake; `None` when it waited too long.
    pub(super) async fn turn(&self) -> Option<Unproven> {
        let both = async {
            let _here = Arc::clone(&self.here).acquire_owned().await.ok()?;
            let _everywhere = Arc::clone(&self.everywhere).acquire_owned().await.ok()?;
            Some(Unproven { _here, _everywhere })
        };
        timeout(TURN, both).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LIMITS: Limits = Limits { per_address: 5, strangers: 4, strangers_per_address: 3 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_holds_so_many_connections_and_others_are_let_in() {
        let mut doors = Doors::new(LIMITS);
        let inside: Vec<Entry> = (0..5).map_while(|_| doors.enter(ip("10.0.0.1"))).collect();
        assert_eq!(inside.len(), 5);
        assert!(doors.enter(ip("10.0.0.1")).is_none());
        assert!(doors.enter(ip("::ffff:10.0.0.1")).is_none(), "the same in another form");
        assert!(doors.enter(ip("10.0.0.2")).is_some());
        drop(inside);
        assert!(doors.enter(ip("10.0.0.1")).is_some());
        let network: Vec<_> = (0..6).filter_map(|host| doors.enter(ip(&format!("fd00::{host}")))).collect();
        assert_eq!(network.len(), 5, "one host has many addresses of IPv6");
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_wait_for_their_turn_and_do_not_hold_up_another_address() {
        let mut doors = Doors::new(LIMITS);
        let silent: Vec<Entry> = (0..4).map_while(|_| doors.enter(ip("10.0.0.1"))).collect();
        let mut held = Vec::new();
        for entry in &silent[..3] {
            held.push(entry.turn().await.unwrap());
        }
        let began = Instant::now();
        assert!(silent[3].turn().await.is_none());
        assert_eq!(began.elapsed(), TURN);
        let sidecar = doors.enter(ip("10.0.0.2")).unwrap();
        let proven = sidecar.turn().await.expect("another address has its own places");
        drop(proven);
        held.pop();
        assert!(silent[3].turn().await.is_some(), "a place became free");
    }
}
