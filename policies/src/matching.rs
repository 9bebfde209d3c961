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
    /// The name of the target, in the namespace of the policy; none for the mesh.
    #[serde(default, skip_serializing_if = "String::is_empty")]
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
        if target.kind == TargetKind::Mesh {
            let is_bare = target.name.is_empty() && target.port.is_none();
            problems.extend(
                (!is_bare).then(|| {
                    Problem::new("targetRef", "the mesh has no name and no port: expected none with kind Mesh")
                }),
            );
            return problems;
        }
        if target.kind == TargetKind::ExternalService {
            let why = "this policy is enforced at the called workload: expected Service or Workload";
            problems.push(Problem::new("targetRef.kind", why));
        }
        problems.extend(target.name_problem());
        problems
    }

    fn name_problem(&self) -> Option<Problem> {
        if self.name.is_empty() {
            return Some(Problem::new(
                "targetRef",
                format!("missing field 'name': expected that of a {:?}", self.kind),
            ));
        }
        kind::name_problem(&self.name).map(|why| Problem::new("targetRef.name", why))
    }

    /// What is wrong with the target of a policy of this kind, which is enforced where calls are made.
    pub(crate) fn caller_problems(&self, of: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let TargetKind::Workload | TargetKind::Mesh = self.kind {
            let why = format!("a {of} is about a Service or an ExternalService, not a {:?}", self.kind);
            problems.push(Problem::new("targetRef.kind", why));
        }
        problems.extend(self.name_problem());
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
    /// Every workload of the mesh, for policies in the namespace of those who run it.
    Mesh,
}
