//! A double of the API server of Kubernetes, for tests: what clients of it notice, and nothing else.
//!
//! It lists page by page, watches from a version on, sends bookmarks, counts one revision over everything, and forgets
//! old events when it is told to (410 Gone). It refuses what the real one refuses, as far as a test depends on it. On
//! demand it fails, loses its data, or does not know a kind.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

mod answer;
mod objects;

use objects::Objects;

/// A server on a port of its own on loopback. It ends when it is dropped.
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    /// What there is; whoever watches waits for the next change of it.
    objects: watch::Sender<Objects>,
    behaviour: watch::Sender<Behaviour>,
    /// Counts up when all open connections are to be closed.
    cuts: watch::Sender<u64>,
}

/// How it answers.
#[derive(Clone, Debug, Default)]
struct Behaviour {
    /// Every request gets this status.
    failing: Option<u16>,
    /// Paths of kinds that it does not know.
    unknown: Vec<String>,
    /// Paths of kinds that the client may not read.
    forbidden: Vec<String>,
    /// Paths whose lists it never answers.
    hanging: Vec<String>,
    /// How watches end that it was asked for.
    watching: Watching,
    /// How many lists of each path were asked for, pages after the first not counted.
    lists: Vec<String>,
    /// How many watches of each path were asked for.
    watches: Vec<String>,
}

/// What a client notices of a watch: events until it ends, or why there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watching {
    /// When their time is over.
    #[default]
    InTime,
    /// At once, without an event.
    AtOnce,
    /// At once, for every version is too old.
    Expired,
    /// Before they begin: the client may list and not watch.
    Forbidden,
}

impl ApiServer {
    /// Starts one without any object.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            objects: watch::Sender::default(),
            behaviour: watch::Sender::default(),
            cuts: watch::Sender::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// Puts an object in place of the one of its kind, namespace and name, as a client would by server-side apply.
    ///
    /// # Panics
    /// Where the real server refuses the object.
    pub fn put(&self, object: Value) {
        let mut put = Ok(());
        self.shared.objects.send_modify(|objects| put = objects.put(object));
        put.expect("an object that the real server takes");
    }

    /// Deletes an object.
    ///
    /// # Panics
    /// When there is no such object.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let mut is_there = false;
        self.shared.objects.send_modify(|objects| is_there = objects.delete(kind, namespace, name));
        assert!(is_there, "there is no {kind} {namespace}/{name} to delete");
    }

    /// Loses all objects without telling anybody, as a server over an empty database does.
    pub fn lose_everything(&self) {
        self.shared.objects.send_modify(Objects::lose_everything);
    }

    /// Counts a revision although no object changes, as every cluster does all the time.
    pub fn tick(&self) {
        self.shared.objects.send_modify(Objects::tick);
    }

    /// Forgets all events up to now: whoever watches from before is told 410.
    pub fn compact(&self) {
        self.shared.objects.send_modify(Objects::compact);
    }

    /// Closes every connection that is open.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Answers every request with this status from now on; as it should when it is `None`.
    pub fn fail(&self, status: Option<u16>) {
        self.shared.behaviour.send_modify(|behaviour| behaviour.failing = status);
    }

    /// Does not know what is listed at `path` from now on.
    pub fn unlearn(&self, path: &str) {
        self.shared.behaviour.send_modify(|behaviour| behaviour.unknown.push(path.to_owned()));
    }

    /// Forbids reading `path` from now on.
    pub fn forbid(&self, path: &str) {
        self.shared.behaviour.send_modify(|behaviour| behaviour.forbidden.push(path.to_owned()));
    }

    /// Takes lists of `path`, or no list any more, without answering.
    pub fn hang(&self, path: Option<&str>) {
        self.shared
            .behaviour
            .send_modify(|behaviour| behaviour.hanging = path.map(str::to_owned).into_iter().collect());
    }

    /// Ends watches so from now on.
    pub fn end_watches(&self, watching: Watching) {
        self.shared.behaviour.send_modify(|behaviour| behaviour.watching = watching);
    }

    /// How often a watch of `path` was asked for.
    pub fn watches(&self, path: &str) -> usize {
        self.shared.behaviour.borrow().watches.iter().filter(|watched| *watched == path).count()
    }

    /// How often `path` was listed.
    pub fn lists(&self, path: &str) -> usize {
        self.shared.behaviour.borrow().lists.iter().filter(|listed| *listed == path).count()
    }

    /// The address on loopback at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes the file by which clients find it into `folder`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn kubeconfig(&self, folder: &Path) -> PathBuf {
        let path = folder.join("kubeconfig.json");
        let named = |name: &str, what: &str, value: Value| json!([{ "name": name, what: value }]);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "double",
            "contexts": named("double", "context", json!({ "cluster": "double", "user": "double" })),
            "clusters": named("double", "cluster", json!({ "server": format!("http://{}", self.address) })),
            "users": named("double", "user", json!({ "token": "double" })),
        });
        std::fs::write(&path, config.to_string()).expect("a file for the client");
        path
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let mut cuts = shared.cuts.subscribe();
            let service = service_fn(|request| answer::answer(Arc::clone(&shared), request));
            let serving =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                served = serving => drop(served),
                _ = cuts.changed() => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
