//! Leave to write lines about refusals and errors, for each caller and reason: who is refused a thousand times a second keeps
//! nobody else's first refusal out of the log.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

use tokio::time::Instant;

use crate::allowance::Allowance;

/// Lines of one kind a worker may write in a second, and in a burst.
const OF_ONE: (f64, f64) = (10.0, 50.0);
/// The same of all for which there is no room among the kinds.
const OF_OTHERS: (f64, f64) = (50.0, 200.0);
/// First lines of kinds, which nothing else keeps out of the log. Who has many addresses is many kinds.
const OF_FIRST: (f64, f64) = (50.0, KINDS as f64);
/// All further lines of kinds.
const OF_ALL: (f64, f64) = (200.0, 1_000.0);
/// Kinds that are told apart at once. One that has rested makes room.
const KINDS: usize = 256;
/// How often room is looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What a worker may still write.
#[derive(Debug)]
pub(super) struct Kinds {
    hasher: RandomState,
    known: RefCell<HashMap<u64, Allowance>>,
    first: Allowance,
    all: Allowance,
    others: Allowance,
    swept: Cell<Option<Instant>>,
    suppressed: Cell<u64>,
}

impl Kinds {
    /// Every kind may have its burst.
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            known: RefCell::default(),
            first: Allowance::new(OF_FIRST.0, OF_FIRST.1),
            all: Allowance::new(OF_ALL.0, OF_ALL.1),
            others: Allowance::new(OF_OTHERS.0, OF_OTHERS.1),
            swept: Cell::new(None),
            suppressed: Cell::new(0),
        }
    }

    /// Leave for one line of this kind, with the number of lines of the kind for which there was none since the last.
    pub(super) fn take(&self, kind: impl Hash) -> Option<u64> {
        let key = self.hasher.hash_one(kind);
        let mut known = self.known.borrow_mut();
        if known.len() >= KINDS && !known.contains_key(&key) && self.may_sweep() {
            known.retain(|_, allowance| !allowance.has_rested());
        }
        let leave = match known.get(&key) {
            Some(allowance) => allowance.take().filter(|left_out| {
                let leave = self.all.take().is_some();
                if !leave {
                    allowance.withdraw(*left_out);
                }
                leave
            }),
            None if known.len() < KINDS && self.first.take().is_some() => {
                let allowance = Allowance::new(OF_ONE.0, OF_ONE.1);
                let leave = allowance.take();
                known.insert(key, allowance);
                leave
            }
            None => self.others.take(),
        };
        if leave.is_none() {
            self.suppressed.update(|lines| lines + 1);
        }
        leave
    }

    fn may_sweep(&self) -> bool {
        let may = self.swept.get().is_none_or(|swept| swept.elapsed() >= SWEEP);
        if may {
            self.swept.set(Some(Instant::now()));
        }
        may
    }

    /// Lines for which there was no leave since the last call.
    pub(super) fn take_suppressed(&self) -> u64 {
        self.suppressed.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_of_each_kind_is_written_whatever_others_do() {
        let kinds = Kinds::new();
        let written = |kind: usize, times: usize| (0..times).filter(|_| kinds.take(kind).is_some()).count();
        assert_eq!(written(0, 3_000), 50);
        assert_eq!((1..KINDS).map(|kind| written(kind, 1)).sum::<usize>(), KINDS - 1);
        assert_eq!(kinds.take_suppressed(), 2_950);
        assert_eq!(written(0, 1), 0);
        let more = (KINDS..3 * KINDS).map(|kind| written(kind, 1)).sum::<usize>();
        assert!((200..=3 * KINDS).contains(&more), "{more} lines of kinds without room");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(kinds.take(0_usize), Some(2_951), "and it says how many were left out");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((0..KINDS).map(|kind| written(3 * KINDS + kind, 1)).sum::<usize>(), KINDS, "what rests makes room");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_from_many_addresses_does_not_fill_the_log() {
        let kinds = Kinds::new();
        let mut lines = 0;
        for second in 0..60 {
            lines += (0..5_000).filter(|n| kinds.take((second, n % 2_500)).is_some()).count();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(lines < 60 * 300 + 2_000, "{lines} lines in a minute");
    }
}
