//! API servers of Kubernetes for tests, with one face: a double of our own, which is always there, and a real one with its
//! etcd, when the folder that `KUBEBUILDER_ASSETS` names has both programs.
//!
//! A test writes to the server itself; what is under test talks to it through a [`FaultyRelay`], which fails, delays,
//! repeats and cuts as it is told, whichever server is behind it. What only the double can do is in [`Double`].

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

mod calls;
mod double;
mod kinds;
mod real;
mod relay;
mod status;

pub use calls::{Calls, Refusal};
pub use double::{Backup, Double};
pub use kinds::{Kind, kind};
pub use relay::{FaultyRelay, Watching};

/// The user who may do everything.
const ADMIN: &str = "admin";

/// A server that is the test's own until it is dropped, without an object of the test's.
pub struct ApiServer {
    calls: Calls,
    relay: FaultyRelay,
    server: Server,
}

enum Server {
    Double(Double),
    Real(real::Turn),
}

/// Every server a test is to run against, one after the other.
#[derive(Debug, Default)]
pub struct Each {
    given: usize,
}

impl Each {
    /// The next one; `None` after the last.
    pub async fn next(&mut self) -> Option<ApiServer> {
        self.given += 1;
        match self.given {
            1 => Some(ApiServer::double().await),
            2 => ApiServer::real().await,
            _ => None,
        }
    }
}

impl ApiServer {
    /// The double, and then a real server, if there is one.
    pub fn each() -> Each {
        Each::default()
    }

    /// A double of its own.
    pub async fn double() -> Self {
        let double = Double::start().await;
        Self::over(double.upstream(), Server::Double(double)).await
    }

    /// The real server of this test binary, emptied; `None`, after saying so, when there is none.
    pub async fn real() -> Option<Self> {
        let turn = real::turn().await?;
        Some(Self::over(turn.upstream(), Server::Real(turn)).await)
    }

    async fn over(upstream: calls::Upstream, server: Server) -> Self {
        let relay = FaultyRelay::start(upstream.clone()).await;
        let this = Self { calls: Calls::new(upstream, ADMIN), relay, server };
        if let Server::Real(turn) = &this.server {
            turn.empty(&this.calls).await;
        }
        this
    }

    /// The way to the server of what is under test.
    pub fn relay(&self) -> &FaultyRelay {
        &self.relay
    }

    /// Calls of the server as a user who may do everything, past the relay.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Whether it carries out admission policies: a real server does.
    pub fn carries_out_policies(&self) -> bool {
        matches!(self.server, Server::Real(_))
    }

    /// What only the double can do.
    ///
    /// # Panics
    /// When the server is a real one.
    pub fn only_double(&self) -> &Double {
        match &self.server {
            Server::Double(double) => double,
            Server::Real(_) => panic!("a real server cannot do this; start one with ApiServer::double()"),
        }
    }

    /// Where webhooks of a Service `namespace/name` are called: there is no network of pods.
    pub fn route(&self, service: &str, address: std::net::SocketAddr) {
        match &self.server {
            Server::Double(double) => double.route(service, address),
            Server::Real(turn) => turn.route(service, address),
        }
    }

    /// Puts an object in place of the one of its kind, namespace and name by server-side apply, its status too, and its
    /// namespace when that is not there yet.
    ///
    /// # Panics
    /// Where the server refuses the object.
    pub async fn put(&self, object: Value) {
        self.try_put(&object).await.unwrap_or_else(|refusal| panic!("{refusal}: {object:#}"));
    }

    /// Like [`put`](Self::put), with what the server has to say against it.
    pub async fn try_put(&self, object: &Value) -> Result<(), Refusal> {
        if let Err(refusal) = self.calls.apply(object, "test").await {
            let namespace = object["metadata"]["namespace"].as_str().filter(|_| refusal.code == 404).ok_or(refusal)?;
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
            self.calls.apply(&namespace, "test").await?;
            self.calls.apply(object, "test").await?;
        }
        if !object["status"].is_null() && kinds::of(object).has_status {
            self.calls.apply_status(object, "test").await?;
        }
        Ok(())
    }

    /// Deletes an object at once.
    ///
    /// # Panics
    /// When there is no such object.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.calls.delete(kind, namespace, name).await.unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    /// A token of the pod `namespace/name` for its service account, as a kubelet projects it for this audience.
    ///
    /// # Panics
    /// When there is no such pod.
    pub async fn token(&self, namespace: &str, pod: &str, audience: &str) -> String {
        let found = self.calls.get("Pod", namespace, pod).await.expect("a pod to make a token for");
        let account = found["spec"]["serviceAccountName"].as_str().unwrap_or("default");
        let metadata = json!({ "namespace": namespace, "name": account });
        self.put(json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })).await;
        let bound = json!({ "apiVersion": "v1", "kind": "Pod", "name": pod, "uid": found["metadata"]["uid"] });
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "audiences": [audience], "boundObjectRef": bound },
        });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let issued = self.calls.post(&path, &request).await.unwrap_or_else(|refusal| panic!("{refusal}"));
        issued["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// The object of that kind, namespace and name, if there is one.
    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.calls.get(kind, namespace, name).await
    }

    /// All objects of a kind, in all namespaces.
    pub async fn all(&self, kind: &str) -> Vec<Value> {
        self.calls.list(kind).await
    }

    /// Counts a revision although no object of the mesh's changes, as every cluster does all the time.
    pub async fn tick(&self) {
        let name = format!("tick-{}", fastrand::u64(..));
        let tick =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": "default", "name": name } });
        self.put(tick).await;
    }

    /// Writes the file by which a user who may do everything finds the relay into `folder`.
    pub fn kubeconfig(&self, folder: &Path) -> PathBuf {
        self.kubeconfig_of(ADMIN, folder)
    }

    /// Writes the file by which whoever has `token` finds the relay into `folder`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn kubeconfig_of(&self, token: &str, folder: &Path) -> PathBuf {
        write_kubeconfig(json!({ "server": format!("http://{}", self.relay.address()) }), token, folder)
    }

    /// Writes the file by which `kubectl`, as a user who may do everything, finds a real server into `folder`: past the
    /// relay, for kubectl shows no token where there is no TLS.
    ///
    /// # Panics
    /// When the server is the double, of which kubectl asks more than it knows, or the file cannot be written.
    pub fn kubeconfig_of_kubectl(&self, folder: &Path) -> PathBuf {
        let Server::Real(turn) = &self.server else { panic!("kubectl cannot talk to the double") };
        let server = format!("https://{}", turn.upstream().address);
        write_kubeconfig(json!({ "server": server, "insecure-skip-tls-verify": true }), ADMIN, folder)
    }
}

fn write_kubeconfig(cluster: Value, token: &str, folder: &Path) -> PathBuf {
    let path = folder.join("kubeconfig.json");
    let named = |what: &str, value: Value| json!([{ "name": "test", what: value }]);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": named("context", json!({ "cluster": "test", "user": "test" })),
        "clusters": named("cluster", cluster),
        "users": named("user", json!({ "token": token })),
    });
    std::fs::write(&path, config.to_string()).expect("a file for the client");
    path
}
