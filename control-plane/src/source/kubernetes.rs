//! The API server of a cluster, watched.
//!
//! Every kind in [`watched`] is listed once and watched from there on. A complete list replaces what was known of its
//! kind: what it lacks was deleted. Between lists, and while the API server is away, nothing is taken away. What is deleted
//! is gone at once; only a list without a single object of a kind that had some, after an error, has to be confirmed by a
//! second one that is newer, for a server that has lost its data answers like one whose users have deleted everything.
//!
//! Nothing is kept that the mesh does not need: an object is pruned while it is read, before the next one is. Objects that
//! users write for the mesh are handed on as they are, and checked like documents of files; of a pod a `Workload` is made,
//! which says whether a sidecar stands before it.

use std::{collections::HashSet, fmt, path::Path, sync::Arc};

use tokio::{sync::mpsc, task::JoinSet};

use super::{Change, Source};

mod connect;
mod document;
mod kind;
mod list;
mod pod;
mod pruned;
mod told;
mod watch;

pub use connect::ConnectError;
pub use kind::{Watched, plural, watched};
pub use pod::SIDECAR;
pub use pruned::Api;
pub use watch::Pace;

/// The name of this source.
pub const NAME: &str = "kubernetes";

/// How many steps of all watches wait to be told.
const WAITING: usize = 256;

/// A cluster to be watched.
pub struct Cluster {
    client: kube::Client,
    had: HashSet<String>,
    pace: Pace,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("had", &self.had).finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster of that kubeconfig file, in its current context; the one this process runs in when there is none. From
    /// the origins in `known` objects are in force from before the start.
    ///
    /// # Errors
    /// A file that cannot be used, or a process that runs in no pod.
    pub async fn connect(
        kubeconfig: Option<&Path>,
        known: impl Iterator<Item = &Arc<str>>,
    ) -> Result<Self, ConnectError> {
        let client = connect::client(kubeconfig).await?;
        let had = known.map(|origin| told::kind_of(origin).to_owned()).collect();
        Ok(Self { client, had, pace: Pace::default() })
    }

    /// Takes its time so.
    #[must_use]
    pub fn at_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// The cluster as a source; it is watched until nobody listens any more.
    pub fn source(self) -> Source {
        let (changes, receiver) = mpsc::channel(WAITING);
        tokio::spawn(follow(self, changes));
        Source { name: NAME.into(), changes: receiver }
    }
}

async fn follow(cluster: Cluster, changes: mpsc::Sender<Change>) {
    let (steps, mut told) = mpsc::channel(WAITING);
    let kinds = watched();
    let state = told::Cluster::new(kinds.iter().map(|watched| watched.api.kind));
    // Ends with this.
    let mut watches = JoinSet::new();
    for watched in kinds {
        let (had, follow) = (cluster.had.contains(watched.api.kind), watched.follow);
        watches.spawn(follow(watch::Watch::new(cluster.client.clone(), cluster.pace, watched.api, had, steps.clone())));
    }
    drop(steps);
    tokio::select! {
        () = state.tell(&mut told, &changes) => {}
        () = changes.closed() => {}
    }
}
