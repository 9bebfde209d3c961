//! A mesh taken out of a cluster, step by step.
//!
//! Guarantees: what is deleted is named, one object after the other, in the order given; what is gone already is no error,
//! so a removal that was interrupted is done by doing it again; between two steps there is time for every API server to
//! notice.

use std::{collections::BTreeMap, path::Path, time::Duration};

use http::{Method, Request, header::CONTENT_TYPE};
use kube::Client;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::source::kubernetes::{self, ConnectError, SIDECAR};

/// The label of a namespace that asks for sidecars.
const LABEL: &str = "selvedge.dev/inject";
/// How often it is looked whether nodes are done.
const LOOK: Duration = Duration::from_secs(1);
/// How long all nodes of a cluster may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How many objects of a list are read at a time.
const PAGE: u32 = 500;

/// One object to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its API group and version.
    pub api_version: String,
    /// Its kind, as its documents name it.
    pub kind: String,
    /// The namespace it is in, if any.
    pub namespace: Option<String>,
    /// Its name among those of its kind there.
    pub name: String,
}

/// What is deleted before anything of the next step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What these objects are together.
    pub what: &'static str,
    /// The objects, in the order in which they go.
    pub targets: Vec<Target>,
    /// How long every API server has to notice that they are gone, before anything else goes.
    pub pause: Duration,
    /// For DaemonSets: the argument with which their program takes back what it changed on its node, when it ends.
    pub farewell: Option<&'static str>,
}

/// Pods of one owner that have a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Injected {
    /// The namespace they are in.
    pub namespace: String,
    /// What makes them, such as `deployment/web`; of others `pod/` and its name.
    pub owner: String,
    /// True for a pod that nothing makes anew when it is deleted.
    pub is_alone: bool,
}

impl Injected {
    /// How they are started again, as a command for people.
    pub fn restart(&self) -> String {
        let Self { namespace, owner, is_alone } = self;
        if *is_alone {
            return format!(
                "kubectl -n {namespace} get {owner} -o yaml | selvedge uninject | kubectl replace --force -f -  # nothing \
                 else makes it anew"
            );
        }
        if ["deployment/", "statefulset/", "daemonset/"].iter().any(|kind| owner.starts_with(kind)) {
            return format!("kubectl -n {namespace} rollout restart {owner}");
        }
        format!("kubectl -n {namespace} delete {owner}")
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl Target {
    fn path(&self) -> String {
        let root = if self.api_version.contains('/') { "apis" } else { "api" };
        let within = self.namespace.as_ref().map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        format!("/{root}/{}{within}/{}/{}", self.api_version, kubernetes::plural(&self.kind), self.name)
    }
}

/// Why a removal does not go on.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// There is no cluster to ask.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// An API server does not do what it is asked.
    #[error("{what} cannot be {done}; do it again when the cause is mended, what is gone stays gone")]
    Asked {
        /// What was asked for.
        what: String,
        /// What was to be done with it.
        done: &'static str,
        /// What the API server says.
        source: Box<kube::Error>,
    },
    /// Some nodes do not take back what was changed there.
    #[error(
        "{set} does not end on every node within ten minutes: see `kubectl -n selvedge-system get pods -o wide`, and do it \
         again when they are ready"
    )]
    Nodes {
        /// The DaemonSet.
        set: String,
    },
}

/// The cluster that a mesh is taken out of.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMetadata,
    items: Vec<Value>,
}

#[derive(Default, Deserialize)]
struct ListMetadata {
    #[serde(default, rename = "continue")]
    next: String,
}

impl Cluster {
    /// The cluster that [`kubernetes::client`] finds.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, ConnectError> {
        Ok(Self { client: kubernetes::client(kubeconfig).await? })
    }

    /// Whose pods run with a sidecar.
    ///
    /// # Errors
    /// An API server that does not tell.
    pub async fn injected(&self) -> Result<Vec<Injected>, RemovalError> {
        let pods = self.list("/api/v1/pods").await?;
        let mut found: Vec<Injected> = pods.iter().filter(|pod| has_sidecar(pod)).map(owner).collect();
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The namespaces that ask for sidecars by their label.
    ///
    /// # Errors
    /// An API server that does not tell.
    pub async fn asking(&self) -> Result<Vec<String>, RemovalError> {
        let namespaces = self.list("/api/v1/namespaces").await?;
        let asks = namespaces.iter().filter(|namespace| namespace["metadata"]["labels"][LABEL] == "enabled");
        Ok(asks.map(|namespace| text(&namespace["metadata"], "name")).collect())
    }

    /// What users have written of the kinds at these paths, as people name it.
    ///
    /// # Errors
    /// An API server that does not tell.
    pub async fn written(&self, paths: &BTreeMap<String, String>) -> Result<Vec<String>, RemovalError> {
        let mut found = Vec::new();
        for (kind, path) in paths {
            let objects = self.list(path).await?;
            let named = |metadata: &Value| format!("{kind} {}/{}", text(metadata, "namespace"), text(metadata, "name"));
            found.extend(objects.iter().map(|object| named(&object["metadata"])));
        }
        Ok(found)
    }

    /// What a step names and the cluster has.
    ///
    /// # Errors
    /// An API server that does not tell.
    pub async fn present<'a>(&self, step: &'a Step) -> Result<Vec<&'a Target>, RemovalError> {
        let mut present = Vec::new();
        for target in &step.targets {
            present.extend(self.read(target).await?.map(|_| target));
        }
        Ok(present)
    }

    /// Deletes what a step names, and tells of each object that was there.
    ///
    /// # Errors
    /// An API server that does not do it.
    pub async fn remove(&self, step: &Step, mut told: impl FnMut(&Target)) -> Result<(), RemovalError> {
        let mut was_there = false;
        for target in &step.targets {
            let deleted = match step.farewell {
                Some(argument) => self.take_back(target, argument).await?,
                None => self.delete(target).await?,
            };
            if deleted {
                was_there = true;
                told(target);
            }
        }
        if was_there {
            sleep(step.pause).await;
        }
        Ok(())
    }

    /// Has the program of a DaemonSet take back what it changed on each node: it is started anew with `argument`, by which it
    /// does so when it ends, and then it ends. True when there was such a DaemonSet.
    async fn take_back(&self, set: &Target, argument: &str) -> Result<bool, RemovalError> {
        let Some(object) = self.read(set).await? else { return Ok(false) };
        let mut containers = object["spec"]["template"]["spec"]["containers"].clone();
        let arguments = containers.get_mut(0).and_then(|container| container["args"].as_array_mut());
        if let Some(arguments) = arguments.filter(|arguments| !arguments.iter().any(|known| known == argument)) {
            arguments.push(argument.into());
            let patch = json!({ "spec": { "template": { "spec": { "containers": containers } } } });
            let patched = self.send(Method::PATCH, &set.path(), patch.to_string().into_bytes()).await;
            let _changed: Value = patched.map_err(|error| refused(set, "changed", error))?;
        }
        let taken_back = timeout(PATIENCE, async {
            while self.read(set).await?.is_some_and(|set| !is_rolled_out(&set)) {
                sleep(LOOK).await;
            }
            self.delete(set).await?;
            let pods = format!("/api/v1/namespaces/{}/pods", set.namespace.as_deref().unwrap_or_default());
            let is_of_it = |pod: &Value| pod["metadata"]["labels"]["app.kubernetes.io/name"] == *set.name;
            while self.list(&pods).await?.iter().any(is_of_it) {
                sleep(LOOK).await;
            }
            Ok(true)
        });
        taken_back.await.unwrap_or_else(|_| Err(RemovalError::Nodes { set: set.to_string() }))
    }

    async fn read(&self, target: &Target) -> Result<Option<Value>, RemovalError> {
        match self.send(Method::GET, &target.path(), Vec::new()).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(refused(target, "read", error)),
        }
    }

    /// True when it was there.
    async fn delete(&self, target: &Target) -> Result<bool, RemovalError> {
        match self.send::<Value>(Method::DELETE, &target.path(), Vec::new()).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(refused(target, "deleted", error)),
        }
    }

    /// Everything at a path, page by page; nothing where the cluster does not know the kind.
    async fn list(&self, path: &str) -> Result<Vec<Value>, RemovalError> {
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let token = if next.is_empty() { String::new() } else { format!("&continue={next}") };
            match self.send::<List>(Method::GET, &format!("{path}?limit={PAGE}{token}"), Vec::new()).await {
                Ok(list) => {
                    items.extend(list.items);
                    next = list.metadata.next;
                }
                Err(error) if is_absent(&error) => return Ok(items),
                Err(error) => {
                    return Err(RemovalError::Asked { what: path.to_owned(), done: "listed", source: Box::new(error) });
                }
            }
            if next.is_empty() {
                return Ok(items);
            }
        }
    }

    async fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> kube::Result<T> {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/merge-patch+json");
        self.client.request(request.body(body).map_err(kube::Error::HttpError)?).await
    }
}

fn refused(what: &Target, done: &'static str, error: kube::Error) -> RemovalError {
    RemovalError::Asked { what: what.to_string(), done, source: Box::new(error) }
}

/// True when every pod of a DaemonSet is of its newest form.
fn is_rolled_out(set: &Value) -> bool {
    let count = |field: &str| set["status"][field].as_u64().unwrap_or_default();
    let is_seen = count("observedGeneration") >= set["metadata"]["generation"].as_u64().unwrap_or_default();
    let wanted = count("desiredNumberScheduled");
    is_seen && count("updatedNumberScheduled") >= wanted && count("numberReady") >= wanted
}

fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// True for a pod that runs with a sidecar.
fn has_sidecar(pod: &Value) -> bool {
    let containers = ["containers", "initContainers"].iter().filter_map(|field| pod["spec"][field].as_array());
    let is_over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    !is_over && containers.flatten().any(|container| container["name"] == SIDECAR)
}

/// What makes a pod.
fn owner(pod: &Value) -> Injected {
    let metadata = &pod["metadata"];
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let made_by = owners.into_iter().find(|owner| owner["controller"] == true);
    let is_alone = made_by.is_none();
    let restarted = made_by.and_then(|owner| restarted(&text(owner, "kind"), &text(owner, "name"), metadata));
    let owner = restarted.unwrap_or_else(|| format!("pod/{}", text(metadata, "name")));
    Injected { namespace: text(metadata, "namespace"), owner, is_alone }
}

/// What `kubectl rollout restart` starts anew for a pod that an object of this kind and name makes, if anything.
fn restarted(kind: &str, name: &str, pod: &Value) -> Option<String> {
    match kind {
        // That of a Deployment is called by it, and by the hash that its pods have for a label.
        "ReplicaSet" => {
            let hash = format!("-{}", pod["labels"]["pod-template-hash"].as_str()?);
            name.strip_suffix(&hash).map(|deployment| format!("deployment/{deployment}"))
        }
        "StatefulSet" | "DaemonSet" => Some(format!("{}/{name}", kind.to_ascii_lowercase())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(owner_kind: &str, owner_name: &str, labels: Value) -> Value {
        json!({
            "metadata": {
                "namespace": "shop", "name": "web-1", "labels": labels,
                "ownerReferences": [{ "kind": owner_kind, "name": owner_name, "controller": true }],
            },
            "spec": { "initContainers": [{ "name": SIDECAR }], "containers": [{ "name": "web" }] },
            "status": { "phase": "Running" },
        })
    }

    #[test]
    fn pods_are_restarted_by_what_makes_them() {
        for (pod, restart) in [
            (pod("ReplicaSet", "web-5d8f7", json!({ "pod-template-hash": "5d8f7" })), "rollout restart deployment/web"),
            (pod("ReplicaSet", "web-5d8f7", json!({})), "delete pod/web-1"),
            (pod("StatefulSet", "web", json!({})), "rollout restart statefulset/web"),
            (pod("DaemonSet", "web", json!({})), "rollout restart daemonset/web"),
            (pod("Job", "web", json!({})), "delete pod/web-1"),
        ] {
            assert_eq!(owner(&pod).restart(), format!("kubectl -n shop {restart}"));
        }
        let mut alone = pod("Job", "web", json!({}));
        alone["metadata"]["ownerReferences"] = json!([]);
        let restart = owner(&alone).restart();
        assert!(restart.starts_with("kubectl -n shop get pod/web-1 -o yaml | selvedge uninject | "), "{restart}");
    }

    #[test]
    fn what_is_over_runs_no_sidecar() {
        let mut pod = pod("Job", "web", json!({}));
        assert!(has_sidecar(&pod));
        pod["status"]["phase"] = "Succeeded".into();
        assert!(!has_sidecar(&pod));
    }

    #[test]
    fn objects_are_where_their_api_has_them() {
        let target = |api_version: &str, kind: &str, namespace: Option<&str>| {
            let namespace = namespace.map(str::to_owned);
            Target { api_version: api_version.into(), kind: kind.into(), namespace, name: "a".into() }.path()
        };
        assert_eq!(target("v1", "Secret", Some("b")), "/api/v1/namespaces/b/secrets/a");
        assert_eq!(target("apps/v1", "Deployment", Some("b")), "/apis/apps/v1/namespaces/b/deployments/a");
        assert_eq!(target("v1", "Namespace", None), "/api/v1/namespaces/a");
    }
}
