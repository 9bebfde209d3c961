//! The objects with which an API server injects and warns by itself, in CEL.
//!
//! [`mutating`] needs Kubernetes 1.36 and [`requiring`] beside it; [`advising`] works in every version that is supported.
//! Below 1.36 a [`webhook`] of the control plane takes the place of the first two.

use serde_json::{Value, json};

use crate::{
    annotation::ANNOTATIONS,
    field::{annotation_in_cel, setting_in_cel, variable_of_annotation, variable_of_setting},
    setting::{self, SETTINGS},
    switch::{SYSTEM_NAMESPACES, selectors},
};

pub mod advising;
pub mod mutating;
pub mod requiring;
pub mod webhook;

/// Group and version of admission policies.
const API_VERSION: &str = "admissionregistration.k8s.io/v1";

/// An object that belongs to no namespace.
fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// A variable of a policy.
fn variable(name: &str, expression: &str) -> Value {
    json!({ "name": name, "expression": expression })
}

/// Two bindings of a policy with this spec, of which one takes each pod that should have a sidecar.
fn bindings(kind: &str, spec: &Value) -> [Value; 2] {
    selectors().map(|selectors| {
        let mut spec = spec.clone();
        spec["matchResources"] = json!({ "namespaceSelector": selectors.namespaces, "objectSelector": selectors.pods });
        object(kind, &format!("{}-{}", mutating::NAME, selectors.suffix), &spec)
    })
}

/// The constraints of a policy of new pods outside of the namespaces that no sidecar is put into.
fn pods() -> Value {
    let outside = json!({ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": SYSTEM_NAMESPACES });
    json!({
        "resourceRules": [
            { "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] },
        ],
        "namespaceSelector": { "matchExpressions": [outside] },
    })
}

/// The kind of the parameter of a policy: the settings. It is none of Kubernetes itself: of those an API server that has lost
/// its last policy with a parameter sees nothing for later ones, until it is started again.
fn kind_of_settings() -> Value {
    json!({ "apiVersion": setting::API_VERSION, "kind": setting::KIND })
}

/// The parameter of a binding; without it the policy does not count.
fn settings() -> Value {
    json!({ "name": setting::NAME, "namespace": setting::NAMESPACE, "parameterNotFoundAction": "Allow" })
}

/// The variables with what the administrator and the user say, of a pod with these `metadata`.
fn settings_and_annotations(metadata: &str) -> Vec<(String, String)> {
    let first = [
        ("settings".to_owned(), "params[?'spec'].orValue(dyn({}))".to_owned()),
        ("annotations".to_owned(), format!("{metadata}[?'annotations'].orValue(dyn({{}}))")),
    ];
    let settings = SETTINGS.iter().map(|setting| (variable_of_setting(setting), setting_in_cel(setting)));
    let annotations = ANNOTATIONS.iter().map(|known| (variable_of_annotation(known), annotation_in_cel(known)));
    first.into_iter().chain(settings).chain(annotations).collect()
}
