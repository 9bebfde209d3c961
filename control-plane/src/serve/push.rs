//! When a change is pushed: at once when it comes alone, and once for all when changes come in a burst.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::snapshot::Snapshot;

/// A burst is over when nothing came for this long.
const QUIET: Duration = Duration::from_millis(10);
/// A change waits no longer than this for the end of its burst.
const PATIENCE: Duration = Duration::from_millis(100);

/// `snapshots` without the intermediate ones of a burst, and the task that makes it so.
pub(super) fn debounced(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
) -> (impl Future<Output = ()> + use<>, watch::Receiver<Arc<Snapshot>>) {
    let (sender, receiver) = watch::channel(Arc::clone(&snapshots.borrow_and_update()));
    let task = async move {
        while snapshots.changed().await.is_ok() {
            settle(&mut snapshots).await;
            let newest = Arc::clone(&snapshots.borrow_and_update());
            sender.send_replace(newest);
        }
    };
    (task, receiver)
}

async fn settle(snapshots: &mut watch::Receiver<Arc<Snapshot>>) {
    let last = Instant::now() + PATIENCE;
    loop {
        snapshots.mark_unchanged();
        let quiet = (Instant::now() + QUIET).min(last);
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = sleep_until(quiet) => return,
        }
    }
}
