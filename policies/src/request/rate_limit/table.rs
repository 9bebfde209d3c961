//! The buckets of a limit: a lock-free table of fixed size.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use governor::{clock::Clock, nanos::Nanos, state::StateStore};

use crate::facts::Moment;

/// Shelves of a table; with [`SLOTS`] it bounds the keys of a limit to 16384, which take 256 KiB.
const SHELVES: usize = 1024;
/// Slots of a shelf.
const SLOTS: usize = 16;

/// The time governor sees: the latest moment that any worker was handed.
#[derive(Clone, Debug, Default)]
pub(super) struct ToldClock(Arc<AtomicU64>);

impl ToldClock {
    /// Tells it the time and returns the time it has.
    pub(super) fn tell(&self, now: Moment) -> Nanos {
        if self.0.load(Relaxed) < now.nanos {
            self.0.fetch_max(now.nanos, Relaxed);
        }
        self.now()
    }
}

impl Clock for ToldClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Relaxed).into()
    }
}

/// One bucket: whose it is, and when it will be full again (GCRA's theoretical arrival time).
#[derive(Debug, Default)]
struct Slot {
    key: AtomicU64,
    full_at: AtomicU64,
}

/// Buckets by hashed key. A key may only be in the shelf that its hash names; the slot of a key whose bucket is full
/// again holds no information and is given away. Keys that find no slot share the overflow bucket.
#[derive(Debug)]
pub(super) struct KeyTable {
    clock: ToldClock,
    shelves: Box<[OnceLock<Box<[Slot; SLOTS]>>]>,
    overflow: Slot,
}

impl KeyTable {
    /// One bucket for all keys.
    pub(super) fn single(clock: &ToldClock) -> Self {
        Self { clock: clock.clone(), shelves: Box::default(), overflow: Slot::default() }
    }

    /// A bucket for each key, as long as there are slots.
    pub(super) fn keyed(clock: &ToldClock) -> Self {
        let shelves = (0..SHELVES).map(|_| OnceLock::new()).collect();
        Self { clock: clock.clone(), shelves, overflow: Slot::default() }
    }

    /// The bucket of a key. Zero marks a free slot, so no key is zero.
    fn slot(&self, key: u64) -> &Slot {
        let key = key.max(1);
        let Some(shelf) = self.shelves.get(key as usize % SHELVES) else { return &self.overflow };
        let slots = shelf.get_or_init(Box::default);
        let own = slots.iter().find(|slot| slot.key.load(Relaxed) == key);
        own.or_else(|| self.claim(slots, key)).unwrap_or(&self.overflow)
    }

    /// Takes over a slot that is free or whose bucket is full again. Its time is in the past, which means a full bucket
    /// for the new key too, so nothing has to be reset and no other worker can see a half-made slot.
    fn claim<'a>(&self, slots: &'a [Slot; SLOTS], key: u64) -> Option<&'a Slot> {
        let now = self.clock.now().as_u64();
        slots.iter().find(|slot| {
            let owner = slot.key.load(Relaxed);
            slot.full_at.load(Relaxed) <= now
                && (owner == key || slot.key.compare_exchange(owner, key, Relaxed, Relaxed).is_ok())
        })
    }
}

impl StateStore for KeyTable {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let full_at = &self.slot(*key).full_at;
        let mut before = full_at.load(Relaxed);
        loop {
            let known = if before == 0 { None } else { Some(before.into()) };
            let (outcome, after) = decide(known)?;
            match full_at.compare_exchange_weak(before, after.as_u64(), Relaxed, Relaxed) {
                Ok(_) => return Ok(outcome),
                Err(changed) => before = changed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_at(table: &KeyTable, key: u64, full_at: u64) {
        let taken: Result<(), ()> = table.measure_and_replace(&key, |_| Ok(((), full_at.into())));
        assert_eq!(taken, Ok(()));
    }

    fn full_at(table: &KeyTable, key: u64) -> Option<u64> {
        let seen: Result<(), Option<u64>> =
            table.measure_and_replace(&key, |full_at| Err::<((), Nanos), _>(full_at.map(Nanos::as_u64)));
        seen.unwrap_err()
    }

    fn keys(table: &KeyTable) -> usize {
        let slots = table.shelves.iter().filter_map(OnceLock::get).flat_map(|slots| slots.iter());
        slots.filter(|slot| slot.key.load(Relaxed) != 0).count()
    }

    #[test]
    fn a_key_keeps_its_slot_while_its_bucket_is_not_full() {
        let clock = ToldClock::default();
        clock.tell(Moment { nanos: 10, unix: 0 });
        let table = KeyTable::keyed(&clock);
        for key in 1..=100_000 {
            take_at(&table, key, 20);
        }
        assert_eq!(keys(&table), SHELVES * SLOTS);
        assert_eq!(table.overflow.full_at.load(Relaxed), 20);
        take_at(&table, 1, 30);
        assert_eq!((full_at(&table, 1), full_at(&table, 2)), (Some(30), Some(20)));
        clock.tell(Moment { nanos: 25, unix: 0 });
        for key in 200_001..=300_000 {
            take_at(&table, key, 50);
        }
        assert_eq!(full_at(&table, 1), Some(30), "the one whose bucket is not full is still there");
        assert_eq!(keys(&table), SHELVES * SLOTS);
    }

    #[test]
    fn a_single_table_has_one_bucket() {
        let table = KeyTable::single(&ToldClock::default());
        take_at(&table, 1, 5);
        assert_eq!(full_at(&table, 2), Some(5));
        assert_eq!(keys(&table), 0);
    }
}
