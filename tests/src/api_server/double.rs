//! A double of the API server of Kubernetes: what clients of it notice, and nothing else.
//!
//! It lists page by page, watches from a version on, sends bookmarks, counts one revision over everything, and forgets
//! old events when it is told to (410 Gone). It knows who owns which field, keeps `status` apart, and refuses what the real
//! one refuses, as far as a test depends on it. It calls webhooks about pods. It evaluates no CEL, has no schemas, and forbids nobody anything.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

mod admission;
mod answer;
mod asked;
mod fields;
mod objects;
mod rules;
mod tokens;
mod watching;

use super::calls::Upstream;
use objects::Objects;
use tokens::Tokens;

/// A double on a port of its own on loopback. It ends when it is dropped.
pub struct Double {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What a server had at a time.
pub struct Backup(Objects);

struct Shared {
    /// What there is; whoever watches waits for the next change of it.
    objects: watch::Sender<Objects>,
    tokens: watch::Sender<Tokens>,
    /// Where webhooks of a Service are called.
    routes: watch::Sender<BTreeMap<String, SocketAddr>>,
}

impl Double {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            objects: watch::Sender::new(Objects::new()),
            tokens: watch::Sender::default(),
            routes: watch::Sender::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    pub(super) fn upstream(&self) -> Upstream {
        Upstream { address: self.address, tls: None }
    }

    pub(super) fn route(&self, service: &str, address: SocketAddr) {
        self.shared.routes.send_modify(|routes| {
            routes.insert(service.to_owned(), address);
        });
    }

    /// Loses all objects without telling anybody, as a server over an empty database does.
    pub fn lose_everything(&self) {
        self.shared.objects.send_modify(Objects::lose_everything);
    }

    /// What it has now, to go back to.
    pub fn back_up(&self) -> Backup {
        Backup(self.shared.objects.borrow().clone())
    }

    /// Has again what it had, at the version of that time, and remembers nothing of what happened. Whoever watches is cut
    /// off, and who watches from a later version on is told nothing, as by a server over an etcd that was restored.
    pub fn restore(&self, backup: Backup) {
        self.shared.objects.send_modify(|objects| *objects = backup.0.restored());
    }

    /// Forgets all events up to now: whoever watches from before is told 410.
    pub fn compact(&self) {
        self.shared.objects.send_modify(Objects::compact);
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| answer::answer(Arc::clone(&shared), request));
            let _ended =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
