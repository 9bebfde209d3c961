//! The nouns of the mesh, and how they refer to each other.
//!
//! An object is one YAML document the user wrote, checked. The [`Model`] holds all objects in force and finds,
//! without looking at all of them, which workloads a service selects, which services select a workload, and what
//! is attached to a target. A new policy kind needs nothing here: its family says where it is enforced.

use std::{collections::BTreeMap, fmt, sync::Arc};

use selvedge_policies::{
    kind::{self, Kind, Problem},
    merge::Precedence,
    names, registry,
};
use serde_json::Value;

pub mod attached;
pub mod claims;
pub mod endpoint_slice;
pub mod external_service;
pub mod granted;
mod index;
pub mod mesh_policy;
pub mod networks;
pub mod node;
pub mod nodes;
pub mod pods;
pub mod reference_grant;
pub mod service;
pub mod workload;

pub use attached::Attached;
use endpoint_slice::EndpointSliceSpec;
use external_service::ExternalServiceSpec;
pub use index::Model;
use mesh_policy::MeshPolicySpec;
use node::NodeSpec;
use reference_grant::ReferenceGrantSpec;
pub use selvedge_policies::policy::{Place, Target};
use service::ServiceSpec;
use workload::WorkloadSpec;

/// A kind that is a noun of the mesh, and how the `spec` of an object in a namespace is read.
pub struct Noun {
    /// What it says of itself.
    pub kind: &'static Kind,
    read: fn(&Value, &str) -> Result<Spec, Vec<Problem>>,
}

/// The nouns; the other kinds are policies and routes, listed in [`registry`].
pub const NOUNS: [Noun; 7] = [
    Noun { kind: &service::KIND, read: |document, _| kind::parse(document).map(Spec::Service) },
    Noun { kind: &workload::KIND, read: |document, _| kind::parse(document).map(Spec::Workload) },
    Noun { kind: &endpoint_slice::KIND, read: |document, _| kind::parse(document).map(Spec::EndpointSlice) },
    Noun { kind: &node::KIND, read: |document, _| kind::parse(document).map(Spec::Node) },
    Noun { kind: &external_service::KIND, read: |document, _| kind::parse(document).map(Spec::ExternalService) },
    Noun { kind: &reference_grant::KIND, read: |document, _| kind::parse(document).map(Spec::ReferenceGrant) },
    Noun { kind: &mesh_policy::KIND, read: |document, home| mesh_policy::read(document, home).map(Spec::MeshPolicy) },
];

/// Every kind users may write.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    NOUNS.into_iter().map(|noun| noun.kind).chain(registry::kinds())
}

/// Reads the `spec` of an object of `kind` in a namespace, which the check of the kind found sound.
///
/// # Errors
/// What only the namespace tells.
pub fn read(kind: &Kind, namespace: &str, document: &Value) -> Result<Spec, Vec<Problem>> {
    if let Some(noun) = NOUNS.iter().find(|noun| noun.kind.name == kind.name) {
        return (noun.read)(document, namespace);
    }
    match registry::find(kind.name) {
        Some(policy) => Attached::read(policy, namespace, document).map(Spec::Attached),
        None => Err(vec![Problem::new("", format!("nothing reads a {}", kind.name))]),
    }
}

/// What tells one object from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// `kind`, as in the list of kinds.
    pub kind: &'static str,
    /// The namespace it is in (`metadata.namespace`); empty where its kind is in none.
    pub namespace: Arc<str>,
    /// Its name among those of its kind there (`metadata.name`).
    pub name: Arc<str>,
}

impl ObjectId {
    /// The id made of these parts.
    pub fn new(kind: &'static str, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// Its namespace and name, written `namespace/name`.
    pub fn path(&self) -> String {
        names::object(&self.namespace, &self.name)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

/// Labels of an object, or a selector of them.
pub type Labels = BTreeMap<String, String>;

/// One object the user wrote, sound in itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Kind, namespace and name, which tell it from all others.
    pub id: ObjectId,
    /// Counts the changes of its content, from 1.
    pub generation: u64,
    /// Its labels (`metadata.labels`), by which others select it.
    pub labels: Labels,
    /// `metadata.creationTimestamp` in seconds since the Unix epoch, where a server wrote one.
    pub created: Option<u64>,
    /// What it says, read as the `spec` of its kind.
    pub spec: Spec,
}

impl Object {
    /// True when both say the same, whatever their generation.
    pub fn same_content(&self, other: &Self) -> bool {
        self.labels == other.labels && self.created == other.created && self.spec == other.spec
    }

    /// Its place among the objects that set fields of one thing, where its target is as specific as `scope` says.
    pub fn precedence(&self, scope: usize) -> Precedence {
        Precedence::new(scope, self.created, self.id.namespace.clone(), self.id.name.clone())
    }
}

/// `spec` of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// A `Service`: workloads under one name.
    Service(ServiceSpec),
    /// A `Workload`: one sidecar and the application beside it.
    Workload(WorkloadSpec),
    /// An `EndpointSlice`: where the calls of a service go.
    EndpointSlice(EndpointSliceSpec),
    /// A `Node`: a machine that pods are on.
    Node(NodeSpec),
    /// An `ExternalService`: what is called outside the mesh.
    ExternalService(ExternalServiceSpec),
    /// A `MeshPolicy`: settings of the mesh, a namespace or a workload.
    MeshPolicy(MeshPolicySpec),
    /// A `ReferenceGrant`: who may refer to what is in its namespace.
    ReferenceGrant(ReferenceGrantSpec),
    /// A policy or route, attached to what it is about.
    Attached(Attached),
}

/// The namespace of an object of this kind that says none: kinds of the whole cluster are in none.
pub fn home(kind: Option<&Kind>) -> &'static str {
    if kind.is_some_and(|kind| kind.name == node::KIND.name) { "" } else { "default" }
}

/// Why an object of `kind`, where that is known, cannot have this name, if so. The name of a `Service` is the beginning of its
/// host names, which a dot in it would make those of another.
pub fn name_problem(kind: Option<&Kind>, name: &str) -> Option<String> {
    if kind.is_some_and(|kind| kind.name == service::KIND.name) {
        label_problem(name)
    } else {
        kind::name_problem(name)
    }
}

/// Why `name` is no DNS label (RFC 1123 section 2.1), if so.
pub fn label_problem(name: &str) -> Option<String> {
    if names::is_label(name) {
        return None;
    }
    let shown: String = name.chars().take(80).collect();
    Some(format!("'{shown}' is not a DNS label: expected 1 to 63 characters a-z, 0-9 and '-', such as checkout-2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "web", "web-2", "2web", &"x".repeat(63)] {
            assert_eq!(label_problem(good), None, "{good}");
        }
        for bad in ["", "Web", "web_1", "-web", "web-", "a.b", "wéb", "a/b", &"x".repeat(64)] {
            assert!(label_problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn everything_but_a_service_may_have_a_name_with_dots() {
        for name in ["etcd-node-1.example.com", &"x".repeat(200), "1.2"] {
            for kind in kinds() {
                assert_eq!(name_problem(Some(kind), name).is_none(), kind.name != "Service", "{} {name}", kind.name);
            }
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a/b", "a:b", "A.b", "a_b", &"x".repeat(254)] {
            assert!(kinds().all(|kind| name_problem(Some(kind), bad).is_some()), "{bad}");
        }
    }

    #[test]
    fn every_kind_has_one_name_and_an_api_version() {
        let mut names: Vec<_> = kinds().map(|kind| kind.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(kinds().all(|kind| kind.api_version.contains('v')));
    }
}
