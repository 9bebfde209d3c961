//! Feeds a running store from its sources.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};

use super::{InForce, Reports, Store};
use crate::{
    Error, clock,
    snapshot::Snapshot,
    source::{Change, Source},
};

/// How many steps of all sources wait for the store.
const WAITING: usize = 64;
/// How often it is looked at whether something expires soon, or has.
const LOOK: Duration = Duration::from_secs(600);

/// Feeds a store from its sources until the last reader of snapshots is gone. `roots` are the trusted authorities; a change
/// of them makes a snapshot of its own. What is then in force goes to `saves`, from where [`keep`](super::keep) takes the
/// newest: nothing here waits for the disk.
///
/// # Errors
/// A source ended, or the store panicked: from then on no change would take effect.
pub async fn run(
    mut store: Store,
    sources: Vec<Source>,
    mut roots: watch::Receiver<Vec<bytes::Bytes>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    reports: watch::Sender<Arc<Reports>>,
    saves: watch::Sender<Arc<InForce>>,
) -> Result<(), Error> {
    sources.iter().for_each(|source| store.attend(&source.name));
    store.set_roots(roots.borrow_and_update().clone());
    let (sender, mut steps) = mpsc::channel(WAITING);
    // Ends with this.
    let mut telling = JoinSet::new();
    sources.into_iter().for_each(|source| drop(telling.spawn(tell(source, sender.clone()))));
    let mut rotates = true;
    loop {
        let step = tokio::select! {
            step = steps.recv() => match step {
                Some(Step::End) | None => return Err(Error::Frozen { why: "the source of configuration", source: None }),
                Some(step) => step,
            },
            rotated = roots.changed(), if rotates => {
                rotates = rotated.is_ok();
                Step::Roots(roots.borrow_and_update().clone())
            }
            () = sleep(LOOK), if store.model.expiring().next().is_some() => Step::Time,
            () = snapshots.closed() => return Ok(()),
        };
        let (mut same, published) = blocking(move || store.step(step)).await?;
        if let Some(snapshot) = published {
            let is_new = !Arc::ptr_eq(&snapshot, &snapshots.borrow());
            if is_new {
                snapshots.send_replace(snapshot);
            }
            // What is published comes first.
            let before = Arc::clone(&reports.borrow());
            let account = move || {
                let now = same.account_at(clock::unix());
                now.log(&before);
                let unsaved = same.unsaved();
                (same, now, unsaved)
            };
            let (now, unsaved);
            (same, now, unsaved) = blocking(account).await?;
            reports.send_replace(Arc::new(now));
            if let Some(in_force) = unsaved {
                saves.send_replace(Arc::new(in_force));
            }
        }
        store = same;
    }
}

/// Hands on what a source tells, and at last that it has ended.
async fn tell(mut source: Source, steps: mpsc::Sender<Step>) {
    while let Some(change) = source.changes.recv().await {
        if steps.send(Step::Change(source.name.clone(), change)).await.is_err() {
            return;
        }
    }
    // Nobody listens who could be told.
    steps.send(Step::End).await.ok();
}

/// Does work that takes time on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| Error::Frozen { why: "the store", source: Some(panic) })
}

/// What a running store is given.
enum Step {
    Change(Arc<str>, Change),
    Roots(Vec<bytes::Bytes>),
    /// It is time to look at the clock: something expires by itself.
    Time,
    /// A source has ended.
    End,
}

impl Store {
    /// Takes one step, and publishes when that is due. Compiling takes time, so this runs on a thread of its own while
    /// sidecars are served.
    fn step(mut self, step: Step) -> (Self, Option<Arc<Snapshot>>) {
        let due = match step {
            Step::Change(source, change) => self.take(&source, change),
            Step::Roots(roots) => {
                self.set_roots(roots);
                self.is_complete()
            }
            Step::Time => self.is_complete(),
            Step::End => false,
        };
        let published = due.then(|| self.publish());
        (self, published)
    }
}
