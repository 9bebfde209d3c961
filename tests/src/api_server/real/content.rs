//! What a real server has before a test, and nothing else.

use http::Method;
use serde_json::{Value, json};

use crate::{
    api_server::{calls::Calls, kinds},
    wait,
};

/// Namespaces of every cluster.
const OWN: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes the kinds known that a cluster does not bring, as they may be: with any content.
pub(super) async fn define(calls: &Calls) {
    for kind in kinds::all().iter().filter(|kind| kind.is_custom()) {
        let (group, version) = kind.api_version.split_once('/').expect("an API group");
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{}.{group}", kind.plural),
                "annotations": { "api-approved.kubernetes.io": "unapproved, for tests" },
            },
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": { "kind": kind.name, "plural": kind.plural, "singular": kind.name.to_lowercase() },
                "versions": [{
                    "name": version, "served": true, "storage": true, "subresources": { "status": {} },
                    "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
                }],
            },
        });
        calls.apply(&definition, "test").await.unwrap_or_else(|refusal| panic!("{refusal}"));
    }
    for kind in kinds::all() {
        wait::until_true(&format!("the cluster knows {}", kind.name), || async {
            calls.read(&kind.path()).await.is_ok()
        })
        .await;
    }
}

/// Removes everything that is not the cluster's own; definitions of kinds stay.
pub(super) async fn empty(calls: &Calls) {
    for kind in kinds::all().iter().filter(|kind| kind.name != "CustomResourceDefinition") {
        let mut emptied = Vec::new();
        for object in calls.list(kind.name).await.iter().filter(|object| !is_own(kind.name, object)) {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
            let (namespace, name) = (text("namespace"), text("name"));
            if emptied.iter().any(|emptied| emptied == namespace) {
                continue;
            }
            // Where nothing is the cluster's own, one call removes all.
            let all_at_once = kind.is_namespaced && !OWN.contains(&namespace);
            if all_at_once {
                emptied.push(namespace.to_owned());
            }
            let path =
                if all_at_once { kind.path_in(namespace) } else { format!("{}/{name}", kind.path_in(namespace)) };
            delete(calls, &path).await;
            if kind.name == "Namespace" {
                finalize(calls, &path).await;
                until_forgotten(calls, name).await;
            }
        }
    }
}

async fn delete(calls: &Calls, path: &str) {
    let path = format!("{path}?gracePeriodSeconds=0");
    let deleted = calls.ask(Method::DELETE, &path, "application/json", &Value::Null).await;
    assert!(deleted.as_ref().err().is_none_or(|refusal| refusal.code == 404), "{path}: {deleted:?}");
}

/// Does what only a controller would, and there is none.
async fn finalize(calls: &Calls, path: &str) {
    let Ok(mut namespace) = calls.read(path).await else { return };
    namespace["spec"]["finalizers"] = json!([]);
    let done = calls.ask(Method::PUT, &format!("{path}/finalize"), "application/json", &namespace).await;
    done.unwrap_or_else(|refusal| panic!("{refusal}"));
}

/// Waits until the server has noticed that a namespace is gone: till then it takes nothing for another one of that name.
async fn until_forgotten(calls: &Calls, name: &str) {
    let metadata = json!({ "namespace": name, "name": "any" });
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
    let refused = async || calls.try_out(&object).await.is_err_and(|refusal| refusal.code == 404);
    wait::until_true(&format!("the namespace {name} is gone"), refused).await;
}

fn is_own(kind: &str, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    match kind {
        "Namespace" => OWN.contains(&name),
        "Service" | "EndpointSlice" => namespace == "default" && name == "kubernetes",
        "ConfigMap" | "Lease" => namespace == "kube-system",
        _ => metadata["labels"].get("kubernetes.io/bootstrapping").is_some() || name.starts_with("system:"),
    }
}
