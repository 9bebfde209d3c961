//! `HTTPRoute`: which rule of a service's routes a request belongs to, and what the rule does.
//!
//! The types are the Gateway API's own; what this mesh does not do yet is refused by the check, never ignored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::Span,
    kind::{self, Kind},
    matching::{header::HeaderMatch, path::PathMatch, query::QueryParamMatch},
    policy::{self, Place, PolicyKind, Role},
};

mod bind;
mod check;
mod explain;
mod entry;
pub mod filter;
mod index;
mod rule;
mod shadows;
mod table;

pub use explain::{Conditions, Considered, Outcome};
pub use filter::{Filter, Filters};
pub use rule::{Backend, RouteRule, RouteTimeouts};
pub use table::RouteTable;

/// `spec` of an `HTTPRoute` (Gateway API v1).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSpec {
    /// The services whose requests it routes.
    pub parent_refs: Vec<ParentRef>,
    /// Only requests for these hosts; `*.` at the start matches one or more labels. All hosts when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// The rules; one that matches everything and keeps to the parent when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<HttpRouteRule>,
}

/// A service whose requests are routed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// `gateway.networking.k8s.io` by default in the Gateway API; empty for a `Service`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// `Service`, the only kind whose requests are routed.
    #[serde(default = "service")]
    pub kind: String,
    /// The name of the service, in the namespace of the route.
    pub name: String,
    /// Its namespace; that of the route when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only requests to this port of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// One rule: what it matches and what it does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRouteRule {
    /// Its name in metrics and logs; its index when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// It applies when one of them matches; to every request when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HttpRouteMatch>,
    /// What is changed on the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Where requests go, by weight; to the parent when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
    /// How long requests may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<HttpRouteTimeouts>,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRouteMatch {
    /// Of the path; any when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Conditions on header fields, of which all must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// Conditions on query parameters, of which all must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<QueryParamMatch>,
    /// Of the method, upper case; any when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// A service that requests go to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// Empty for a `Service`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// `Service`, the only kind that requests are sent to.
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

/// Timeouts of a rule (GEP-1742); `0s` switches one off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRouteTimeouts {
    /// Of the whole request, over all tries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Span>,
    /// From the start of one try to its response head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Span>,
}

fn service() -> String {
    "Service".into()
}

fn one() -> u32 {
    1
}

/// What the kind `HTTPRoute` says of itself to the registry.
pub const KIND: PolicyKind = PolicyKind {
    kind: Kind {
        name: "HTTPRoute",
        api_version: "gateway.networking.k8s.io/v1",
        summary: "Routes requests of a service by path, header, query and method, with weights and header changes.",
        schema: || schemars::schema_for!(HttpRouteSpec),
        check: |document| kind::check(document, check::check),
        close: check::close,
    },
    place: Place::Both,
    role: Role::Routes,
    bind: bind::bind,
    explain: policy::no_rules,
    shadows: shadows::shadows,
};
