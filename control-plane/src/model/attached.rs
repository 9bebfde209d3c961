//! Policies and routes: what they are attached to, and where they are enforced.

use std::sync::Arc;

use selvedge_policies::{
    kind::Problem,
    policy::{Place, PolicyKind, Reference, Relation, Resolved, Role, Target},
    registry,
};
use serde_json::Value;

use super::service::ServicePort;

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
    /// What of it cannot be done, and is answered with an error.
    pub warnings: Vec<Problem>,
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
            is_route: matches!(kind.role, Role::Routes(_)),
            is_setting: matches!(kind.role, Role::Tries),
            targets: bound.targets(),
            port: bound.port,
            references: bound.references,
            warnings: bound.warnings,
            document: bound.document.to_string().into(),
        })
    }

    /// True for what is attached to this port of the service `target`, or to all of it.
    pub fn is_for(&self, target: &Target, port: &ServicePort) -> bool {
        self.attachments(target).any(|reference| port.is_meant(reference))
    }

    /// The document, of this kind, as it travels to those whom the service `target` with these ports concerns; `None` when
    /// it is for no port of them. `is_whole` says that these are all its ports. The references at the paths `refused` are
    /// not followed.
    pub fn document_for(
        &self,
        kind: &str,
        target: &Target,
        (ports, is_whole): (&[&ServicePort], bool),
        refused: Vec<&str>,
    ) -> Option<Arc<str>> {
        let mut meant = ports.iter().filter(|port| self.is_for(target, port)).map(|port| port.port).peekable();
        meant.peek()?;
        let Some(Role::Routes(resolve)) = registry::find(kind).map(|kind| kind.role) else {
            return Some(self.document.clone());
        };
        let is_home = |other: &Target| other.namespace() == target.namespace();
        if refused.is_empty()
            && is_whole
            && self.targets.iter().all(is_home)
            && self.attachments(target).all(|reference| reference.section.is_none())
        {
            return Some(self.document.clone());
        }
        let is_for_all = |reference: &Reference| reference.port.is_none() && reference.section.is_none();
        let ports = if is_whole && self.attachments(target).any(is_for_all) { None } else { Some(meant.collect()) };
        let document = serde_json::from_str(&self.document).unwrap_or_default();
        Some(resolve(&document, &Resolved { target, ports, refused }).to_string().into())
    }

    fn attachments<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = &'a Reference> {
        self.references
            .iter()
            .filter(move |reference| reference.relation == Relation::AttachedTo && reference.to == *target)
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
