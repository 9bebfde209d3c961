//! How documents name what they apply to: targets, paths, headers, hosts, principals and networks.
//!
//! Every matcher is compiled once and matches without allocating.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod canonical;
pub mod cidr;
pub mod glob;
pub mod header;
pub mod host;
pub(crate) mod method;
pub mod path;
pub mod principal;
pub mod query;
pub mod text;

/// What a policy is attached to, in the namespace of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// The kind of the target.
    #[serde(default)]
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
    /// Only this port of it; every port when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// The kinds a policy can be attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TargetKind {
    /// A `Service`.
    #[default]
    Service,
    /// A `Workload`.
    Workload,
    /// An `ExternalService`.
    ExternalService,
}
