//! The objects with which an API server injects and warns by itself, in CEL.
//!
//! [`mutating`] needs Kubernetes 1.36, [`advising`] works in every version that is supported. Below 1.36 a [`webhook`] of the
//! control plane takes the place of [`mutating`].

use serde_json::{Value, json};

pub mod advising;
pub mod mutating;
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
