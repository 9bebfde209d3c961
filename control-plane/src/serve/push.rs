//! When a change is pushed, and to whom: once for all that comes in a burst, and only to streams it may concern.
//!
//! A rollout or a copied folder is many changes in a row. Pushed one by one each would wake every stream, so they are
//! debounced: what comes after a rest is pushed at once, and what follows right after it waits until nothing came for a
//! moment, and never longer than [`PATIENCE`], so that changes without end do not hold back the first of them.
//!
//! What sets a snapshot apart from the one published before is worked out here, once, and not by each of thousands of
//! streams; a stream that has seen that one looks only at the names that were touched. Published snapshots are no
//! queue: a stream that is slow finds the newest when it comes back, and then compares everything it has subscribed to.
//! So backpressure of one sidecar costs that sidecar intermediate versions, and the control plane no memory.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use selvedge_policies::names;
use selvedge_xds::{kinds::INBOUND, resource::TypeUrl, server};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::snapshot::Snapshot;

/// A burst is over when nothing came for this long.
const QUIET: Duration = Duration::from_millis(10);
/// A change waits no longer than this for the end of its burst.
const PATIENCE: Duration = Duration::from_millis(100);

/// A snapshot with what sets it apart from the one published before it. That is worked out once here, not by each of
/// thousands of streams.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) snapshot: Arc<Snapshot>,
    /// Its number as clients are told it.
    pub(super) version: Arc<str>,
    /// When it was there to be pushed.
    pub(super) at: Instant,
    /// Number of the snapshot published before.
    after: u64,
    touched: BTreeSet<(TypeUrl, Arc<str>)>,
}

impl Published {
    pub(super) fn new(snapshot: Arc<Snapshot>, before: &Snapshot) -> Self {
        let mut touched = BTreeSet::new();
        for change in snapshot.changed_since(before) {
            let earlier = before.get(change.kind, &change.name);
            // What a namespace sees of a service is asked for by the names of that.
            let of = names::viewed(&change.name).map(|(service, _)| service);
            let services = of.into_iter().flat_map(|of| [before, &snapshot].map(|all| all.get(change.kind, of)));
            let services: Vec<_> = services.flatten().collect();
            for resource in earlier.iter().chain(&change.now).chain(&services) {
                touched.extend(resource.aliases.iter().map(|alias| (change.kind, alias.as_str().into())));
            }
            touched.extend(services.iter().map(|service| (change.kind, service.name.as_str().into())));
            touched.insert((change.kind, change.name));
        }
        // Who may see an inbound view depends on identities, which are no resources.
        touched.extend(snapshot.reassigned_since(before).map(|workload| (INBOUND, Arc::clone(workload))));
        let version = snapshot.number().to_string().into();
        Self { snapshot, version, at: Instant::now(), after: before.number(), touched }
    }

    /// Tells a stream that has seen everything up to snapshot `seen` what may concern it.
    pub(super) fn tell(&self, stream: &mut server::Stream, seen: u64) {
        if seen != self.after {
            return stream.changed();
        }
        for (kind, name) in &self.touched {
            stream.changed_name(*kind, name);
        }
    }
}

/// What of `snapshots` is to be pushed, and the task that makes it so. `prepare` sees each before anybody else does.
pub(super) fn debounced(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    prepare: impl Fn(&Snapshot),
) -> (impl Future<Output = ()>, watch::Receiver<Arc<Published>>) {
    let mut last = Arc::clone(&snapshots.borrow_and_update());
    prepare(&last);
    let (sender, receiver) = watch::channel(Arc::new(Published::new(Arc::clone(&last), &Snapshot::default())));
    let task = async move {
        let mut rested = Instant::now();
        while snapshots.changed().await.is_ok() {
            if Instant::now() < rested {
                settle(&mut snapshots).await;
            }
            let newest = Arc::clone(&snapshots.borrow_and_update());
            prepare(&newest);
            sender.send_replace(Arc::new(Published::new(Arc::clone(&newest), &last)));
            last = newest;
            rested = Instant::now() + QUIET;
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

#[cfg(test)]
mod tests {
    use selvedge_xds::{kinds::DESTINATION, proto::mesh::Destination, resource::Encoded};

    use super::*;
    use crate::snapshot::{Draft, channel};

    fn next(before: &Snapshot, name: &str, aliases: &[&str], content: &str) -> Arc<Snapshot> {
        let mut draft = Draft::after(before);
        let message = Destination { name: content.into(), ..Destination::default() };
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        draft.put(Encoded::new(DESTINATION, name, aliases, &message), false);
        draft.set_complete(true);
        Arc::new(draft.finish().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_push_and_an_endless_one_does_not_starve() {
        let (sender, snapshots) = channel();
        let (task, mut pushed) = debounced(snapshots, |_| {});
        tokio::spawn(task);
        let mut pushes = 0;
        for n in 1..=100 {
            let newest = next(&sender.borrow(), "a/web", &[], &n.to_string());
            sender.send_replace(newest);
            tokio::time::sleep(Duration::from_millis(5)).await;
            pushes += u32::from(pushed.has_changed().unwrap());
            pushed.mark_unchanged();
        }
        assert!((5..=7).contains(&pushes), "{pushes} pushes in 500 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_a_rest_is_pushed_at_once_and_gathers_what_follows() {
        let (sender, snapshots) = channel();
        let (task, mut pushed) = debounced(snapshots, |_| {});
        tokio::spawn(task);
        tokio::time::sleep(QUIET).await;
        let change = |content: &str| {
            let newest = next(&sender.borrow(), "a/web", &[], content);
            sender.send_replace(newest);
        };
        for number in [1, 4] {
            let began = Instant::now();
            change("first");
            pushed.changed().await.unwrap();
            assert!(began.elapsed().is_zero(), "it waited {:?}", began.elapsed());
            assert_eq!(pushed.borrow_and_update().snapshot.number(), number);
            change("second");
            tokio::time::sleep(QUIET / 2).await;
            change("third");
            pushed.changed().await.unwrap();
            assert_eq!(pushed.borrow_and_update().snapshot.number(), number + 2, "both in one");
            assert!(began.elapsed() <= 2 * QUIET, "they waited {:?}", began.elapsed());
            tokio::time::sleep(QUIET).await;
        }
    }

    #[test]
    fn streams_learn_of_a_change_by_every_name_it_has_or_had() {
        let one = next(&Snapshot::default(), "a/web", &["old.a"], "1");
        let two = next(&one, "a/web", &["new.a"], "1");
        let published = Published::new(Arc::clone(&two), &one);
        let touched: Vec<&str> = published.touched.iter().map(|(_, name)| &**name).collect();
        assert_eq!(touched, ["a/web", "new.a", "old.a"]);
        let three = next(&two, "a/web@shop", &[], "2");
        let published = Published::new(Arc::clone(&three), &two);
        let touched: Vec<&str> = published.touched.iter().map(|(_, name)| &**name).collect();
        assert_eq!(touched, ["a/web", "a/web@shop", "new.a"], "what a namespace sees of it is asked for by its names");
        let mut draft = Draft::after(&three);
        draft.set_identity("a/web-1", Some("spiffe://mesh.local/ns/a/sa/web".into()));
        let four = Arc::new(draft.finish().unwrap());
        let published = Published::new(four, &three);
        assert_eq!(published.touched, [(INBOUND, "a/web-1".into())].into(), "who may see its view is another");
    }
}
