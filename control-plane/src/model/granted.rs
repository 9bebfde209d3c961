//! Which references lead into another namespace, and whether that namespace has opened itself to them.
//!
//! Without a `ReferenceGrant` there, nothing is sent: an owner of routes could else have a service called in ways that its
//! own callers never could. A route of another namespace than that of its service needs no leave: it is for the calls of its own.

use std::sync::Arc;

use selvedge_policies::{
    policy::{Reference, Relation},
    registry,
};

use super::{
    Attached, Model, Object, Spec, Target,
    reference_grant::{self, ReferenceGrantSpec},
};

/// The namespace whose calls of the service `target` alone a document is for (a consumer route, GEP-1294); `None` for one that
/// is for everybody's.
pub fn consumer<'a>(object: &'a Object, attached: &Attached, target: &Target) -> Option<&'a Arc<str>> {
    match target {
        Target::Service(namespace, _) if attached.is_route && *namespace != object.id.namespace => {
            Some(&object.id.namespace)
        }
        _ => None,
    }
}

/// The references of a document by which it sends calls of `target` into a namespace that did not open itself to it. The service
/// that is called anyway is open.
pub fn closed<'a>(model: &Model, object: &Object, attached: &'a Attached, target: &Target) -> Vec<&'a Reference> {
    let sent = attached.references.iter().filter(|reference| reference.to != *target);
    sent.filter(|reference| !is_open(model, object, reference)).collect()
}

fn is_open(model: &Model, object: &Object, reference: &Reference) -> bool {
    let Some((namespace, service)) = abroad(object, reference) else { return true };
    let Some(kind) = registry::find(object.id.kind) else { return false };
    let mut grants = model.in_namespace(reference_grant::KIND.name, namespace);
    grants.any(|grant| match &grant.spec {
        Spec::ReferenceGrant(spec) => spec.opens(&object.id, kind.kind.group(), service),
        _ => false,
    })
}

/// Namespace and name of the service of another namespace that the reference sends requests to.
fn abroad<'a>(object: &Object, reference: &'a Reference) -> Option<(&'a str, &'a str)> {
    match &reference.to {
        Target::Service(namespace, name)
            if reference.relation == Relation::SendsTo && *namespace != object.id.namespace =>
        {
            Some((namespace, name))
        }
        _ => None,
    }
}

/// The documents that a grant of this namespace is about, whether it opens the namespace to them or not.
pub fn concerned<'m>(
    model: &'m Model,
    namespace: &'m str,
    grant: &'m ReferenceGrantSpec,
) -> impl Iterator<Item = (&'m Object, &'m Attached)> {
    let documents = grant.from.iter().filter_map(|from| Some((registry::find(&from.kind)?, &*from.namespace)));
    let documents = documents.flat_map(|(kind, of)| model.in_namespace(kind.kind.name, of));
    documents.filter_map(move |object| match &object.spec {
        Spec::Attached(attached) => {
            let leads = |reference| abroad(object, reference).is_some_and(|(to, _)| to == namespace);
            attached.references.iter().any(leads).then_some((&**object, attached))
        }
        _ => None,
    })
}
