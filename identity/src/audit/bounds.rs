//! How many events of one kind are written.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

/// Events of one kind in a second, and at once.
const OF_ONE: (f64, f64) = (1.0, 20.0);
/// The same of all for which there is no room among the kinds.
const OF_OTHERS: (f64, f64) = (20.0, 200.0);
/// How often room is looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What may still be written, for each kind by itself: who has caused a thousand events keeps nobody else's first one out.
///
/// ```
/// use std::time::Duration;
///
/// use selvedge_identity::audit::Bounds;
///
/// let (mut bounds, now) = (Bounds::new(256), Duration::ZERO);
/// let written = (0..1000).filter(|_| bounds.take("a flood", now).is_some()).count();
/// assert_eq!((written, bounds.take("somebody else", now)), (20, Some(0)));
/// ```
#[derive(Debug)]
pub struct Bounds {
    hasher: RandomState,
    known: HashMap<u64, Bucket>,
    others: Bucket,
    most: usize,
    swept: Option<Duration>,
    /// Left out of kinds that have made room, and not said yet.
    unsaid: u64,
}

#[derive(Debug, Default)]
struct Bucket {
    /// How many were taken, less those that time has given back.
    taken: f64,
    since: Duration,
    left_out: u64,
}

impl Bucket {
    fn rest(&mut self, now: Duration, per_second: f64) {
        let passed = now.saturating_sub(std::mem::replace(&mut self.since, now));
        self.taken = (self.taken - passed.as_secs_f64() * per_second).max(0.0);
    }

    fn take(&mut self, now: Duration, (per_second, burst): (f64, f64)) -> Option<u64> {
        self.rest(now, per_second);
        if self.taken + 1.0 > burst {
            self.left_out += 1;
            return None;
        }
        self.taken += 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Bounds {
    /// So many kinds are told apart at once. One that has rested makes room.
    pub fn new(most: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            known: HashMap::new(),
            others: Bucket::default(),
            most,
            swept: None,
            unsaid: 0,
        }
    }

    /// Leave for one event of this kind at `now`, the time since a moment that is always the same, with how many were left out
    /// since the last.
    pub fn take(&mut self, kind: impl Hash, now: Duration) -> Option<u64> {
        let key = self.hasher.hash_one(kind);
        if self.known.len() >= self.most && !self.known.contains_key(&key) {
            self.sweep(now);
        }
        let has_room = self.known.len() < self.most;
        let left_out = match self.known.get_mut(&key) {
            Some(bucket) => bucket.take(now, OF_ONE),
            None if has_room => self.known.entry(key).or_default().take(now, OF_ONE),
            None => self.others.take(now, OF_OTHERS),
        };
        left_out.map(|left_out| left_out + std::mem::take(&mut self.unsaid))
    }

    /// Forgets the kinds that may have as many at once as ever.
    fn sweep(&mut self, now: Duration) {
        if self.swept.is_some_and(|swept| now.saturating_sub(swept) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        let unsaid = &mut self.unsaid;
        self.known.retain(|_, bucket| {
            bucket.rest(now, OF_ONE.0);
            let has_rested = bucket.taken == 0.0;
            if has_rested {
                *unsaid += bucket.left_out;
            }
            !has_rested
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 8;

    #[test]
    fn what_is_left_out_is_said_once() {
        let (mut bounds, now) = (Bounds::new(MOST), Duration::from_secs(1000));
        assert_eq!((0..100).filter_map(|_| bounds.take(1, now)).collect::<Vec<_>>(), [0; 20]);
        let later = now + Duration::from_secs(1);
        assert_eq!((bounds.take(1, later), bounds.take(1, later)), (Some(80), None));
        assert_eq!(bounds.take(1, later + Duration::from_secs(60)), Some(1));
    }

    #[test]
    fn the_first_of_a_kind_is_written_whatever_others_do() {
        let (mut bounds, now) = (Bounds::new(MOST), Duration::from_secs(1000));
        for kind in 0..MOST {
            assert_eq!(bounds.take(kind, now), Some(0));
            let more = (0..1000).filter(|_| bounds.take(kind, now).is_some()).count();
            assert_eq!(more, 19);
        }
        let others = (MOST..2000).filter(|kind| bounds.take(kind, now).is_some()).count();
        assert_eq!(others, 200, "kinds without room share");
        let rested = now + Duration::from_secs(60);
        let said: Vec<_> = (0..MOST).map(|kind| bounds.take(3000 + kind, rested)).collect();
        assert_eq!(
            said[0],
            Some(MOST as u64 * 981),
            "what was left out of kinds that have made room is said by the next"
        );
        assert_eq!(said[1..], [Some(0); MOST - 1]);
    }
}
