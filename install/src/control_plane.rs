//! The control plane in a cluster: a Deployment that Pod Security `restricted` admits, and the Service that sidecars call.

use serde_json::{Value, json};

use crate::{
    images::{self, ImageError, Images},
    object::{NAME, NAMESPACE, namespaced, object},
};

/// Where sidecars connect.
const SIDECARS: u16 = 15010;
/// Where a node asks whether it lives and is ready.
const HEALTH: u16 = 15011;
/// User and group of the process, of nobody else.
const USER: u32 = 65532;

/// The namespace, with the level of the Pod Security Standards that its pods are held to. They have no sidecar.
pub(crate) fn namespace(security: &str) -> Value {
    let mut namespace = object("v1", "Namespace", NAMESPACE, json!({}));
    namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = security.into();
    namespace["metadata"]["labels"]["selvedge.dev/inject"] = "disabled".into();
    namespace
}

/// The Deployment and its Service.
pub(crate) fn objects(images: &Images) -> Result<Vec<Value>, ImageError> {
    let selector = json!({ "app.kubernetes.io/name": NAME });
    let ports = [("sidecars", SIDECARS)];
    let service = json!({ "spec": {
        "selector": selector,
        "ports": ports.map(|(name, port)| json!({ "name": name, "port": port, "targetPort": name })),
    } });
    let deployment = json!({ "spec": {
        "replicas": 1,
        "selector": { "matchLabels": selector },
        "template": {
            "metadata": { "labels": selector },
            "spec": {
                "serviceAccountName": NAME,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                    "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [container(images.reference(images::CONTROL_PLANE)?)],
                "volumes": [{ "name": "state", "emptyDir": {} }],
            },
        },
    } });
    Ok(vec![namespaced("apps/v1", "Deployment", NAME, deployment), namespaced("v1", "Service", NAME, service)])
}

/// The Deployment and its Service without what they are, to be named.
pub(crate) fn named() -> Vec<Value> {
    [("apps/v1", "Deployment"), ("v1", "Service")].map(|(api, kind)| namespaced(api, kind, NAME, json!({}))).into()
}

/// The arguments of the program in its image.
pub fn arguments() -> Vec<String> {
    // Of both families, where there are both.
    let (listen, health) = (format!("[::]:{SIDECARS}"), format!("[::]:{HEALTH}"));
    let arguments =
        ["control-plane", "--kubernetes", "--state-dir", "/state", "--listen", &listen, "--health", &health];
    arguments.map(str::to_owned).into()
}

fn container(image: String) -> Value {
    let asks = |path: &str| json!({ "path": path, "port": "health" });
    let ports = [("sidecars", SIDECARS), ("health", HEALTH)];
    json!({
        "name": NAME,
        "image": image,
        "args": arguments(),
        "ports": ports.map(|(name, port)| json!({ "name": name, "containerPort": port })),
        "livenessProbe": { "httpGet": asks("/live"), "initialDelaySeconds": 10 },
        "readinessProbe": { "httpGet": asks("/ready"), "periodSeconds": 2 },
        "resources": { "requests": { "cpu": "50m", "memory": "64Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [{ "name": "state", "mountPath": "/state" }],
    })
}
