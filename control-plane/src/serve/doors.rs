//! Admission control: how many connections there may be, so that nobody keeps the sidecars out: in all, from one
//! address, and, much fewer, of those that have proven nothing yet.
//!
//! A burst of honest sidecars waits for its turn and is served; what is over the limits of connections is closed. Of those
//! that have proven nothing, whoever comes gets a place, and the address that has most gives way ([`crowd`](crate::crowd)).
//! Within one address, which may be that of many, nobody holds a turn for longer than a handshake takes, and who came later
//! takes the place of who was silent longest.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::timeout};

use super::table::Table;
use crate::crowd::{Answered, Caller, Crowd, SentAway, network};

/// Connections at once; more wait in the kernel's queue.
pub(crate) const MAX_CONNECTIONS: usize = SIDECARS + STRANGERS;
/// Connections that there is always room for beside those that have proven nothing.
const SIDECARS: usize = 50_000;
/// Connections that have proven nothing, those included that wait for their handshake.
const STRANGERS: usize = 8192;
/// How long a connection may wait for its handshake.
const TURN: Duration = Duration::from_secs(30);
/// How long a handshake keeps others of its address waiting; a slower one goes on without its turn.
const QUICK: Duration = Duration::from_millis(500);

/// The limits; the defaults are the documentation (`docs/control-plane.md`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections from one address: half of all, because a whole cluster may come from behind one.
    pub(super) per_address: usize,
    /// Connections without a certificate, in all.
    pub(super) strangers: usize,
    /// Of those, how many from one address may have their turn; twice as many may be there after it, so that a burst from
    /// far away, whose handshakes take a second, is served.
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
    /// Of each address itself: pods of a node are neighbours in one network of IPv6.
    addresses: Table<IpAddr, Address>,
}

/// What there is for those of one address that have proven nothing.
#[derive(Debug)]
struct Address {
    turns: Semaphore,
    /// Those that have had their turn.
    after: Crowd,
}

impl Doors {
    pub(super) fn new(limits: Limits) -> Self {
        let strangers = Crowd::new(limits.strangers);
        Self { limits, strangers, networks: Table::default(), addresses: Table::default() }
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
        let shared = || Address { turns: Semaphore::new(limit), after: Crowd::new(2 * limit) };
        let shared = Arc::clone(self.addresses.get(address.to_canonical(), shared));
        let (caller, sent_away) = self.strangers.enter(address);
        Some((Entry { address, here, shared, caller }, sent_away))
    }
}

/// One connection that is inside.
#[derive(Debug)]
pub(super) struct Entry {
    address: IpAddr,
    here: Arc<()>,
    shared: Arc<Address>,
    caller: Caller,
}

/// One connection that has had its turn, and has proven nothing.
#[derive(Debug)]
pub(super) struct Unproven {
    here: Arc<()>,
    stranger: Arc<Stranger>,
    /// Ends when others of its address need its place.
    pub(super) sent_away: SentAway,
}

/// The places of a connection that has proven nothing: among all of them, and among those of its address.
#[derive(Debug)]
pub(crate) struct Stranger {
    everywhere: Caller,
    here: Caller,
    _shared: Arc<Address>,
}

/// One connection that has proven who it is.
#[derive(Debug)]
pub(super) struct Proven {
    _here: Arc<()>,
}

impl Entry {
    /// Waits for a turn and does the handshake in it; `None` when it waited too long, or was slow and others of its address
    /// came.
    pub(super) async fn through<T>(self, handshake: impl Future<Output = T>) -> Option<(T, Unproven)> {
        let mut handshake = pin!(handshake);
        let turn = timeout(TURN, self.shared.turns.acquire()).await.ok()?.ok()?;
        let quick = timeout(QUICK, handshake.as_mut()).await;
        drop(turn);
        let (here, mut sent_away) = self.shared.after.enter(self.address);
        let done = match quick {
            Ok(done) => done,
            Err(_) => tokio::select! {
                done = handshake => done,
                _ = &mut sent_away => return None,
            },
        };
        let stranger = Arc::new(Stranger { everywhere: self.caller, here, _shared: self.shared });
        Some((done, Unproven { here: self.here, stranger, sent_away }))
    }
}

impl Unproven {
    /// Makes room for the next one that has proven nothing.
    pub(super) fn proven(self) -> Proven {
        Proven { _here: self.here }
    }

    /// Its places, which it may be answered in.
    pub(super) fn stranger(&self) -> Arc<Stranger> {
        Arc::clone(&self.stranger)
    }
}

impl Stranger {
    /// It is being answered until the values are dropped, and not sent away meanwhile.
    pub(super) fn answered(&self) -> [Answered<'_>; 2] {
        [self.everywhere.answered(), self.here.answered()]
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        sync::oneshot::error::TryRecvError,
        task::JoinHandle,
        time::{Instant, sleep},
    };

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

    /// Comes from `address` and does a handshake that takes so long; how long that took altogether.
    fn comes(doors: &mut Doors, address: &str, takes: Duration) -> JoinHandle<Option<Duration>> {
        let (entry, sent_away) = doors.enter(ip(address)).unwrap();
        let began = Instant::now();
        tokio::spawn(async move {
            let done = tokio::select! {
                done = entry.through(async move { sleep(takes).await }) => done,
                _ = sent_away => None,
            };
            done.map(|_| began.elapsed())
        })
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_wait_for_their_turn_and_do_not_hold_up_another_address() {
        let quick = QUICK / 2;
        let mut doors = Doors::new(LIMITS);
        let burst: Vec<_> = (0..5).map(|_| comes(&mut doors, "fd00::1", quick)).collect();
        let neighbour = comes(&mut doors, "fd00:1::2", quick);
        let mut took = Vec::new();
        for one in burst {
            took.push(one.await.unwrap().expect("it is served"));
        }
        assert_eq!(took, [quick, quick, quick, 2 * quick, 2 * quick], "three at a time");
        assert_eq!(neighbour.await.unwrap(), Some(quick), "another address has its own turns");
    }

    #[tokio::test(start_paused = true)]
    async fn who_dawdles_at_the_address_of_others_does_not_keep_them_out() {
        let mut doors = Doors::new(Limits::default());
        let slow: Vec<_> = (0..2000).map(|_| comes(&mut doors, "10.0.0.1", Duration::from_secs(5))).collect();
        let other = comes(&mut doors, "10.0.0.1", Duration::from_millis(5)).await.unwrap();
        let other = other.expect("it is served");
        assert!(other <= 8 * QUICK, "{other:?}");
        let mut through = 0;
        for one in slow {
            through += usize::from(one.await.unwrap().is_some());
        }
        let places = 2 * Limits::default().strangers_per_address;
        assert!((places - 1..=places).contains(&through), "{through} of {places} places, those of the last to come");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_being_answered_keeps_its_place_and_who_says_nothing_gives_it_up() {
        let mut doors = Doors::new(Limits { per_address: 7, strangers: 7, ..LIMITS });
        let mut inside = Vec::new();
        for _ in 0..6 {
            let (entry, needed) = doors.enter(ip("10.0.0.1")).unwrap();
            let ((), unproven) = entry.through(async {}).await.unwrap();
            inside.push((unproven, needed));
        }
        let joins = inside[0].0.stranger();
        let _answered = joins.answered();
        let (next, _needed) = doors.enter(ip("10.0.0.1")).unwrap();
        let _next = next.through(async {}).await.unwrap();
        let gone: Vec<bool> =
            inside.iter_mut().map(|(it, _)| it.sent_away.try_recv() == Err(TryRecvError::Closed)).collect();
        assert_eq!(gone, [false, true, false, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_proven_nothing_gives_way_and_a_sidecar_does_not() {
        let mut doors = Doors::new(LIMITS);
        let (sidecar, mut needed) = doors.enter(ip("10.0.0.1")).unwrap();
        let sidecar = sidecar.through(async {}).await.unwrap().1.proven();
        assert_eq!(needed.try_recv(), Err(TryRecvError::Closed), "nobody sends it away any more");
        let mut silent: Vec<_> = (0..3)
            .flat_map(|host| {
                let address = ip(&format!("10.0.1.{host}"));
                [doors.enter(address).unwrap(), doors.enter(address).unwrap()]
            })
            .collect();
        let (joins, mut needed) = doors.enter(ip("10.0.2.1")).unwrap();
        let _joins = joins.through(async {}).await.unwrap();
        assert_eq!(needed.try_recv(), Err(TryRecvError::Empty), "it got a place");
        assert_eq!(silent[0].1.try_recv(), Err(TryRecvError::Closed), "of those that wait, the first");
        drop(sidecar);
    }
}
