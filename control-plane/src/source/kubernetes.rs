//! The API server of a cluster, watched.
//!
//! Every kind in [`watched`] is listed once and watched from there on. A complete list replaces what was known of its
//! kind: what it lacks was deleted. Between lists, and while the API server is away, nothing is taken away. What is deleted
//! is gone at once; only a list without a single object of a kind that had some, after an error, has to be confirmed by a
//! second one that is newer, for a server that has lost its data answers like one whose users have deleted everything.
//!
//! Nothing is kept that the mesh does not need: an object is pruned while it is read, before the next one is. Objects that
//! users write for the mesh are handed on as they are, and checked like documents of files; of a pod a `Workload` is made,
//! which says whether a sidecar stands before it; of a node its zone and pod networks are left, and of a namespace whether
//! its pods are to have sidecars.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{Change, Confirms, Source};

mod connect;
mod document;
mod event;
mod injection;
mod item;
mod kind;
mod list;
mod namespace;
mod node;
mod pod;
mod pods;
mod pruned;
mod read;
mod told;
mod version;
mod watch;

pub use connect::{ConnectError, client};
pub(crate) use injection::configs as injection_configs;
use item::Item;
pub use kind::{Watched, plural, watched};
use pod::Pod;
pub use pod::SIDECAR;
pub use pods::Pods;
use pruned::Key;
pub use pruned::{Api, Known, Lacking, Misspelt, Named};
pub use read::{Unlisted, once};
pub use version::{NEWEST, OLDEST, TooOld};
pub use watch::Pace;
pub(crate) use watch::told as explain;

/// How long the API server may take to answer one question.
const ANSWER: Duration = Duration::from_secs(10);

/// The name of this source.
pub const NAME: &str = "kubernetes";

/// How many steps of all watches wait to be told.
const WAITING: usize = 256;

/// A cluster to be watched.
pub struct Cluster {
    client: kube::Client,
    /// The objects that are in force from before the start, by kind.
    known: HashMap<String, HashSet<Key>>,
    pace: Pace,
    confirms: Confirms,
    pods: Pods,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster that [`client`] finds. From the origins in `known` objects are in force from before the start.
    ///
    /// # Errors
    /// A file that cannot be used, or a process that runs in no pod.
    pub async fn connect(
        kubeconfig: Option<&Path>,
        known: impl Iterator<Item = &Arc<str>>,
    ) -> Result<Self, ConnectError> {
        Ok(Self::new(connect::client(kubeconfig).await?, known))
    }

    /// The cluster behind this client, with `known` as for [`Cluster::connect`].
    pub fn new<'a>(client: kube::Client, known: impl Iterator<Item = &'a Arc<str>>) -> Self {
        let mut by_kind: HashMap<String, HashSet<Key>> = HashMap::new();
        for (kind, key) in known.map(|origin| Key::told(origin)) {
            by_kind.entry(kind.to_owned()).or_default().insert(key);
        }
        // Nobody confirms anything.
        let (_, confirms) = mpsc::channel(1);
        Self { client, known: by_kind, pace: Pace::default(), confirms, pods: Pods::default() }
    }

    /// The pods that there are, as the watch tells of them.
    pub fn pods(&self) -> Pods {
        self.pods.clone()
    }

    /// Hears from here that a kind which the cluster does not know any more is meant to be gone.
    #[must_use]
    pub fn confirmed_by(self, confirms: Confirms) -> Self {
        Self { confirms, ..self }
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

/// Makes an Event about the object that `about` refers to; that it cannot be made is logged and no more. `weight` is
/// `Normal` or `Warning`.
pub(crate) async fn tell(client: &kube::Client, about: &serde_json::Value, weight: &str, reason: &str, message: &str) {
    if let Err(error) = answered(event::create(client, about, weight, reason, message)).await {
        tracing::warn!(reason, "no Event could be made: {}", explain(&error));
    }
}

/// The answer of the API server to one question, or that there was none in time.
pub(crate) async fn answered<T>(question: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    timeout(ANSWER, question).await.map_err(|_| list::unanswered(ANSWER))?
}

/// The name of a pod with a sidecar, `namespace/name`, if there is one.
pub(crate) async fn any_injected(client: &kube::Client) -> kube::Result<Option<String>> {
    let has_sidecar = |item: &Item<Pod>| matches!(item, Item::Read(pod) if pod.has_sidecar());
    let found = list::any(client, &kind::pods(), ANSWER, has_sidecar).await?;
    Ok(found.map(|key| key.to_string()))
}

async fn follow(cluster: Cluster, changes: mpsc::Sender<Change>) {
    let Cluster { client, mut known, pace, confirms, pods } = cluster;
    let (steps, mut told) = mpsc::channel(WAITING);
    let mut confirmed = HashMap::new();
    // Ends with this.
    let mut watches = JoinSet::new();
    for Watched { api, follow, .. } in watched() {
        let (kind, keys) = (api.kind, known.remove(api.kind).unwrap_or_default());
        let watch = watch::Watch::new(client.clone(), pace, api, keys, steps.clone());
        confirmed.insert(kind, watch.confirmed());
        watches.spawn(follow(watch));
    }
    drop(steps);
    let state = told::Cluster::new(confirmed, pods);
    tokio::select! {
        () = state.tell(&mut told, confirms, &changes) => {}
        () = changes.closed() => {}
    }
}
