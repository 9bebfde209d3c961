//! What one party costs a sidecar, over all its connections: a peer of the mesh, the workload itself, or whoever else, who is
//! known by a connection only. Whoever is inside is not trusted for that.
//!
//! Guarantees: heads of requests that are open hold no more of a party's than [`HELD`] bytes, and from [`FREE`] on no more than
//! [`PACKED`] times what was sent for them, on all workers. What a party may send beside messages on all its connections to
//! a worker is a few times what it may on one.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    budget::{Account, Budget},
    http::told::Size,
};

/// Bytes of heads that are open.
const HELD: usize = 16 << 20;
/// Bytes of them for which it does not matter how they were packed.
const FREE: usize = 4 << 20;
/// How many times what was sent they may be beyond that.
const PACKED: usize = 10;
/// How long a party is remembered that has no connection. By then all it may do has come back.
const REMEMBERED: Duration = Duration::from_secs(60);

/// What all workers know of the parties that hold something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Everywhere(watch::Sender<HashMap<Box<str>, Weak<Heads>>>);

impl Everywhere {
    /// What a party holds. It is asked for when a worker has not heard of it, and by no request.
    fn heads(&self, party: &str) -> Arc<Heads> {
        let new = Arc::<Heads>::default();
        let mut known = None;
        self.0.send_if_modified(|all| {
            known = all.get(party).and_then(Weak::upgrade);
            if known.is_none() {
                all.retain(|_, heads| heads.strong_count() > 0);
                all.insert(party.into(), Arc::downgrade(&new));
            }
            false
        });
        known.unwrap_or(new)
    }
}

/// The parties that a worker knows.
#[derive(Debug, Default)]
pub(crate) struct Ledgers {
    known: RefCell<HashMap<Box<str>, Rc<Ledger>>>,
    everywhere: Everywhere,
}

impl Ledgers {
    /// Knows nobody yet on this worker.
    pub(crate) fn new(everywhere: Everywhere) -> Self {
        Self { known: RefCell::default(), everywhere }
    }

    /// The one of a party by its name, an identity or the empty one of the workload itself, that has this `budget`.
    pub(crate) fn of(&self, party: &str, budget: &'static Budget) -> Rc<Ledger> {
        if let Some(ledger) = self.known.borrow().get(party) {
            return ledger.clone();
        }
        let ledger = Rc::new(Ledger::new(self.everywhere.heads(party), Some(budget)));
        self.known.borrow_mut().insert(party.into(), ledger.clone());
        ledger
    }

    /// Forgets whoever has long been away.
    pub(crate) fn sweep(&self, now: Instant) {
        let stays = |ledger: &Rc<Ledger>| {
            let account = ledger.account.as_ref().map(|account| account.borrow().since());
            Rc::strong_count(ledger) > 1 || account.is_some_and(|since| since + REMEMBERED > now)
        };
        self.known.borrow_mut().retain(|_, ledger| stays(ledger));
    }
}

/// What one party costs.
#[derive(Debug)]
pub(crate) struct Ledger {
    heads: Arc<Heads>,
    account: Option<Rc<RefCell<Account>>>,
}

impl Ledger {
    /// The one of somebody who is known by one connection.
    pub(crate) fn of_stranger() -> Self {
        Self::new(Arc::default(), None)
    }

    fn new(heads: Arc<Heads>, budget: Option<&'static Budget>) -> Self {
        let account = budget.map(|budget| Rc::new(RefCell::new(Account::new(budget, Instant::now()))));
        Self { heads, account }
    }

    /// What a new connection of the party may send beside messages.
    pub(crate) fn account(&self, budget: &'static Budget) -> Account {
        Account::shared(budget, self.account.clone(), Instant::now())
    }

    /// Leave to hold a head of this size; `None` when that would be too much.
    pub(crate) fn hold(&self, size: Size) -> Option<Held> {
        let held = Held { heads: Arc::clone(&self.heads), size };
        let bytes = self.heads.bytes.fetch_add(size.held, Relaxed) + size.held;
        let sent = self.heads.sent.fetch_add(size.sent, Relaxed) + size.sent;
        (bytes <= HELD && (bytes <= FREE || bytes / PACKED <= sent)).then_some(held)
    }
}

/// Heads of a party that are held.
#[derive(Debug, Default)]
struct Heads {
    bytes: AtomicUsize,
    sent: AtomicUsize,
}

/// A head that is held, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    heads: Arc<Heads>,
    size: Size,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.heads.bytes.fetch_sub(self.size.held, Relaxed);
        self.heads.sent.fetch_sub(self.size.sent, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Kind;

    const KIB: usize = 1024;

    /// How many heads of this size are held at once, of so many.
    fn held(ledger: &Ledger, held: usize, sent: usize, of: usize) -> (usize, Vec<Held>) {
        let all: Vec<Held> = (0..of).map_while(|_| ledger.hold(Size { held, sent })).collect();
        (all.len(), all)
    }

    fn web() -> Rc<Ledger> {
        Ledgers::default().of("spiffe://mesh.local/ns/shop/sa/web", &Budget::PARTY)
    }

    #[test]
    fn honest_heads_are_held_and_those_that_unpack_to_much_are_not() {
        assert_eq!(held(&web(), 5 * KIB, 4 * KIB, 64).0, 64, "tokens of 4 KiB");
        assert_eq!(held(&web(), 64 * KIB, 64 * KIB, 1_000).0, 256, "16 MiB");
        assert_eq!(held(&web(), 64 * KIB, 7 * KIB, 1_000).0, 256, "a tenth was sent");
        assert_eq!(held(&web(), 64 * KIB, 6 * KIB, 1_000).0, 64, "from 4 MiB on that is too little");
        let same = web();
        assert_eq!(held(&same, 2_500, 20, 1_000).0, 1_000, "one token of 2 KiB");
        let after = (0..1_000_000).filter(|_| same.hold(Size { held: 2_500, sent: 20 }).is_some());
        assert_eq!(after.count(), 1_000_000, "one after the other");
    }

    #[test]
    fn a_party_is_the_same_on_all_workers_and_no_other_pays_for_it() {
        let everywhere = Everywhere::default();
        let [here, there] = [(); 2].map(|()| Ledgers::new(everywhere.clone()));
        let few = |ledger: &Ledger| held(ledger, 1, 1, 1).0;
        let (count, all) = held(&here.of("web", &Budget::PARTY), 64 * KIB, 64 * KIB, 1_000);
        assert_eq!((count, few(&there.of("web", &Budget::PARTY))), (256, 0));
        assert_eq!((few(&there.of("", &Budget::PARTY)), few(&Ledger::of_stranger())), (1, 1));
        drop(all);
        assert_eq!(few(&there.of("web", &Budget::PARTY)), 1, "it was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_party_has_no_more_with_every_connection() {
        let (ledgers, now) = (Ledgers::default(), Instant::now);
        let resets = || {
            let mut account = ledgers.of("web", &Budget::PARTY).account(&Budget::KNOWN);
            (0..1_000_000).take_while(|_| account.received(Kind::Reset, now)).count()
        };
        assert_eq!([(); 5].map(|()| resets()), [10_000, 10_000, 0, 0, 0]);
        ledgers.sweep(now());
        assert_eq!(resets(), 0, "it was not forgotten");
        tokio::time::advance(REMEMBERED).await;
        ledgers.sweep(now());
        assert!(ledgers.known.borrow().is_empty());
    }
}
