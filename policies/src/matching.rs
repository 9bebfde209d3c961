//! How documents name what they apply to: targets, paths, headers, hosts, principals and networks.
//!
//! Every matcher is compiled once and matches without allocating.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{self, Problem};

pub(crate) mod advise;
pub mod canonical;
pub(crate) mod covers;
pub(crate) mod failing;
pub mod glob;
pub mod header;
pub mod host;
pub(crate) mod method;
pub mod operation;
pub mod path;
pub mod ports;
pub mod principal;
pub mod query;
pub mod rule;
pub mod text;

/// What a policy is attached to, in the namespace of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// The kind of the target.
    #[serde(default)]
    pub kind: TargetKind,
    /// The name of the target, in the namespace of the policy.
    pub name: String,
    /// Only this port of it; every port when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl TargetRef {
    /// What is wrong with the target of a policy that is enforced where calls arrive.
    pub(crate) fn called_problems(target: Option<&Self>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let Some(target) = target else { return problems };
        if target.kind == TargetKind::ExternalService {
            let why = "this policy is enforced at the called workload: expected Service or Workload";
            problems.push(Problem::new("targetRef.kind", why));
        }
        problems.extend(kind::name_problem(&target.name).map(|why| Problem::new("targetRef.name", why)));
        problems
    }

    /// What is wrong with the target of a policy of this kind, which is enforced where calls are made.
    pub(crate) fn caller_problems(&self, of: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.kind == TargetKind::Workload {
            let why = format!("a {of} is about a Service or an ExternalService, not a Workload");
            problems.push(Problem::new("targetRef.kind", why));
        }
        problems.extend(kind::name_problem(&self.name).map(|why| Problem::new("targetRef.name", why)));
        if self.port.is_some() {
            let why = format!("a {of} is about all ports of its service: leave the port out");
            problems.push(Problem::new("targetRef.port", why));
        }
        problems
    }
}

/// The kinds a policy can be attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TargetKind {
    /// A `Service`: every workload that it selects.
    #[default]
    Service,
    /// A `Workload`: one sidecar and the application beside it.
    Workload,
    /// An `ExternalService`: what is called outside the mesh.
    ExternalService,
}
