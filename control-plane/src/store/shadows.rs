//! Rules that make no difference because another one, wherever they hold, decides in their place.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use selvedge_policies::{
    finding::Code,
    kind, names,
    policy::{Reference, Relation, Shadowed, Target},
    registry,
};

use super::InForce;
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{Attached, Model, Object, ObjectId, Spec, granted},
};

/// What was found among the documents of a kind that hold for a port of a target, or for all of it, where somebody calls it from
/// a namespace or from anywhere. Many objects share one.
type Found<'m> = HashMap<(&'static str, &'m Target, Option<u16>, Option<Arc<str>>), Vec<Shadowed>>;

/// A finding for each rule that makes no difference, with the place of one that leaves nothing to it.
pub(super) fn findings(model: &Model, in_force: &InForce) -> Vec<Diagnostic> {
    let attached = model.objects().filter_map(|object| match &object.spec {
        Spec::Attached(attached) => Some((&**object, attached)),
        _ => None,
    });
    let mut found = Found::new();
    attached
        .flat_map(|(object, attached)| told(in_force, object, shadowed(model, &mut found, object, attached)))
        .collect()
}

fn told(in_force: &InForce, object: &Object, shadowed: BTreeMap<String, Shadowed>) -> Vec<Diagnostic> {
    let told = shadowed.into_values().filter_map(|found| {
        let (namespace, name) = names::parts(&found.by)?;
        let by = ObjectId::new(object.id.kind, namespace, name);
        let message = format!(
            "this makes no difference: {} of {by} {}: expected one of the two to be changed or taken away",
            found.by_at, found.how
        );
        let path = format!("spec.{}", found.at);
        let finding =
            in_force.get(&object.id)?.provenance.finding(Code::NoDifference, Severity::Warning, &path, message);
        let other = in_force.get(&by)?.provenance.place(&format!("spec.{}", found.by_at));
        Some(finding.object(object.id.to_string()).related(other, "what decides in its place stands here"))
    });
    told.collect()
}

/// The rules of an object that make no difference at any of its targets, each with its field.
fn shadowed<'m>(
    model: &'m Model,
    found: &mut Found<'m>,
    object: &Object,
    attached: &'m Attached,
) -> BTreeMap<String, Shadowed> {
    let targets = attached.references.iter().filter(|reference| reference.relation == Relation::AttachedTo);
    let at_each = targets.map(|reference| {
        // What is for the calls of one namespace is looked at among its like.
        let consumer = granted::consumer(object, attached, &reference.to);
        let holding = || {
            let mut all = holding(model, object.id.kind, reference);
            all.retain(|(other, document)| granted::consumer(other, document, &reference.to) == consumer);
            all
        };
        let all = found
            .entry((object.id.kind, &reference.to, reference.port, consumer.cloned()))
            .or_insert_with(|| among(object.id.kind, &holding()));
        let own = all.iter().filter(|found| *found.object == *object.id.path());
        own.map(|found| (found.at.clone(), found.clone())).collect::<BTreeMap<_, _>>()
    });
    let everywhere = at_each.reduce(|mut all, here| {
        all.retain(|at, _| here.contains_key(at));
        all
    });
    everywhere.unwrap_or_default()
}

/// What the kind finds among documents of its own.
fn among(kind: &str, documents: &[(&Object, &Attached)]) -> Vec<Shadowed> {
    let read = documents.iter().filter_map(|(object, attached)| {
        let spec = serde_json::from_str(&attached.document).ok()?;
        Some(kind::Attached { name: object.id.path().into(), spec })
    });
    registry::find(kind).map(|kind| (kind.shadows)(&read.collect::<Vec<_>>())).unwrap_or_default()
}

/// The documents of a kind that hold wherever one does that is attached so, itself among them. What covers a namespace
/// or the mesh holds at each of its workloads.
fn holding<'m>(model: &'m Model, kind: &str, reference: &Reference) -> Vec<(&'m Object, &'m Attached)> {
    let mesh = || Target::Mesh(names::ROOT_NAMESPACE.into());
    let wide = match &reference.to {
        Target::Service(namespace, _) | Target::Workload(namespace, _) => {
            vec![Target::Namespace(namespace.clone()), mesh()]
        }
        Target::Namespace(_) => vec![mesh()],
        Target::ExternalService(..) | Target::Mesh(_) => Vec::new(),
    };
    let holds = |other: &Reference| {
        let is_whole = other.port.is_none() && other.section.is_none();
        is_whole || (other.port == reference.port && other.section == reference.section)
    };
    let is_attached = |attached: &Attached, target: &Target| {
        let mut others = attached.references.iter().filter(|other| other.relation == Relation::AttachedTo);
        others.any(|other| other.to == *target && holds(other))
    };
    let targets = std::iter::once(&reference.to).chain(&wide);
    let holding = targets.flat_map(|target| model.attached(target, |attached| is_attached(attached, target)));
    holding.filter(|(other, _)| other.id.kind == kind).collect()
}
