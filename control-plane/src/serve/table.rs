//! Values by key that exist for as long as somebody holds them.

use std::{collections::HashMap, hash::Hash, sync::Arc};

/// Shared values by key. Those nobody holds are forgotten when there are twice as many as before.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    values: HashMap<K, Arc<V>>,
    /// Values after the last sweep.
    swept: usize,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), swept: 0 }
    }
}

impl<K: Eq + Hash, V> Table<K, V> {
    /// The value of `key`, made by `new` when nobody holds one. One reference is the table's own.
    pub(super) fn get(&mut self, key: K, new: impl FnOnce() -> V) -> &Arc<V> {
        if self.values.len() > 2 * self.swept + 64 {
            self.values.retain(|_, value| Arc::strong_count(value) > 1);
            self.swept = self.values.len();
        }
        self.values.entry(key).or_insert_with(|| Arc::new(new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_forgotten_and_what_somebody_holds_is_not() {
        let mut table = Table::default();
        let held = Arc::clone(table.get(0, || "held"));
        for n in 1..10_000 {
            table.get(n, || "dropped");
        }
        assert!(table.values.len() < 200, "{}", table.values.len());
        assert!(Arc::ptr_eq(&held, table.get(0, || "another")));
    }
}
