//! A fair queue: so many turns at once, which go to the addresses that wait one after the other (round robin).
//!
//! Guarantees: however many wait from one address, another one waits for one turn of each address at most; within an
//! address who came first is first; who stopped waiting takes no turn.

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
    waiting: HashMap<IpAddr, VecDeque<oneshot::Sender<Turn>>>,
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
    pub(crate) async fn take(&self, address: IpAddr) -> Turn {
        match self.0.with(|queue| queue.join(network(address))) {
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
    fn join(&mut self, address: IpAddr) -> Option<oneshot::Receiver<Turn>> {
        if self.free > 0 {
            self.free -= 1;
            return None;
        }
        let (promise, promised) = oneshot::channel();
        let of_address = self.waiting.entry(address).or_insert_with(|| {
            self.order.push_back(address);
            VecDeque::new()
        });
        if of_address.len() >= MANY {
            of_address.retain(|promise| !promise.is_closed());
        }
        of_address.push_back(promise);
        Some(promised)
    }

    /// Whose turn it is now.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(address) = self.order.pop_front() {
            let Some(of_address) = self.waiting.get_mut(&address) else { continue };
            let next = std::iter::from_fn(|| of_address.pop_front()).find(|promise| !promise.is_closed());
            if of_address.is_empty() {
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

    use super::*;

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
                let turn = turns.take(ip(address)).await;
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
        let held = turns.take(ip("10.0.0.1")).await;
        for _ in 0..2 * MANY {
            assert!(timeout(HOLD, turns.take(ip("10.0.0.1"))).await.is_err());
        }
        turns.0.with(|queue| assert!(queue.waiting[&ip("10.0.0.1")].len() <= MANY));
        let mut other = pin!(turns.take(ip("10.0.0.2")));
        assert!(timeout(HOLD, other.as_mut()).await.is_err());
        drop(held);
        let turn = timeout(HOLD, other).await.expect("it is the only one that waits");
        drop(turn);
        timeout(HOLD, turns.take(ip("10.0.0.1"))).await.expect("the turn is free");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_was_given_to_somebody_who_left_goes_on() {
        let turns = FairQueue::new(1);
        let held = turns.take(ip("10.0.0.1")).await;
        {
            let mut leaves = pin!(turns.take(ip("10.0.0.2")));
            assert!(timeout(HOLD, leaves.as_mut()).await.is_err());
            drop(held);
        }
        timeout(HOLD, turns.take(ip("10.0.0.3"))).await.expect("nobody has it");
    }
}
