//! What the watches tell, put together into states of the whole cluster.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::pruned::Key;
use crate::source::{Change, Reading};

/// How many steps make one state at most, so that the store gets its turn while very much happens.
const MOST_STEPS: usize = 1024;

/// One step of the watch over a kind.
pub(super) enum Told {
    /// There is such an object, or it is not what it was.
    Put(&'static str, Key, Reading),
    /// The object is gone.
    Gone(&'static str, Key),
    /// That was everything of the kind.
    Complete(&'static str),
    /// It cannot be told what there is of the kind, for that reason; what was told before stays.
    Unavailable(&'static str, Arc<str>),
}

/// What is known of the kinds.
pub(super) struct Cluster {
    /// The kinds of which nothing is known yet.
    awaited: HashSet<&'static str>,
    /// The kinds that cannot be read now, and why.
    unavailable: BTreeMap<&'static str, Arc<str>>,
}

/// The kind of the object that is known so ([`Key::of`]).
pub(super) fn kind_of(origin: &str) -> &str {
    origin.split_once(' ').map_or(origin, |(kind, _)| kind)
}

impl Cluster {
    /// A cluster in which all `kinds` are watched.
    pub(super) fn new(kinds: impl IntoIterator<Item = &'static str>) -> Self {
        Self { awaited: kinds.into_iter().collect(), unavailable: BTreeMap::new() }
    }

    /// Hands on what is told until one side listens or tells no more. A state is complete when every kind has said
    /// something, and then whenever nothing more waits.
    pub(super) async fn tell(mut self, told: &mut mpsc::Receiver<Told>, changes: &mpsc::Sender<Change>) {
        let mut waiting = Vec::new();
        while told.recv_many(&mut waiting, MOST_STEPS).await > 0 {
            for step in waiting.drain(..) {
                let Some(change) = self.take(step) else { continue };
                if changes.send(change).await.is_err() {
                    return;
                }
            }
            if self.awaited.is_empty() && self.complete(changes).await.is_err() {
                return;
            }
        }
    }

    fn take(&mut self, step: Told) -> Option<Change> {
        match step {
            Told::Put(kind, key, reading) => Some(Change::Put(key.of(kind), reading)),
            Told::Gone(kind, key) => Some(Change::Remove(key.of(kind))),
            Told::Complete(kind) => {
                self.awaited.remove(kind);
                self.unavailable.remove(kind);
                None
            }
            Told::Unavailable(kind, reason) => {
                self.awaited.remove(kind);
                self.unavailable.insert(kind, reason);
                None
            }
        }
    }

    /// Says that a state is complete, as far as the kinds can be read.
    async fn complete(&self, changes: &mpsc::Sender<Change>) -> Result<(), mpsc::error::SendError<Change>> {
        for (kind, reason) in &self.unavailable {
            changes.send(Change::Unavailable { origin: (*kind).into(), reason: Arc::clone(reason) }).await?;
        }
        changes.send(Change::Complete).await
    }
}
