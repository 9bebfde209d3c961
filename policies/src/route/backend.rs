//! Where a rule sends requests: a `Service`, or what cannot be used and is answered for with an error.
//!
//! What cannot be used stands in its place with its weight, so that nobody gets its share of the requests (Gateway API,
//! `HTTPBackendRef`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Filter;

/// A service that requests go to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// Empty or `core` for a `Service`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// `Service`, the only kind that requests are sent to; what goes to any other is answered with an error.
    #[serde(default = "service")]
    pub kind: String,
    /// The name of the service, in `namespace`.
    pub name: String,
    /// Its namespace; that of the route when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The port of the service to send to; the one the request was sent to when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its share of the requests, in proportion to the other weights.
    #[serde(default = "one")]
    pub weight: u32,
    /// What is changed on the way to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
}

/// The group of the kinds that stand for backends which the mesh itself found to be of no use.
const OURS: &str = "selvedge.dev";
/// Stands for a service of another namespace that no `ReferenceGrant` opens.
const NOT_GRANTED: &str = "NotGranted";
/// Stands for what a filter was to do that is not supported.
const UNSUPPORTED: &str = "UnsupportedFilter";

impl BackendRef {
    /// True for a `Service`.
    pub(super) fn is_service(&self) -> bool {
        is_core(&self.group) && self.kind == "Service"
    }

    /// Takes its place where a filter of this name is not supported: its requests are answered with an error.
    pub(super) fn unsupported(filter: &str, weight: u32) -> Self {
        let (group, kind, name) = (OURS.to_owned(), UNSUPPORTED.to_owned(), filter.to_owned());
        Self { group, kind, name, namespace: None, port: None, weight, filters: Vec::new() }
    }

    /// Takes its place where no grant opens it to the route.
    pub(super) fn not_granted(self) -> Self {
        Self { group: OURS.to_owned(), kind: NOT_GRANTED.to_owned(), filters: Vec::new(), ..self }
    }

    /// Why no request can go there, whatever else there is; `None` for a service. `home` is the namespace of the route.
    pub(super) fn unusable(&self, home: &str) -> Option<String> {
        let Self { group, kind, name, .. } = self;
        let namespace = self.namespace.as_deref().unwrap_or(home);
        match (&**group, &**kind) {
            _ if self.is_service() => None,
            (OURS, NOT_GRANTED) => {
                Some(format!("no ReferenceGrant of namespace {namespace} opens Service {name} to routes of {home}"))
            }
            (OURS, UNSUPPORTED) => Some(format!("the filter {name} is not supported")),
            _ => Some(format!("the backend {kind} {namespace}/{name} is no Service")),
        }
    }
}

/// True for the ways in which the group of Kubernetes' core is written.
pub(super) fn is_core(group: &str) -> bool {
    matches!(group, "" | "core")
}

fn service() -> String {
    "Service".into()
}

fn one() -> u32 {
    1
}
