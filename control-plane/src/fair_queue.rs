//! A fair queue: so many turns at once, which go to the addresses that wait one after the other (round robin).
//!
//! Guarantees: however many wait from one address, another one waits for one turn of each address at most; within an
//! address who is known goes before who is not, and then who came first; who stopped waiting takes no turn.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::oneshot;

use crate::{crowd::network, guarded::Guarded};

/// From so many on those are looked for that have stopped waiting.
const MANY: usize = 256;

/// Turns, and who waits for them.
#[derive(Debug)]
pub(crate) struct FairQueue(Arc<Guarded<Queue>>);

#[derive(Debug)]
struct Queue {
    free: usize,
    /// The addresses that wait, in the order in which they get turns.
    order: VecDeque<IpAddr>,
    waiting: HashMap<IpAddr, Line>,
}

/// Those that wait from one address.
#[derive(Debug, Default)]
struct Line {
    known: VecDeque<Promise>,
    unknown: VecDeque<Promise>,
}

type Promise = oneshot::Sender<Turn>;

/// Whether somebody was found to be what it says, some time ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Standing {
    /// It was.
    Known,
    /// Nobody knows.
    Unknown,
}

/// A turn; the next one's when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Guarded<Queue>>);

impl FairQueue {
    /// So many turns at once.
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Guarded::new(Queue { free: count, order: VecDeque::new(), waiting: HashMap::new() })))
    }

    /// Waits for a turn of `address`.
    pub(crate) async fn take(&self, address: IpAddr, standing: Standing) -> Turn {
        match self.0.with(|queue| queue.join(network(address), standing)) {
            None => Turn(Arc::clone(&self.0)),
            Some(promised) => match promised.await {
                Ok(turn) => turn,
                // Promises are kept while the queue is there, and it is borrowed.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Queue {
    /// Takes a free turn, or a place in the queue.
    fn join(&mut self, address: IpAddr, standing: Standing) -> Option<oneshot::Receiver<Turn>> {
        if self.free > 0 {
            self.free -= 1;
            return None;
        }
        let (promise, promised) = oneshot::channel();
        let line = self.waiting.entry(address).or_insert_with(|| {
            self.order.push_back(address);
            Line::default()
        });
        let equals = match standing {
            Standing::Known => &mut line.known,
            Standing::Unknown => &mut line.unknown,
        };
        if equals.len() >= MANY {
            equals.retain(|promise| !promise.is_closed());
        }
        equals.push_back(promise);
        Some(promised)
    }

    /// Whose turn it is now.
    fn next(&mut self) -> Option<Promise> {
        while let Some(address) = self.order.pop_front() {
            let Some(line) = self.waiting.get_mut(&address) else { continue };
            let first = || line.known.pop_front().or_else(|| line.unknown.pop_front());
            let next = std::iter::from_fn(first).find(|promise| !promise.is_closed());
            if line.known.is_empty() && line.unknown.is_empty() {
                self.waiting.remove(&address);
            } else {
                self.order.push_back(address);
            }
            if next.is_some() {
                return next;
            }
        }
        self.free += 1;
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(promise) = self.0.with(Queue::next) {
            // Who stopped waiting at this moment drops it, and it goes on.
            let _stopped = promise.send(Self(Arc::clone(&self.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use tokio::time::{Instant, sleep, timeout};

    use super::{
        Standing::{Known, Unknown},
        *,
    };

    const HOLD: Duration = Duration::from_millis(10);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_floods_waits_for_others_and_others_do_not_wait_for_the_flood() {
        let turns = Arc::new(FairQueue::new(2));
        let began = Instant::now();
        let take = |address: &'static str| {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move {
                let turn = turns.take(ip(address), Unknown).await;
                sleep(HOLD).await;
                drop(turn);
                began.elapsed()
            })
        };
        let flood: Vec<_> = (0..1000).map(|_| take("10.0.0.1")).collect();
        tokio::task::yield_now().await;
        let other = take("10.0.0.2").await.unwrap();
        assert!(other <= 3 * HOLD, "{other:?}");
        let mut last = Duration::ZERO;
        for taken in flood {
            last = last.max(taken.await.unwrap());
        }
        assert!(last >= 500 * HOLD, "no more than two at a time: {last:?}");
        turns.0.with(|queue| assert!(queue.free == 2 && queue.waiting.is_empty(), "{queue:?}"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_stopped_waiting_takes_no_turn() {
        let turns = FairQueue::new(1);
        let held = turns.take(ip("10.0.0.1"), Unknown).await;
        for _ in 0..2 * MANY {
            assert!(timeout(HOLD, turns.take(ip("10.0.0.1"), Unknown)).await.is_err());
        }
        turns.0.with(|queue| assert!(queue.waiting[&ip("10.0.0.1")].unknown.len() <= MANY));
        let mut other = pin!(turns.take(ip("10.0.0.2"), Unknown));
        assert!(timeout(HOLD, other.as_mut()).await.is_err());
        drop(held);
        let turn = timeout(HOLD, other).await.expect("it is the only one that waits");
        drop(turn);
        timeout(HOLD, turns.take(ip("10.0.0.1"), Unknown)).await.expect("the turn is free");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_was_given_to_somebody_who_left_goes_on() {
        let turns = FairQueue::new(1);
        let held = turns.take(ip("10.0.0.1"), Unknown).await;
        {
            let mut leaves = pin!(turns.take(ip("10.0.0.2"), Unknown));
            assert!(timeout(HOLD, leaves.as_mut()).await.is_err());
            drop(held);
        }
        timeout(HOLD, turns.take(ip("10.0.0.3"), Unknown)).await.expect("nobody has it");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_known_goes_before_others_of_its_address_and_of_no_other() {
        let turns = Arc::new(FairQueue::new(1));
        let held = turns.take(ip("10.0.0.1"), Unknown).await;
        let order = Arc::new(Guarded::new(Vec::new()));
        let mut all = Vec::new();
        for (name, address, standing) in [
            ("first", "10.0.0.1", Unknown),
            ("second", "10.0.0.1", Unknown),
            ("elsewhere", "10.0.0.2", Unknown),
            ("known", "10.0.0.1", Known),
        ] {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            all.push(tokio::spawn(async move {
                let _turn = turns.take(ip(address), standing).await;
                order.with(|order| order.push(name));
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for one in all {
            one.await.unwrap();
        }
        order.with(|order| assert_eq!(*order, ["known", "elsewhere", "first", "second"]));
    }
}
