//! Whether to wait for an answer of the control plane. One that is silent costs the first requests a wait, and not every one.
//!
//! Guarantees: who has waited in vain while nothing at all was heard is the last to wait until something is. What was asked
//! for meanwhile stays asked for.

use std::cell::Cell;

use crate::xds::Heard;

/// What a worker knows of the silence of the control plane.
#[derive(Debug)]
pub(crate) struct Patience {
    heard: Heard,
    /// How often something had been heard when somebody waited in vain.
    silent_since: Cell<Option<u64>>,
}

/// A wait that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    heard: u64,
}

impl Patience {
    pub(super) fn new(heard: Heard) -> Self {
        Self { heard, silent_since: Cell::new(None) }
    }

    /// Leave to wait; `None` while the control plane is silent.
    pub(crate) fn begin(&self) -> Option<Wait> {
        let heard = self.heard.count();
        (self.silent_since.get() != Some(heard)).then_some(Wait { heard })
    }

    /// Notes that a wait was in vain. It says nothing where something else was heard meanwhile.
    pub(crate) fn gave_up(&self, wait: Wait) {
        self.silent_since.set(Some(wait.heard));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_who_is_silent_until_something_is_heard() {
        let heard = Heard::default();
        let patience = Patience::new(heard.clone());
        let (first, second) = (patience.begin().unwrap(), patience.begin().unwrap());
        patience.gave_up(first);
        assert!(patience.begin().is_none());
        heard.note();
        let third = patience.begin().expect("it is not silent any more");
        patience.gave_up(second);
        assert!(patience.begin().is_some(), "it has spoken since that one began");
        heard.note();
        patience.gave_up(third);
        assert!(patience.begin().is_some(), "it has answered somebody else meanwhile");
    }
}
