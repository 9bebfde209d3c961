//! A route as it travels to those whom one of its services concerns.

use serde_json::Value;

use super::{HttpRouteSpec, ParentRef};
use crate::{
    kind,
    policy::{Resolved, Target},
};

/// [`Resolve`](crate::policy::Resolve) of routes: parents are that service alone, by the numbers of its ports, and backends
/// that may not be called answer with an error.
pub(super) fn resolve(document: &Value, resolved: &Resolved<'_>) -> Value {
    let Ok(mut spec) = kind::parse::<HttpRouteSpec>(document) else { return document.clone() };
    if let Target::Service(namespace, name) = resolved.target {
        spec.parent_refs = match &resolved.ports {
            None => vec![ParentRef::service(namespace, name, None)],
            Some(ports) => ports.iter().map(|port| ParentRef::service(namespace, name, Some(*port))).collect(),
        };
    }
    for (r, rule) in spec.rules.iter_mut().enumerate() {
        for (n, backend) in rule.backend_refs.iter_mut().enumerate() {
            if resolved.refused.iter().any(|path| **path == format!("rules[{r}].backendRefs[{n}]")) {
                *backend = backend.clone().not_granted();
            }
        }
    }
    kind::document(&spec)
}
