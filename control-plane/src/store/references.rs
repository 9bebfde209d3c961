//! What only all objects together tell: references to what is not there, selectors that select nothing, names that
//! two objects claim, settings that they give in different ways. None of it refuses an object: what is missing may come later.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use selvedge_policies::{finding::Code, kind::Problem, names::service_of_host, policy::Reference, registry};

use super::{conflicts, in_force::InForce};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{
        Attached, Model, Object, ObjectId, Spec, Target,
        external_service::{self, ExternalServiceSpec},
        granted,
        mesh_policy::MeshPolicySpec,
        reference_grant,
        service::{self, ServiceSpec, SessionAffinity, TargetPort, Transport},
        workload::{self, WorkloadPort, WorkloadSpec},
    },
    source::{Provenance, files},
};

/// A kind and a namespace, in which a name was looked for in vain: a new name there may be the one that was meant.
pub(super) type Vain = (&'static str, Arc<str>);

/// Which objects look for names in vain, and where.
#[derive(Debug, Default)]
pub(super) struct InVain {
    objects: HashMap<Vain, BTreeSet<ObjectId>>,
    places: HashMap<ObjectId, BTreeSet<Vain>>,
}

impl InVain {
    /// The objects that may have meant `id`.
    pub(super) fn of(&self, id: &ObjectId) -> impl Iterator<Item = &ObjectId> {
        self.objects.get(&(id.kind, id.namespace.clone())).into_iter().flatten()
    }

    /// Says where an object looks in vain now.
    pub(super) fn set(&mut self, id: &ObjectId, places: BTreeSet<Vain>) {
        for place in self.places.remove(id).into_iter().flatten() {
            let Some(objects) = self.objects.get_mut(&place) else { continue };
            objects.remove(id);
            if objects.is_empty() {
                self.objects.remove(&place);
            }
        }
        for place in &places {
            self.objects.entry(place.clone()).or_default().insert(id.clone());
        }
        if !places.is_empty() {
            self.places.insert(id.clone(), places);
        }
    }
}

/// The findings about one object of `model`, and where it looked for names in vain. `missing` is how bad it is to refer to
/// a missing object, or to claim what is another's: in a running control plane a warning, in a linter an error.
pub(super) fn findings(
    model: &Model,
    in_force: &InForce,
    missing: Severity,
    id: &ObjectId,
) -> (Vec<Diagnostic>, BTreeSet<Vain>) {
    let (Some(object), Some(entry)) = (model.get(id), in_force.get(id)) else { return Default::default() };
    // In a cluster most workloads are pods.
    let workloads = if *entry.origin.source == *files::NAME { workload::KIND.name } else { "pod or Workload" };
    let mut check = Check { model, in_force, missing, workloads, findings: Vec::new(), vain: BTreeSet::new() };
    let written = &entry.provenance;
    match &object.spec {
        Spec::Service(spec) => check.service(object, spec, written),
        Spec::ExternalService(spec) => check.external_service(object, spec, written),
        Spec::MeshPolicy(spec) => {
            check.mesh_policy(object, spec, written);
            check.findings.extend(conflicts::of_mesh_policy(model, in_force, object, spec, written));
        }
        Spec::Attached(attached) => {
            check.document(object, attached, written);
            check.findings.extend(conflicts::of_attached(model, in_force, object, attached, written));
        }
        Spec::Workload(spec) => check.workload(object, spec, written),
        Spec::EndpointSlice(_) | Spec::Node(_) | Spec::ReferenceGrant(_) => {}
    }
    check.findings.iter_mut().for_each(|finding| finding.object = object.id.to_string());
    (check.findings, check.vain)
}

/// Adds the objects whose findings may be others when `id` is not what it is in `model`. Ask before a change and after it.
pub(super) fn concerned(model: &Model, id: &ObjectId, concerned: &mut BTreeSet<ObjectId>) {
    let Some(object) = model.get(id) else { return };
    let ObjectId { namespace, name, .. } = id;
    let claims = model.claims();
    let mut add = |ids: &mut dyn Iterator<Item = &ObjectId>| concerned.extend(ids.cloned());
    let mut claimed = |address: IpAddr| {
        add(&mut claims.services(address));
        add(&mut claims.externals(address));
    };
    match &object.spec {
        Spec::Service(spec) => {
            spec.addresses().into_iter().for_each(&mut claimed);
            add(&mut claims.referring(&Target::Service(namespace.clone(), name.clone())));
        }
        Spec::Workload(spec) => {
            add(&mut spec.ips().flat_map(|ip| claims.externals(ip)));
            add(&mut spec.ips().flat_map(|ip| claims.standing(ip)).filter(|id| is_written(model, id)));
            add(&mut claims.referring(&Target::Workload(namespace.clone(), name.clone())));
            add(&mut model.selecting(namespace, &object.labels).iter().map(|(service, _)| &service.id));
        }
        Spec::ExternalService(_) => {
            add(&mut claims.referring(&Target::ExternalService(namespace.clone(), name.clone())));
        }
        Spec::ReferenceGrant(spec) => {
            add(&mut granted::concerned(model, namespace, spec).map(|(object, _)| &object.id))
        }
        Spec::EndpointSlice(_) | Spec::Node(_) => {}
        Spec::MeshPolicy(_) | Spec::Attached(_) => concerned.extend(conflicts::rivals(model, object)),
    }
}

/// Adds the objects whose findings may be others because there is an object of that id now, or none any more.
pub(super) fn concerned_by_presence(model: &Model, id: &ObjectId, concerned: &mut BTreeSet<ObjectId>) {
    if id.kind == workload::KIND.name {
        concerned.extend(model.claims().referring(&Target::Namespace(id.namespace.clone())).cloned());
    }
}

/// True for a workload that somebody describes, as no pod.
fn is_written(model: &Model, id: &ObjectId) -> bool {
    model.workload(&id.namespace, &id.name).is_some_and(|(_, spec)| !spec.pod)
}

struct Check<'a> {
    model: &'a Model,
    in_force: &'a InForce,
    missing: Severity,
    /// What people call workloads there.
    workloads: &'static str,
    findings: Vec<Diagnostic>,
    vain: BTreeSet<Vain>,
}

impl Check<'_> {
    fn service(&mut self, object: &Object, spec: &ServiceSpec, written: &Provenance) {
        if !spec.selector.is_empty() && !self.model.selects_any(&object.id.namespace, &spec.selector) {
            let message = format!("no {} of namespace '{}' has these labels", self.workloads, object.id.namespace);
            self.findings.push(written.finding(Code::CoversNothing, Severity::Warning, "spec.selector", message));
        }
        if spec.session_affinity == Some(SessionAffinity::ClientIP) {
            let message = "calls of one client do not stay with one workload in the mesh: expected None";
            self.findings.push(written.finding(Code::NotDone, Severity::Warning, "spec.sessionAffinity", message));
        }
        self.named_ports(object, spec, written);
        for address in spec.addresses() {
            let other = self.model.claims().services(address).find(|id| **id != object.id);
            if let Some(other) = other {
                let message = format!("{address} is the clusterIP of two services, this one and {other}");
                self.claimed_twice("spec.clusterIP", message, written, other, "spec.clusterIP");
            }
        }
    }

    /// A workload without a port of the name gets no calls on it.
    fn named_ports(&mut self, object: &Object, spec: &ServiceSpec, written: &Provenance) {
        let carried = spec.ports.iter().enumerate().filter(|(_, port)| port.transport() == Transport::Tcp);
        for (n, port) in carried {
            let Some(TargetPort::Name(name)) = &port.target_port else { continue };
            let selected = self.model.selected(&object.id.namespace, &spec.selector);
            let mut without = selected.iter().filter(|(_, workload)| port.target(workload).is_none());
            let Some((first, _)) = without.next() else { continue };
            let more = without.count();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let message = format!(
                "calls on port {} do not reach {}{more}: expected a port with the name '{name}' there",
                port.port, first.id
            );
            self.findings.push(written.finding(
                Code::UnknownPort,
                self.missing,
                &format!("spec.ports[{n}].targetPort"),
                message,
            ));
        }
    }

    /// Says that a field claims what another object claims too.
    fn claimed_twice(&mut self, path: &str, message: String, written: &Provenance, other: &ObjectId, at: &str) {
        let finding = written.finding(Code::ClaimedTwice, self.missing, path, message);
        let finding = match self.in_force.get(other) {
            Some(other) => finding.related(other.provenance.place(at), "it stands here too"),
            None => finding,
        };
        self.findings.push(finding);
    }

    fn external_service(&mut self, object: &Object, spec: &ExternalServiceSpec, written: &Provenance) {
        if self.model.service(&object.id.namespace, &object.id.name).is_some() {
            let message = "a Service of this name is in the namespace, and it goes before an ExternalService";
            self.findings.push(written.finding(Code::ClaimedTwice, self.missing, "metadata.name", message));
        }
        for (n, host) in spec.hosts.iter().enumerate() {
            let Some((namespace, name)) = service_of_host(host) else { continue };
            if self.model.service(namespace, name).is_some() {
                let message = format!("this host is that of Service {namespace}/{name}, which goes before this one");
                self.findings.push(written.finding(
                    Code::ClaimedTwice,
                    Severity::Warning,
                    &format!("spec.hosts[{n}]"),
                    message,
                ));
            }
        }
        for (n, endpoint) in spec.endpoints.iter().enumerate() {
            let Some(owner) = self.model.claims().owner(spec, n) else { continue };
            let at = if owner.kind == workload::KIND.name { "spec.address" } else { "spec.clusterIP" };
            let message = format!("{} is the address of {owner}, which is inside the mesh", endpoint.address);
            self.claimed_twice(&format!("spec.endpoints[{n}].address"), message, written, owner, at);
        }
    }

    /// Of several at one address the calls of a port go to one, over mTLS where there is a choice; the others are told. Of a
    /// pod a cluster knows that the address is its own.
    fn workload(&mut self, object: &Object, spec: &WorkloadSpec, written: &Provenance) {
        if spec.pod {
            return;
        }
        let others: BTreeSet<&ObjectId> =
            spec.ips().flat_map(|ip| self.model.claims().standing(ip)).filter(|id| **id != object.id).collect();
        for id in others {
            let Some((other, first)) = self.model.workload(&id.namespace, &id.name) else { continue };
            if !first.sidecar || (first.rank(), &other.id) > (spec.rank(), &object.id) {
                continue;
            }
            let is_common = |port: &WorkloadPort| {
                let is_dialled_there = port.dial.is_none() || spec.dial(port.port) == first.dial(port.port);
                is_dialled_there && first.ports.iter().any(|of_first| of_first.port == port.port)
            };
            let common = spec.ports.iter().position(is_common);
            let is_all_of_it = first.pod || first.is_captured() && !spec.sidecar && spec.ports.is_empty();
            let (path, what) = match common {
                Some(n) => {
                    (format!("spec.ports[{n}].port"), format!("port {} of {}", spec.ports[n].port, spec.address))
                }
                None if is_all_of_it => ("spec.address".to_owned(), spec.address.clone()),
                None => continue,
            };
            let message = format!(
                "{what} is called over mTLS as {id}, which goes before this one: expected an address or port of its own"
            );
            self.claimed_twice(&path, message, written, id, "spec.address");
        }
    }

    fn mesh_policy(&mut self, object: &Object, spec: &MeshPolicySpec, written: &Provenance) {
        match spec.target_ref.as_ref().and_then(|target| target.target(&object.id.namespace)) {
            Some(Target::Workload(namespace, name)) if self.model.workload(&namespace, &name).is_none() => {
                self.unknown(workload::KIND.name, &namespace, &name, "spec.targetRef", written);
            }
            Some(Target::Service(namespace, name)) if self.model.service(&namespace, &name).is_none() => {
                self.unknown(service::KIND.name, &namespace, &name, "spec.targetRef", written);
            }
            _ => {}
        }
    }

    fn document(&mut self, object: &Object, attached: &Attached, written: &Provenance) {
        for Problem { path, message } in &attached.warnings {
            self.findings.push(written.finding(Code::NotDone, self.missing, &format!("spec.{path}"), message));
        }
        attached.references.iter().for_each(|reference| self.reference(object.id.kind, reference, written));
        let closed = attached.targets.iter().flat_map(|target| granted::closed(self.model, object, attached, target));
        let closed: BTreeMap<&str, &Reference> = closed.map(|reference| (&*reference.path, reference)).collect();
        closed.into_values().for_each(|reference| self.not_granted(object, reference, written));
    }

    /// Says which grant opens the namespace that a reference leads into.
    fn not_granted(&mut self, object: &Object, reference: &Reference, written: &Provenance) {
        let (Target::Service(namespace, name), Some(kind)) = (&reference.to, registry::find(object.id.kind)) else {
            return;
        };
        let message = format!(
            "namespace '{namespace}' does not open Service '{name}' to this, so what would go there is answered with 500 \
             (invalid_route): expected a grant there: {}",
            reference_grant::wanted(&object.id, kind.kind.group(), namespace, name)
        );
        self.findings.push(written.finding(
            Code::NotGranted,
            self.missing,
            &format!("spec.{}", reference.path),
            message,
        ));
    }

    fn reference(&mut self, kind: &str, reference: &Reference, written: &Provenance) {
        let path = format!("spec.{}", reference.path);
        match &reference.to {
            Target::Service(namespace, name) => match self.model.service(namespace, name) {
                None => self.unknown(service::KIND.name, namespace, name, &path, written),
                Some((_, service)) => self.port(service, name, reference, &path, written),
            },
            Target::ExternalService(namespace, name) if self.model.external_service(namespace, name).is_none() => {
                self.unknown(external_service::KIND.name, namespace, name, &path, written);
            }
            Target::Workload(namespace, name) if self.model.workload(namespace, name).is_none() => {
                self.unknown(workload::KIND.name, namespace, name, &path, written);
            }
            Target::Namespace(namespace)
                if self.model.in_namespace(workload::KIND.name, namespace).next().is_none() =>
            {
                let message = format!("this {kind} covers namespace '{namespace}', which has no {}", self.workloads);
                self.findings.push(written.finding(Code::CoversNothing, Severity::Warning, "metadata", message));
            }
            _ => {}
        }
    }

    fn port(&mut self, service: &ServiceSpec, name: &str, of: &Reference, path: &str, written: &Provenance) {
        if service.carried().any(|port| port.is_meant(of)) {
            return;
        }
        let (field, wanted) = match (of.port, &of.section) {
            (Some(port), None) => ("port", format!("no port {port}")),
            (Some(port), Some(section)) => ("sectionName", format!("no port {port} with the name '{section}'")),
            (None, Some(section)) => ("sectionName", format!("no port with the name '{section}'")),
            (None, None) => return,
        };
        let known = service.carried().map(|port| match (&port.name, &of.section) {
            (Some(name), Some(_)) => format!("{} ('{name}')", port.port),
            _ => port.port.to_string(),
        });
        let message = format!("Service '{name}' has {wanted}: expected {}", known.collect::<Vec<_>>().join(" or "));
        self.findings.push(written.finding(Code::UnknownPort, self.missing, &format!("{path}.{field}"), message));
    }

    fn unknown(&mut self, kind: &'static str, namespace: &str, name: &str, path: &str, written: &Provenance) {
        self.vain.insert((kind, namespace.into()));
        let known = self.model.in_namespace(kind, namespace).map(|object| object.id.name.clone());
        let nearest = known.map(|known| (strsim::damerau_levenshtein(&known, name), known)).min();
        let hint = match nearest {
            Some((distance, known)) if distance <= 1 + known.len() / 4 => format!(": did you mean '{known}'?"),
            _ => String::new(),
        };
        let what = if kind == workload::KIND.name { self.workloads } else { kind };
        let message = format!("there is no {what} '{name}' in namespace '{namespace}'{hint}");
        self.findings.push(written.finding(Code::UnknownName, self.missing, &format!("{path}.name"), message));
    }
}
