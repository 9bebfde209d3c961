//! `HTTPRoute`: which rule of a service's routes a request belongs to, and what the rule does.
//!
//! The types are the Gateway API's own; what this mesh does not do yet is refused by the check, never ignored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    advice,
    duration::Span,
    kind::{self, Kind},
    matching::{header::HeaderMatch, path::PathMatch, query::QueryParamMatch},
    policy::{self, Place, PolicyKind, Role},
};

mod backend;
mod bind;
mod check;
mod explain;
mod entry;
pub mod filter;
mod index;
mod parent;
mod resolve;
mod rule;
mod shadows;
mod table;
mod unusable;

pub use backend::BackendRef;
pub use explain::{Conditions, Considered, Outcome};
pub use filter::{Filter, Filters};
pub use parent::ParentRef;
pub use rule::{Backend, RouteRule, RouteTimeouts};
pub use table::RouteTable;

/// `spec` of an `HTTPRoute` (Gateway API v1).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSpec {
    /// The services whose requests it routes, and what else it is attached to, which is none of ours.
    pub parent_refs: Vec<ParentRef>,
    /// Only requests for these hosts; `*.` at the start matches one or more labels. All hosts when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// The rules; one that matches everything and keeps to the parent when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<HttpRouteRule>,
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

/// What the kind `HTTPRoute` says of itself to the registry.
pub const KIND: PolicyKind = PolicyKind {
    kind: Kind {
        name: "HTTPRoute",
        api_version: kind::GATEWAY,
        summary: "Routes requests of a service by path, header, query and method, with weights and header changes.",
        schema: || schemars::schema_for!(HttpRouteSpec),
        check: |document| kind::check(document, check::check),
        close: check::close,
    },
    place: Place::Both,
    role: Role::Routes(resolve::resolve),
    bind: bind::bind,
    explain: policy::no_rules,
    shadows: shadows::shadows,
    advise: advice::no_advice,
    weigh: policy::no_weight,
};
