//! The control plane in a cluster: a Deployment that Pod Security `restricted` admits, and the Service that sidecars call.

use selvedge_inject::{policy::webhook, setting::Setting};
use serde_json::{Value, json};

use crate::{
    images::{self, ImageError, Images},
    object::{NAME, NAMESPACE, namespaced, object},
    version::Injector,
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
pub(crate) fn objects(
    images: &Images,
    injector: Injector,
    settings: &[(&Setting, String)],
) -> Result<Vec<Value>, ImageError> {
    let selector = json!({ "app.kubernetes.io/name": NAME });
    let reached = ports(injector).map(|(name, port)| json!({ "name": name, "port": port, "targetPort": name }));
    let service = json!({ "spec": { "selector": selector, "ports": reached.collect::<Vec<_>>() } });
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
                "containers": [container(images.reference(images::CONTROL_PLANE)?, arguments(injector, settings), injector)],
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

/// What others in the cluster connect to, by name.
fn ports(injector: Injector) -> impl Iterator<Item = (&'static str, u16)> {
    let webhook = (injector == Injector::Webhook).then_some(("webhook", webhook::PORT));
    [("sidecars", SIDECARS)].into_iter().chain(webhook)
}

/// The arguments of the program in its image, with these settings of sidecars.
pub fn arguments(injector: Injector, settings: &[(&Setting, String)]) -> Vec<String> {
    // Of both families, where there are both.
    let any = |port: u16| format!("[::]:{port}");
    let (listen, health, webhook) = (any(SIDECARS), any(HEALTH), any(webhook::PORT));
    let mut arguments =
        vec!["control-plane", "--kubernetes", "--state-dir", "/state", "--listen", &listen, "--health", &health];
    if injector == Injector::Webhook {
        arguments.extend(["--webhook", &webhook]);
    }
    let of_sidecars =
        settings.iter().flat_map(|(setting, value)| ["--sidecar".to_owned(), format!("{}={value}", setting.key)]);
    arguments.into_iter().map(str::to_owned).chain(of_sidecars).collect()
}

fn container(image: String, arguments: Vec<String>, injector: Injector) -> Value {
    let asks = |path: &str| json!({ "path": path, "port": "health" });
    let ports = ports(injector).chain([("health", HEALTH)]);
    let ports: Vec<Value> = ports.map(|(name, port)| json!({ "name": name, "containerPort": port })).collect();
    json!({
        "name": NAME,
        "image": image,
        "args": arguments,
        "ports": ports,
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
