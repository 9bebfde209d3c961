//! Where a number comes from, and the labels that follow from others.

use tokio::time::Instant;

use super::{
    cardinality::OVERFLOW,
    outcome::{self, Outcome},
};

/// Where a number comes from: named label values, and how many records it sums up.
pub(super) struct Origin<'a> {
    /// The names of the labels by which it was counted.
    pub(super) names: &'a [&'a str],
    /// Their values.
    pub(super) values: &'a [Box<str>],
    /// When somebody looks.
    pub(super) now: Instant,
    /// How many requests or connections it is about.
    pub(super) records: u64,
}

impl Origin<'_> {
    /// The value of this label: as it was counted, or as it follows; empty when neither is.
    pub(super) fn get(&self, name: &str) -> &str {
        match (self.counted(name), name) {
            (Some(value), _) => value,
            (None, "outcome") => {
                let of = ["reason", "response_class", "grpc_status"].map(|name| self.counted(name).unwrap_or_default());
                Outcome::of(of[0], of[1], of[2]).as_str()
            }
            (None, "action") => outcome::action(self.counted("reason").unwrap_or_default()),
            (None, _) => "",
        }
    }

    fn counted(&self, name: &str) -> Option<&str> {
        self.names.iter().position(|have| *have == name).map(|at| &*self.values[at])
    }

    /// Whether it sums up what had no room among the others.
    pub(super) fn is_overflow(&self) -> bool {
        !self.values.is_empty() && self.values.iter().all(|value| &**value == OVERFLOW)
    }
}
