//! The plugin by which nodes load the capture rules of pods: one pod for each node keeps it there.

use serde_json::{Value, json};

use crate::{
    images::{self, ImageError, Images},
    object::namespaced,
};

/// The folders of the node's network plugins and of their configuration.
const FOLDERS: [(&str, &str, &str); 2] =
    [("bin", "--bin-dir", "/opt/cni/bin"), ("conf", "--conf-dir", "/etc/cni/net.d")];

/// The DaemonSet without what it is, to be named.
pub(crate) fn named() -> Value {
    namespaced("apps/v1", "DaemonSet", images::CNI, json!({}))
}

/// The DaemonSet. It runs on every node, also on those that take no other pods yet.
pub(crate) fn object(images: &Images) -> Result<Value, ImageError> {
    let selector = json!({ "app.kubernetes.io/name": images::CNI });
    let volumes = FOLDERS
        .map(|(name, _, path)| json!({ "name": name, "hostPath": { "path": path, "type": "DirectoryOrCreate" } }));
    let mut daemon_set = named();
    daemon_set["spec"] = json!({
        "selector": { "matchLabels": selector },
        "template": {
            "metadata": { "labels": selector },
            "spec": {
                "automountServiceAccountToken": false,
                // It is there before the node has a network for pods, so that none is given that network without it.
                "hostNetwork": true,
                "priorityClassName": "system-node-critical",
                "nodeSelector": { "kubernetes.io/os": "linux" },
                "tolerations": [{ "operator": "Exists" }],
                "securityContext": { "runAsUser": 0, "runAsGroup": 0, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [container(images.reference(images::CNI)?)],
                "volumes": volumes,
            },
        },
    });
    Ok(daemon_set)
}

/// A command of the program with the folders of the node.
fn command(name: &str) -> Vec<String> {
    let folders = FOLDERS.into_iter().flat_map(|(_, flag, path)| [flag.to_owned(), format!("/host{path}")]);
    [name.to_owned()].into_iter().chain(folders).collect()
}

/// The arguments of the program in its image.
pub fn arguments() -> Vec<String> {
    command("watch")
}

fn container(image: String) -> Value {
    let check: Vec<String> = [format!("/{}", images::CNI)].into_iter().chain(command("check")).collect();
    json!({
        "name": images::CNI,
        "image": image,
        "args": arguments(),
        "readinessProbe": { "exec": { "command": check }, "periodSeconds": 5 },
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": FOLDERS.map(|(name, _, path)| json!({ "name": name, "mountPath": format!("/host{path}") })),
    })
}
