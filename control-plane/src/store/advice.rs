//! What is odd in objects that are sound and in force: it hardly means what their authors meant. None of it refuses an object.

use std::{collections::BTreeSet, sync::Arc};

use selvedge_policies::{
    advice::{Advice, Surroundings},
    finding::Code,
    kind,
    policy::{Reference, Relation, Target},
    registry,
};

use super::InForce;
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{Attached, Model, Object, Spec, workload},
};

mod ports;
mod undeclared;

/// What is known beside the objects.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// The trust domain of the mesh.
    pub trust_domain: &'a str,
    /// The time, in seconds since the Unix epoch.
    pub now: u64,
}

/// Service accounts, each with its namespace first.
type Accounts = BTreeSet<(Arc<str>, Arc<str>)>;

/// Everything odd, by object.
pub(super) fn findings(model: &Model, in_force: &InForce, beside: Beside<'_>) -> Vec<Diagnostic> {
    let accounts = accounts(model);
    let mut findings = Vec::new();
    for object in model.objects() {
        let advice = match &object.spec {
            Spec::Attached(attached) => {
                let mut advice = of_document(model, object, attached, (&accounts, beside));
                advice.extend(ports::of_document(model, attached));
                advice
            }
            Spec::Service(spec) => {
                let mut advice = ports::of_service(model, object, spec);
                advice.extend(undeclared::of_service(model, object, spec));
                advice
            }
            Spec::Workload(spec) => ports::of_workload(model, object, spec),
            _ => Vec::new(),
        };
        findings.extend(told(in_force, object, advice));
    }
    findings
}

/// What is to be said of moments that are near or past, at this one.
pub(super) fn of_time(model: &Model, in_force: &InForce, beside: Beside<'_>) -> Vec<Diagnostic> {
    let nobody = BTreeSet::new();
    let documents = model.expiring().filter_map(|object| match &object.spec {
        Spec::Attached(attached) => Some((object, attached)),
        _ => None,
    });
    let odd = documents.flat_map(|(object, attached)| {
        let mut advice = of_document(model, object, attached, (&nobody, beside));
        advice.retain(|advice| matches!(advice.code, Code::Expired | Code::ExpiresSoon));
        told(in_force, object, advice)
    });
    odd.collect()
}

fn told(in_force: &InForce, object: &Object, advice: Vec<Advice>) -> Vec<Diagnostic> {
    let Some(entry) = in_force.get(&object.id) else { return Vec::new() };
    let told = advice.into_iter().map(|Advice { code, at, message, is_note, is_certain }| {
        let severity = if is_note { Severity::Note } else { Severity::Warning };
        let finding = entry.provenance.finding(code, severity, &format!("spec.{at}"), message);
        let finding = finding.object(object.id.to_string());
        if is_certain { finding.certain() } else { finding }
    });
    told.collect()
}

/// The service accounts of all workloads.
fn accounts(model: &Model) -> Accounts {
    let workloads = model.of_kind(workload::KIND.name).filter_map(|object| match &object.spec {
        Spec::Workload(spec) => Some((object.id.namespace.clone(), Arc::from(&*spec.service_account))),
        _ => None,
    });
    workloads.collect()
}

/// What the kind of a document finds odd in it.
fn of_document(
    model: &Model,
    object: &Object,
    attached: &Attached,
    (accounts, beside): (&Accounts, Beside<'_>),
) -> Vec<Advice> {
    let Some(kind) = registry::find(object.id.kind) else { return Vec::new() };
    let targets = || attached.references.iter().filter(|reference| reference.relation == Relation::AttachedTo);
    let (opaque, open) = match targets().collect::<Vec<_>>().as_slice() {
        [target] => (opaque(model, target), ports::open(model, object, target)),
        _ => (None, None),
    };
    let around = Surroundings {
        trust_domain: beside.trust_domain,
        accounts,
        opaque: opaque.as_deref(),
        open_ports: open.as_deref(),
        now: beside.now,
    };
    let document = serde_json::from_str(&attached.document).unwrap_or_default();
    let mut advice = (kind.advise)(&kind::Attached { name: object.id.path().into(), spec: document }, &around);
    if attached.is_route {
        advice.extend(targets().filter_map(|target| {
            let message = format!(
                "{} carries no requests of HTTP, so none is routed: expected a port that does, or no route",
                self::opaque(model, target)?
            );
            Some(Advice::new(Code::HttpOnTcp, &*target.path, message))
        }));
    }
    advice
}

/// The ports of a service that a reference means, in words, when requests are seen on none of them.
fn opaque(model: &Model, reference: &Reference) -> Option<String> {
    let Target::Service(namespace, name) = &reference.to else { return None };
    let (service, spec) = model.service(namespace, name)?;
    let meant: Vec<_> = spec.carried().filter(|port| port.is_meant(reference)).collect();
    let spoken = meant.iter().map(|port| port.spoken().map(|protocol| protocol.name()));
    let spoken: Option<Vec<&str>> = spoken.collect();
    let spoken = spoken.filter(|words| words.iter().all(|word| ["tcp", "tls"].contains(word)))?;
    let (first, more) = (meant.first()?, meant.len() - 1);
    let more = if more > 0 { format!(", as {more} more of it, ") } else { " ".to_owned() };
    Some(format!("port {} of {}{more}is declared as {} and", first.port, service.id, spoken.first()?))
}
