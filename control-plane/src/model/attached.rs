//! Policies and routes: what they are attached to, and where they are enforced.

use std::sync::Arc;

use selvedge_policies::{
    kind::Problem,
    policy::{Place, PolicyKind, Reference, Relation, Role, Target},
};
use serde_json::Value;

/// A checked policy or route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where it is enforced.
    pub place: Place,
    /// True for what chooses where requests go; such documents travel apart from those that decide.
    pub is_route: bool,
    /// True for settings, which are merged field by field with others of their kind.
    pub is_setting: bool,
    /// What it is attached to.
    pub targets: Vec<Target>,
    /// Only this port of the target; every port when absent.
    pub port: Option<u16>,
    /// Everything it refers to, with the field that does: targets, and the services a route sends requests to.
    pub references: Vec<Reference>,
    /// `spec` as JSON, with every namespace filled in: what travels to the sidecars.
    pub document: Arc<str>,
}

impl Attached {
    /// Reads a document of `kind` that its own check found sound.
    ///
    /// # Errors
    /// What only the namespace of the document tells.
    pub fn read(kind: &PolicyKind, namespace: &str, document: &Value) -> Result<Self, Vec<Problem>> {
        let bound = (kind.bind)(document, namespace)?;
        Ok(Self {
            place: kind.place,
            is_route: matches!(kind.role, Role::Routes),
            is_setting: matches!(kind.role, Role::Tries),
            targets: bound.targets(),
            port: bound.port,
            references: bound.references,
            document: bound.document.to_string().into(),
        })
    }

    /// True for what is attached to this port of `target`, or to all of it.
    pub fn is_for(&self, target: &Target, port: u16) -> bool {
        let mut attached = self.references.iter().filter(|reference| reference.relation == Relation::AttachedTo);
        attached.any(|reference| reference.to == *target && reference.port.is_none_or(|named| named == port))
    }

    /// True for policies of calls made, which the sidecars of callers enforce.
    pub fn acts_at_callers(&self) -> bool {
        !self.is_route && self.place != Place::Called
    }

    /// True for policies of calls received, which the sidecar of the workload enforces.
    pub fn acts_where_called(&self) -> bool {
        !self.is_route && self.place != Place::Caller
    }
}
