//! What a route is attached to: a `Service`, whose calls the mesh routes, or what belongs to somebody else.
//!
//! The Gateway API takes a parent without `kind` for a `Gateway`. Who writes a route by hand for the mesh hardly means that,
//! so it has to be said.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backend::is_core;
use crate::kind::{self, Problem};

/// What the Gateway API takes a parent for that names no group.
const GATEWAY: &str = "gateway.networking.k8s.io";

/// A parent of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// Empty or `core` for a `Service`; of any other group the kinds are none of the mesh's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `Service` for a service whose requests are routed. A `Gateway` and what others route by is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The name of the service.
    pub name: String,
    /// Its namespace; that of the route when absent. Of a service elsewhere only calls from the route's namespace are routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only requests to the port of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// Only requests to this port of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl ParentRef {
    /// This service, or this port of it.
    pub(super) fn service(namespace: &str, name: &str, port: Option<u16>) -> Self {
        Self {
            group: None,
            kind: Some("Service".to_owned()),
            name: name.to_owned(),
            namespace: Some(namespace.to_owned()),
            section_name: None,
            port,
        }
    }

    /// True for a `Service`. One without a group is meant: there is no other of that name.
    ///
    /// ```
    /// use selvedge_policies::route::ParentRef;
    ///
    /// let of = |kind: Option<&str>| ParentRef { kind: kind.map(str::to_owned), name: "web".into(), ..ParentRef::default() };
    /// assert!(of(Some("Service")).is_service());
    /// assert!(!of(Some("Gateway")).is_service());
    /// assert!(!of(None).is_service(), "it would be a Gateway");
    /// ```
    pub fn is_service(&self) -> bool {
        self.kind.as_deref() == Some("Service") && self.group.as_deref().is_none_or(is_core)
    }

    /// The name of the port, when one is given; an empty one means the whole service (Gateway API, `sectionName`).
    pub(super) fn section(&self) -> Option<&str> {
        self.section_name.as_deref().filter(|name| !name.is_empty())
    }

    /// What is wrong with it, found at `path`; nothing with what belongs to others.
    pub(super) fn check(&self, path: &str, problems: &mut Vec<Problem>) {
        let is_gateways = self.group.as_deref().is_none_or(|group| group == GATEWAY);
        match self.kind.as_deref() {
            None => {
                let why = "a parent without kind is a Gateway in the Gateway API, and the mesh routes calls of a Service: \
                           expected kind: Service, group: \"\"";
                problems.push(Problem::new(path, why));
            }
            Some("Service") if self.is_service() => {
                problems.extend(kind::name_problem(&self.name).map(|why| Problem::new(format!("{path}.name"), why)));
                let namespace = self.namespace.as_deref().and_then(kind::name_problem);
                problems.extend(namespace.map(|why| Problem::new(format!("{path}.namespace"), why)));
            }
            Some("Service") if is_gateways => {
                let why = format!("group {GATEWAY} has no Service: expected group: \"\"");
                problems.push(Problem::new(format!("{path}.group"), why));
            }
            Some(kind) if self.group.as_deref().is_none_or(is_core) && !is_of_gateways(kind) => {
                let why = format!("kind '{kind}' is not known here{}", kind::suggest(kind, ["Service", "Gateway"]));
                problems.push(Problem::new(format!("{path}.kind"), why));
            }
            Some(_) => {}
        }
    }
}

/// The kinds of the Gateway API that routes may be attached to, and which need no group.
fn is_of_gateways(kind: &str) -> bool {
    matches!(kind, "Gateway" | "ListenerSet")
}
