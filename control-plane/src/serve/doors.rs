//! Admission control: how many connections there may be, so that nobody keeps the sidecars out: in all, from one
//! address, and, much fewer, of those that have proven nothing yet.
//!
//! A burst of honest sidecars waits for its turn and is served; what is over the limits of connections is closed. Of those
//! that have proven nothing, whoever comes gets a place, and the address that has most gives way ([`crowd`](crate::crowd)).

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::table::Table;
use crate::crowd::{Caller, Crowd, SentAway, network};

/// Connections at once; more wait in the kernel's queue.
pub(crate) const MAX_CONNECTIONS: usize = SIDECARS + STRANGERS;
/// Connections that there is always room for beside those that have proven nothing.
const SIDECARS: usize = 50_000;
/// Connections that have proven nothing, those included that wait for their handshake.
const STRANGERS: usize = 8192;
/// How long a connection may wait for its handshake.
const TURN: Duration = Duration::from_secs(30);

/// The limits; the defaults are the documentation (`docs/control-plane.md`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections from one address: half of all, because a whole cluster may come from behind one.
    pub(super) per_address: usize,
    /// Connections without a certificate, in all.
    pub(super) strangers: usize,
    /// Of those, how many from one address may be in the handshake or after it.
    pub(super) strangers_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_address: SIDECARS / 2, strangers: STRANGERS, strangers_per_address: 256 }
    }
}

/// Admission control: the connections that there are, by address, and the places that are left.
#[derive(Debug)]
pub(super) struct Doors {
    limits: Limits,
    strangers: Crowd,
    networks: Table<IpAddr, ()>,
    /// The turns of each address itself: pods of a node are neighbours in one network of IPv6.
    turns: Table<IpAddr, Semaphore>,
}

impl Doors {
    pub(super) fn new(limits: Limits) -> Self {
        let strangers = Crowd::new(limits.strangers);
        Self { limits, strangers, networks: Table::default(), turns: Table::default() }
    }

    /// Lets a connection in, unless its address has as many as it may. It is inside until the entry is dropped, and has to
    /// go when its place is needed, as long as it has proven nothing.
    pub(super) fn enter(&mut self, address: IpAddr) -> Option<(Entry, SentAway)> {
        let here = Arc::clone(self.networks.get(network(address), || ()));
        // One more than there are entries, this one included: the table's own.
        if Arc::strong_count(&here) > self.limits.per_address + 1 {
            return None;
        }
        let limit = self.limits.strangers_per_address;
        let turns = Arc::clone(self.turns.get(address.to_canonical(), || Semaphore::new(limit)));
        let (caller, sent_away) = self.strangers.enter(address);
        Some((Entry { here, turns, caller }, sent_away))
    }
}

/// One connection that is inside.
#[derive(Debug)]
pub(super) struct Entry {
    here: Arc<()>,
    turns: Arc<Semaphore>,
    caller: Caller,
}

/// One connection that has its turn, and has proven nothing.
#[derive(Debug)]
pub(super) struct Unproven {
    here: Arc<()>,
    _turn: OwnedSemaphorePermit,
    _caller: Caller,
}

/// One connection that has proven who it is.
#[derive(Debug)]
pub(super) struct Proven {
    _here: Arc<()>,
}

impl Entry {
    /// Waits until the connection may begin its handshake; `None` when it waited too long.
    pub(super) async fn turn(self) -> Option<Unproven> {
        let turn = timeout(TURN, self.turns.acquire_owned()).await.ok()?.ok()?;
        Some(Unproven { here: self.here, _turn: turn, _caller: self.caller })
    }
}

impl Unproven {
    /// Makes room for the next one that has proven nothing.
    pub(super) fn proven(self) -> Proven {
        Proven { _here: self.here }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot::error::TryRecvError, time::Instant};

    use super::*;

    const LIMITS: Limits = Limits { per_address: 5, strangers: 6, strangers_per_address: 3 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_holds_so_many_connections_and_others_are_let_in() {
        let mut doors = Doors::new(LIMITS);
        let inside: Vec<_> = (0..5).map_while(|_| doors.enter(ip("10.0.0.1"))).collect();
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
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(doors.enter(ip("fd00::1")).unwrap().0.turn().await.unwrap());
        }
        let began = Instant::now();
        assert!(doors.enter(ip("fd00::1")).unwrap().0.turn().await.is_none());
        assert_eq!(began.elapsed(), TURN);
        let neighbour = doors.enter(ip("fd00::2")).unwrap().0;
        let neighbour = neighbour.turn().await.expect("another address has its own turns, also in one network");
        drop(neighbour);
        held.pop();
        assert!(doors.enter(ip("fd00::1")).unwrap().0.turn().await.is_some(), "a place became free");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_proven_nothing_gives_way_and_a_sidecar_does_not() {
        let mut doors = Doors::new(LIMITS);
        let (sidecar, mut needed) = doors.enter(ip("10.0.0.1")).unwrap();
        let sidecar = sidecar.turn().await.unwrap().proven();
        assert_eq!(needed.try_recv(), Err(TryRecvError::Closed), "nobody sends it away any more");
        let mut silent: Vec<_> = (0..3)
            .flat_map(|host| {
                let address = ip(&format!("10.0.1.{host}"));
                [doors.enter(address).unwrap(), doors.enter(address).unwrap()]
            })
            .collect();
        let (joins, mut needed) = doors.enter(ip("10.0.2.1")).unwrap();
        let _joins = joins.turn().await.unwrap();
        assert_eq!(needed.try_recv(), Err(TryRecvError::Empty), "it got a place");
        assert_eq!(silent[0].1.try_recv(), Err(TryRecvError::Closed), "of those that wait, the first");
        drop(sidecar);
    }
}
