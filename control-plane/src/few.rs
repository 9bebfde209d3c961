//! A set of few.

/// Values in order, each once. Nearly always there is one: a tree would have room for eleven.
#[derive(Clone, Debug)]
pub(crate) struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> Few<T> {
    /// Puts `value` where it belongs, unless it is there.
    pub(crate) fn insert(&mut self, value: T) {
        if let Err(place) = self.0.binary_search(&value) {
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(place, value);
        }
    }

    /// Takes `value` away, if it is there.
    pub(crate) fn remove(&mut self, value: &T) {
        if let Ok(place) = self.0.binary_search(value) {
            self.0.remove(place);
        }
    }

    /// True when there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_there_once_and_in_order() {
        let mut few = Few::default();
        for value in [3, 1, 2, 3, 1] {
            few.insert(value);
        }
        few.remove(&2);
        few.remove(&7);
        assert!(few.iter().eq(&[1, 3]));
        few.remove(&1);
        few.remove(&3);
        assert!(few.is_empty());
    }
}
