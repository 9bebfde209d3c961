//! Settings that objects with equal targets give in different ways: one of them is not in force, and its author is told.

use std::collections::BTreeSet;

use selvedge_policies::{
    finding::Code,
    merge::{self, Conflict},
    settings::Settings,
};

use super::in_force::InForce;
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{Attached, Model, Object, ObjectId, Spec, Target, mesh_policy::MeshPolicySpec},
    source::Provenance,
};

/// The objects that set fields of what `object` sets fields of, itself among them.
pub(super) fn rivals(model: &Model, object: &Object) -> BTreeSet<ObjectId> {
    let named = |object: &Object| object.id.clone();
    match &object.spec {
        Spec::MeshPolicy(spec) => {
            model.of_scope(&object.id.namespace, spec).into_iter().map(|(other, _)| named(other)).collect()
        }
        Spec::Attached(attached) if attached.is_setting => {
            let of_target = |target| attached_of_kind(model, object, target).into_iter().map(|(other, _)| named(other));
            attached.targets.iter().flat_map(of_target).collect()
        }
        Spec::Attached(_)
        | Spec::Service(_)
        | Spec::Workload(_)
        | Spec::EndpointSlice(_)
        | Spec::Node(_)
        | Spec::ExternalService(_)
        | Spec::ReferenceGrant(_) => BTreeSet::new(),
    }
}

/// A finding for each field of a mesh policy that another for the same scope keeps out of force.
pub(super) fn of_mesh_policy(
    model: &Model,
    in_force: &InForce,
    object: &Object,
    spec: &MeshPolicySpec,
    written: &Provenance,
) -> Vec<Diagnostic> {
    let scope = model.of_scope(&object.id.namespace, spec);
    let (_, merged) =
        Settings::merge(scope.into_iter().map(|(other, spec)| (other.precedence(0), other, &spec.settings)));
    told(merged.conflicts, in_force, object, written)
}

/// A finding for each field of settings that others of the kind for the same target keep out of force.
pub(super) fn of_attached(
    model: &Model,
    in_force: &InForce,
    object: &Object,
    attached: &Attached,
    written: &Provenance,
) -> Vec<Diagnostic> {
    if !attached.is_setting {
        return Vec::new();
    }
    let of_target = |target| {
        let documents = attached_of_kind(model, object, target).into_iter().filter_map(|(other, document)| {
            Some((other, serde_json::from_str::<serde_json::Map<_, _>>(&document.document).ok()?))
        });
        let documents: Vec<_> = documents.collect();
        let said = documents.iter().map(|(other, document)| (other.precedence(0), *other, document));
        told(merge::merge(said, merge::no_strictness).conflicts, in_force, object, written)
    };
    attached.targets.iter().flat_map(of_target).collect()
}

fn attached_of_kind<'m>(model: &'m Model, object: &Object, target: &Target) -> Vec<(&'m Object, &'m Attached)> {
    let mut documents = model.attached(target, |document| document.is_setting);
    documents.retain(|(other, _)| other.id.kind == object.id.kind);
    documents
}

fn told(
    conflicts: Vec<Conflict<&Object>>,
    in_force: &InForce,
    object: &Object,
    written: &Provenance,
) -> Vec<Diagnostic> {
    let lost = conflicts.into_iter().filter(|conflict| conflict.loser.id == object.id);
    let finding = |Conflict { field, winner, is_stricter, loser }: Conflict<&Object>| {
        let why = match (is_stricter, winner.created == loser.created) {
            (true, _) => "stricter",
            (false, false) => "older",
            (false, true) => "first by name",
        };
        let path = format!("spec.{field}");
        let message = format!(
            "this is not in force: {} sets {field} of the same target to something else and is {why}: expected one of \
             them to leave it out",
            winner.id
        );
        let finding = written.finding(Code::Overridden, Severity::Warning, &path, message);
        match in_force.get(&winner.id) {
            Some(other) => finding.related(other.provenance.place(&path), "what is in force stands here"),
            None => finding,
        }
    };
    lost.map(finding).collect()
}
