//! A bounded table of series: found by a hash of the label values, without allocating when the series exists.
//!
//! A table never holds more series than its limit. What does not fit goes to one series whose labels all read
//! [`OVERFLOW`], so totals stay right whatever an operator or a caller makes the mesh do.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

/// The value of every label of an overflow series.
pub(super) const OVERFLOW: &str = "overflow";

/// Label values of one series, in the order of the table's label names.
pub(super) type Labels = Arc<[Box<str>]>;

/// The labels of an overflow series.
pub(super) fn overflow(width: usize) -> Labels {
    std::iter::repeat_n(Box::from(OVERFLOW), width).collect()
}

/// Series with as many labels each and a value.
#[derive(Debug)]
pub(super) struct Table<V> {
    /// Labels of each series.
    width: usize,
    index: HashMap<u64, usize, BuildHasherDefault<AlreadyHashed>>,
    series: Vec<(Labels, V)>,
    /// The series that was asked for last, which most likely is asked for next.
    last: usize,
    overflow: V,
    limit: usize,
    /// Looking for idle series is worth it once after each drain.
    may_have_idle: bool,
    seed: u64,
}

impl<V: Default + PartialEq> Table<V> {
    pub(super) fn new(width: usize, limit: usize) -> Self {
        Self {
            width,
            index: HashMap::default(),
            series: Vec::new(),
            last: 0,
            overflow: V::default(),
            limit,
            may_have_idle: false,
            seed: fastrand::u64(..),
        }
    }

    /// The value of the series with these labels; that of the overflow series when the table is full.
    pub(super) fn series(&mut self, labels: &[&str]) -> &mut V {
        debug_assert_eq!(labels.len(), self.width, "{labels:?}");
        if !self.is(self.last, labels) {
            let mut key = hash(self.seed, labels.iter().copied());
            loop {
                let Some(&at) = self.index.get(&key) else { return self.another(key, labels) };
                if self.is(at, labels) {
                    self.last = at;
                    break;
                }
                key = key.wrapping_add(1);
            }
        }
        &mut self.series[self.last].1
    }

    /// Whether the series at this place has these labels.
    fn is(&self, at: usize, labels: &[&str]) -> bool {
        let series = self.series.get(at);
        series.is_some_and(|(known, _)| known.iter().zip(labels).all(|(have, want)| same(have, want)))
    }

    /// The value of a series that there is not yet, whose place in the index is `key`.
    fn another(&mut self, key: u64, labels: &[&str]) -> &mut V {
        if self.series.len() == self.limit {
            if !std::mem::take(&mut self.may_have_idle) {
                return &mut self.overflow;
            }
            self.forget_idle();
            return self.series(labels);
        }
        self.index.insert(key, self.series.len());
        self.series.push((labels.iter().map(|label| Box::from(*label)).collect(), V::default()));
        self.last = self.series.len() - 1;
        &mut self.series[self.last].1
    }

    /// Takes the value of every series that changed since the last call.
    pub(super) fn drain(&mut self) -> Vec<(Labels, V)> {
        let idle = V::default();
        self.may_have_idle = true;
        let changed = self.series.iter_mut().filter(|(_, value)| *value != idle);
        let mut taken: Vec<_> = changed.map(|(labels, value)| (labels.clone(), std::mem::take(value))).collect();
        if self.overflow != idle {
            taken.push((overflow(self.width), std::mem::take(&mut self.overflow)));
        }
        taken
    }

    /// Forgets the series that did not change since they were drained, so that labels no longer in use make room.
    fn forget_idle(&mut self) {
        let idle = V::default();
        self.series.retain(|(_, value)| *value != idle);
        self.index.clear();
        self.last = 0;
        for (at, (labels, _)) in self.series.iter().enumerate() {
            let mut key = hash(self.seed, labels.iter().map(|label| &**label));
            while self.index.contains_key(&key) {
                key = key.wrapping_add(1);
            }
            self.index.insert(key, at);
        }
    }
}

/// Passes a hash on as it is.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mix(self.0, u64::from(*byte));
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Hashes label values. Not proof against chosen collisions: the seed is secret, and the limit bounds what
/// collisions could cost.
fn hash<'a>(seed: u64, labels: impl Iterator<Item = &'a str>) -> u64 {
    labels.fold(seed, |hash, label| {
        let (words, _) = label.as_bytes().as_chunks::<8>();
        let hash = words.iter().fold(hash, |hash, word| mix(hash, u64::from_le_bytes(*word)));
        mix(hash, ending(label) ^ (label.len() as u64) << 56)
    })
}

/// Whether two label values are equal. Values are short, and calling the C library for each costs many times as
/// much as comparing them.
fn same(one: &str, other: &str) -> bool {
    if one.len() != other.len() || ending(one) != ending(other) {
        return false;
    }
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while let (Some((word, rest)), Some((other_word, other_rest))) =
        (one.split_first_chunk::<8>(), other.split_first_chunk::<8>())
    {
        if word != other_word {
            return false;
        }
        (one, other) = (rest, other_rest);
    }
    true
}

/// The last eight bytes of `label`; of a shorter one all bytes, some of them twice.
fn ending(label: &str) -> u64 {
    let bytes = label.as_bytes();
    match (bytes.last_chunk::<8>(), bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(word), ..) => u64::from_le_bytes(*word),
        (None, Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        _ => bytes.iter().fold(0, |ending, byte| ending << 8 | u64::from(*byte)),
    }
}

/// One round of folded multiplication.
fn mix(hash: u64, word: u64) -> u64 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15;
    let product = u128::from(hash ^ word) * ODD;
    (product as u64) ^ ((product >> 64) as u64) ^ hash.rotate_left(23)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_are_the_same_when_they_are_equal(one in "[ab]{0,20}", other in "[ab]{0,20}") {
            prop_assert_eq!(same(&one, &other), one == other);
            prop_assert!(same(&one, &one.clone()));
        }
    }

    #[test]
    fn equal_labels_share_a_series_and_others_do_not() {
        let mut table = Table::<u64>::new(2, 10);
        *table.series(&["a", "bc"]) += 1;
        *table.series(&["ab", "c"]) += 10;
        *table.series(&["a", "bc"]) += 1;
        *table.series(&["", "abc"]) += 100;
        let mut values: Vec<u64> = table.drain().into_iter().map(|(_, value)| value).collect();
        values.sort_unstable();
        assert_eq!(values, [2, 10, 100]);
        assert!(table.drain().is_empty(), "drained values were seen twice");
    }

    #[test]
    fn what_does_not_fit_is_counted_as_overflow() {
        let mut table = Table::<u64>::new(1, 3);
        for n in 0..10 {
            *table.series(&[&n.to_string()]) += 1;
        }
        let drained = table.drain();
        assert_eq!(drained.len(), 4);
        let overflow = drained.iter().find(|(labels, _)| &*labels[0] == OVERFLOW).unwrap();
        assert_eq!(overflow.1, 7);
    }

    #[test]
    fn unused_series_make_room() {
        let mut table = Table::<u64>::new(1, 4);
        for n in 0..4 {
            *table.series(&[&n.to_string()]) += 1;
        }
        table.drain();
        *table.series(&["3"]) += 1;
        table.drain();
        for label in ["3", "new", "newer"] {
            *table.series(&[label]) += 1;
        }
        let drained = table.drain();
        assert_eq!(drained.len(), 3);
        assert!(drained.iter().all(|(labels, value)| &*labels[0] != OVERFLOW && *value == 1));
    }
}
