//! The injector as a webhook of the control plane, for clusters that cannot do it by themselves.
//!
//! The API server calls it only for pods that should have a sidecar, and refuses them when nobody answers. What proves the
//! control plane to it (`caBundle`) is written by the control plane alone, and so no part of the object.

use serde_json::{Value, json};

use crate::{
    policy::API_VERSION,
    setting::NAMESPACE,
    switch::{match_conditions, selectors},
};

/// Name of the configuration.
pub const NAME: &str = "selvedge-inject";
/// The Service of the control plane, in [`NAMESPACE`].
pub const SERVICE: &str = "selvedge";
/// The port of [`SERVICE`] that the webhook is behind.
pub const PORT: u16 = 15012;
/// Where the webhook is asked.
pub const PATH: &str = "/inject";
/// How long the API server waits for an answer, in seconds.
pub const TIMEOUT: u64 = 3;

/// The configuration of the webhook.
pub fn objects() -> Vec<Value> {
    let webhooks = selectors().map(|selectors| {
        json!({
            "name": format!("{}.inject.selvedge.dev", selectors.suffix),
            "clientConfig": {
                "service": { "namespace": NAMESPACE, "name": SERVICE, "port": PORT, "path": PATH },
            },
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                "scope": "Namespaced",
            }],
            "namespaceSelector": selectors.namespaces,
            "objectSelector": selectors.pods,
            "matchConditions": match_conditions(),
            "failurePolicy": "Fail",
            "timeoutSeconds": TIMEOUT,
            // Containers that others add afterwards have probes too, and must not come before the sidecar.
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        })
    });
    vec![json!({
        "apiVersion": API_VERSION, "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": NAME }, "webhooks": webhooks,
    })]
}

/// The name by which the API server knows who answers.
pub fn host() -> String {
    format!("{SERVICE}.{NAMESPACE}.svc")
}
