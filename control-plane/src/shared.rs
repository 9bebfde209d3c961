//! A map of which two versions share almost all of their memory.
//!
//! Guarantees: a copy costs the same however much is in it; a change of a copy costs a small part of the map and leaves
//! the other as it is; what differs between two copies is found without looking at the parts they share. That is what
//! lets a change of one object in ten thousand cost what it costs in a hundred, with every reader on a version of its own.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    sync::Arc,
};

/// Parts of a map. With ten thousand entries a part has forty.
const PARTS: usize = 256;

type Part<K, V> = Arc<HashMap<K, V>>;

/// A map that is cheap to copy and to change.
#[derive(Clone, Debug)]
pub(crate) struct Shared<K, V> {
    parts: Vec<Part<K, V>>,
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self { parts: Vec::new() }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Shared<K, V> {
    /// The value of that key.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.parts.get(part_of(key))?.get(key)
    }

    /// Puts a value in place of the one of that key, and returns that one.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.parts.is_empty() {
            self.parts = (0..PARTS).map(|_| Arc::default()).collect();
        }
        self.parts.get_mut(part_of(&key)).and_then(|part| Arc::make_mut(part).insert(key, value))
    }

    /// Takes the value of that key away, and returns it.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let part = self.parts.get_mut(part_of(key)).filter(|part| part.contains_key(key))?;
        Arc::make_mut(part).remove(key)
    }

    /// All entries, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// The entries that `earlier` does not have like this, and the keys of those that are gone since.
    pub(crate) fn since<'a>(&'a self, earlier: &'a Self) -> (Vec<(&'a K, &'a V)>, Vec<&'a K>)
    where
        V: PartialEq,
    {
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for part in 0..self.parts.len().max(earlier.parts.len()) {
            let (now, before) = (self.parts.get(part), earlier.parts.get(part));
            if now.zip(before).is_some_and(|(now, before)| Arc::ptr_eq(now, before)) {
                continue;
            }
            let entries = now.into_iter().flat_map(|part| part.iter());
            put.extend(entries.filter(|(key, value)| before.and_then(|part| part.get(*key)) != Some(value)));
            let keys = before.into_iter().flat_map(|part| part.keys());
            gone.extend(keys.filter(|key| !now.is_some_and(|part| part.contains_key(*key))));
        }
        (put, gone)
    }
}

fn part_of<K: Hash + ?Sized>(key: &K) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    usize::try_from(hash % PARTS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_has_and_what_differs_is_found() {
        let mut one = Shared::default();
        for n in 0..1000 {
            assert_eq!(one.insert(n, n), None);
        }
        let mut two = one.clone();
        assert_eq!(
            (two.insert(7, 70), two.remove(&8), two.remove(&8), two.insert(1000, 0)),
            (Some(7), Some(8), None, None)
        );
        assert_eq!((one.get(&7), one.get(&8), one.get(&1000), one.iter().count()), (Some(&7), Some(&8), None, 1000));
        assert_eq!((two.get(&7), two.get(&8), two.iter().count()), (Some(&70), None, 1000));
        let (mut put, gone) = two.since(&one);
        put.sort();
        assert_eq!((put, gone), (vec![(&7, &70), (&1000, &0)], vec![&8]));
        let none = Shared::default();
        let (put, gone) = one.since(&none);
        assert_eq!((put.len(), gone.len()), (1000, 0));
        let (put, gone) = none.since(&one);
        assert_eq!((put.len(), gone.len()), (0, 1000));
        assert_eq!(one.since(&one.clone()), (Vec::new(), Vec::new()));
    }
}
