//! What compiles, and what no sidecar can put in force all the same: every sidecar that asks for it would refuse it.

use selvedge_decide::compile::check;
use selvedge_policies::{finding::Code, names::PortName};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, SELVEDGE, origin},
    resource::Encoded,
};

use super::InForce;
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{self, ObjectId},
    snapshot::Snapshot,
};

/// Every resource that a sidecar would refuse, as a finding on the object that it is made of.
pub(super) fn findings(snapshot: &Snapshot, in_force: &InForce) -> Vec<Diagnostic> {
    let resources = SELVEDGE.order().iter().flat_map(|kind| snapshot.resources(*kind));
    let refused = resources.filter_map(|resource| Some((resource, check(resource).err()?)));
    let findings = refused.filter_map(|(resource, why)| {
        let id = object(snapshot, resource)?;
        let message = format!("no sidecar can put {} in force: {why}", resource.name);
        let provenance = &in_force.get(&id)?.provenance;
        Some(provenance.finding(Code::Unenforceable, Severity::Error, "metadata.name", message).object(id.to_string()))
    });
    findings.collect()
}

/// The object that a resource is made of; for endpoints it is their service.
fn object(snapshot: &Snapshot, resource: &Encoded) -> Option<ObjectId> {
    let origin = match resource.kind {
        ENDPOINTS => {
            let PortName { service, .. } = resource.name.parse().ok()?;
            origin(&*snapshot.get(DESTINATION, service.text())?)
        }
        _ => origin(resource),
    }?;
    let kind = model::kinds().find(|kind| kind.name == origin.kind)?;
    Some(ObjectId::new(kind.name, &origin.namespace, &origin.name))
}
