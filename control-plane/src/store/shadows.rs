//! Rules that make no difference because another one, wherever they hold, decides in their place.

use std::collections::BTreeMap;

use selvedge_policies::{
    kind,
    policy::{Reference, Relation, Shadowed, Target},
    registry,
};

use super::InForce;
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{Attached, Model, Object, ObjectId, Spec},
};

/// A finding for each rule that makes no difference, with the place of one that leaves nothing to it.
pub(super) fn findings(model: &Model, in_force: &InForce) -> Vec<Diagnostic> {
    let attached = model.objects().filter_map(|object| match &object.spec {
        Spec::Attached(attached) => Some((&**object, attached)),
        _ => None,
    });
    attached.flat_map(|(object, attached)| of_object(model, in_force, object, attached)).collect()
}

fn of_object(model: &Model, in_force: &InForce, object: &Object, attached: &Attached) -> Vec<Diagnostic> {
    let told = shadowed(model, object, attached).into_values().filter_map(|found| {
        let (namespace, name) = found.by.split_once('/')?;
        let by = ObjectId::new(object.id.kind, namespace, name);
        let message = format!(
            "this makes no difference: {} of {by} {}: expected one of the two to be changed or taken away",
            found.by_at, found.how
        );
        let path = format!("spec.{}", found.at);
        let finding = in_force.get(&object.id)?.provenance.finding(Severity::Warning, &path, message);
        let other = in_force.get(&by)?.provenance.place(&format!("spec.{}", found.by_at));
        Some(finding.object(object.id.to_string()).related(other, "what decides in its place stands here"))
    });
    told.collect()
}

/// The rules of an object that make no difference at any of its targets, each with its field.
fn shadowed(model: &Model, object: &Object, attached: &Attached) -> BTreeMap<String, Shadowed> {
    let Some(kind) = registry::find(object.id.kind) else { return BTreeMap::new() };
    let targets = attached.references.iter().filter(|reference| reference.relation == Relation::AttachedTo);
    let at_each = targets.map(|reference| {
        let documents: Vec<kind::Attached<_>> = holding(model, object, reference)
            .into_iter()
            .filter_map(|(object, attached)| read(object, attached))
            .collect();
        let found = (kind.shadows)(&documents).into_iter().filter(|found| *found.object == *object.id.path());
        found.map(|found| (found.at.clone(), found)).collect::<BTreeMap<_, _>>()
    });
    let everywhere = at_each.reduce(|mut all, here| {
        all.retain(|at, _| here.contains_key(at));
        all
    });
    everywhere.unwrap_or_default()
}

/// The documents of the kind that hold wherever this one does by what it is attached to, itself among them. What covers a
/// namespace holds at each of its workloads.
fn holding<'m>(model: &'m Model, object: &Object, reference: &Reference) -> Vec<(&'m Object, &'m Attached)> {
    let wide = match &reference.to {
        Target::Service(namespace, _) | Target::Workload(namespace, _) => Some(Target::Namespace(namespace.clone())),
        Target::ExternalService(..) | Target::Namespace(_) => None,
    };
    let holds = |other: &Reference| {
        let is_whole = other.port.is_none() && other.section.is_none();
        is_whole || (other.port == reference.port && other.section == reference.section)
    };
    let is_attached = |attached: &Attached, target: &Target| {
        let mut others = attached.references.iter().filter(|other| other.relation == Relation::AttachedTo);
        others.any(|other| other.to == *target && holds(other))
    };
    let targets = [Some(&reference.to), wide.as_ref()].into_iter().flatten();
    let holding = targets.flat_map(|target| model.attached(target, |attached| is_attached(attached, target)));
    holding.filter(|(other, _)| other.id.kind == object.id.kind).collect()
}

fn read(object: &Object, attached: &Attached) -> Option<kind::Attached<serde_json::Value>> {
    let spec = serde_json::from_str(&attached.document).ok()?;
    Some(kind::Attached { name: object.id.path().into(), spec })
}
