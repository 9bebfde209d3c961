//! What the watches tell, put together into states of the whole cluster.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use tokio::sync::{mpsc, watch};

use super::{
    pods::Pods,
    pruned::{Aside, Key},
};
use crate::source::{Change, Confirm, Confirms, Reading};

/// How many steps make one state at most, so that the store gets its turn while very much happens.
const MOST_STEPS: usize = 1024;

/// One step of the watch over a kind.
pub(super) enum Told {
    /// There is such an object, or it is not what it was.
    Put(&'static str, Key, Reading),
    /// What an object says of the cluster itself.
    Aside(Key, Aside),
    /// The object is gone.
    Gone(&'static str, Key),
    /// That was everything of the kind.
    Complete(&'static str),
    /// It cannot be told what there is of the kind, for that reason; what was told before stays.
    Unavailable(&'static str, Arc<str>),
    /// The cluster does not know the kind any more; these objects stay until somebody says that they are meant to be gone.
    Absent(&'static str, Arc<str>, Vec<Key>),
}

/// What is known of the kinds.
pub(super) struct Cluster {
    /// The kinds of which nothing is known yet.
    awaited: HashSet<&'static str>,
    /// The kinds that cannot be read now.
    unavailable: BTreeMap<&'static str, Unavailable>,
    /// Where a watch is told that its kind is meant to be gone.
    watches: HashMap<&'static str, watch::Sender<bool>>,
    pods: Pods,
}

/// A kind that cannot be read.
struct Unavailable {
    reason: Arc<str>,
    /// What goes when the kind is meant to be gone; nothing while it is only not to be read.
    absent: Vec<Key>,
}

impl Cluster {
    /// A cluster in which these kinds are watched, each with the place where its watch hears that it is meant to be gone.
    pub(super) fn new(watches: HashMap<&'static str, watch::Sender<bool>>, pods: Pods) -> Self {
        Self { awaited: watches.keys().copied().collect(), unavailable: BTreeMap::new(), watches, pods }
    }

    /// Hands on what is told until one side listens or tells no more. A state is complete when every kind has said
    /// something, and then whenever nothing more waits.
    pub(super) async fn tell(
        mut self,
        told: &mut mpsc::Receiver<Told>,
        mut confirms: Confirms,
        changes: &mpsc::Sender<Change>,
    ) {
        let mut waiting = Vec::new();
        loop {
            let news: Vec<Change> = tokio::select! {
                count = told.recv_many(&mut waiting, MOST_STEPS) => match count {
                    0 => return,
                    _ => waiting.drain(..).filter_map(|step| self.take(step)).collect(),
                },
                Some(confirm) = confirms.recv() => self.confirm(confirm),
            };
            for change in news {
                if changes.send(change).await.is_err() {
                    return;
                }
            }
            if self.awaited.is_empty() && self.complete(changes).await.is_err() {
                return;
            }
        }
    }

    /// What goes because it is said to be meant: the objects of a kind that the cluster does not know any more.
    fn confirm(&mut self, Confirm { paths, done }: Confirm) -> Vec<Change> {
        let is_meant = |kind: &str| paths.iter().any(|path| path.as_os_str() == kind);
        let gone: Vec<(&str, Unavailable)> =
            self.unavailable.extract_if(.., |kind, how| !how.absent.is_empty() && is_meant(kind)).collect();
        let mut changes = Vec::new();
        for (kind, Unavailable { absent, .. }) in &gone {
            tracing::info!(
                kind,
                objects = absent.len(),
                "what the cluster has lost of this kind is confirmed as meant"
            );
            self.watches.get(kind).map(|watch| watch.send_replace(true));
            changes.extend(absent.iter().map(|key| Change::Confirmed(key.of(kind))));
        }
        // Whoever asked may have gone.
        done.send(gone.into_iter().map(|(kind, _)| kind.into()).collect()).ok();
        changes
    }

    fn take(&mut self, step: Told) -> Option<Change> {
        match step {
            Told::Aside(key, aside) => {
                self.pods.put(key, aside);
                None
            }
            Told::Put(kind, key, reading) => Some(Change::Put(key.of(kind), reading)),
            Told::Gone(kind, key) => {
                self.pods.remove(kind, &key);
                Some(Change::Remove(key.of(kind)))
            }
            Told::Complete(kind) => {
                self.awaited.remove(kind);
                self.unavailable.remove(kind);
                None
            }
            Told::Unavailable(kind, reason) => {
                self.awaited.remove(kind);
                self.unavailable.insert(kind, Unavailable { reason, absent: Vec::new() });
                None
            }
            Told::Absent(kind, reason, absent) => {
                self.awaited.remove(kind);
                // One more try may have begun before it was said that it is meant.
                if !self.watches.get(kind).is_some_and(|confirmed| *confirmed.borrow()) {
                    self.unavailable.insert(kind, Unavailable { reason, absent });
                }
                None
            }
        }
    }

    /// Says that a state is complete, as far as the kinds can be read.
    async fn complete(&self, changes: &mpsc::Sender<Change>) -> Result<(), mpsc::error::SendError<Change>> {
        for (kind, Unavailable { reason, .. }) in &self.unavailable {
            changes.send(Change::Unavailable { origin: (*kind).into(), reason: Arc::clone(reason) }).await?;
        }
        changes.send(Change::Complete).await
    }
}
