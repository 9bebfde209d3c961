//! What only all objects together tell: references to what is not there, selectors that select nothing, names that
//! two objects claim. None of it refuses an object: what is missing may come later.

use std::collections::HashMap;

use selvedge_policies::policy::Reference;

use super::{Written, addresses::Addresses};
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{
        Model, Object, ObjectId, Spec, Target,
        external_service::ExternalServiceSpec,
        mesh_policy::MeshPolicySpec,
        service::{ServiceSpec, SessionAffinity, TargetPort},
        workload,
    },
};

/// Every finding about the objects of `model`. `missing` is how bad it is to refer to a missing object, or to claim
/// what is another's: in a running control plane a warning, in a linter an error.
pub fn findings(model: &Model, written: &HashMap<ObjectId, Written>, missing: Severity) -> Vec<Diagnostic> {
    let mut check = Check { model, written, addresses: Addresses::of(model), missing, findings: Vec::new() };
    for object in model.objects() {
        let Some(written) = written.get(&object.id) else { continue };
        let found = check.findings.len();
        match &object.spec {
            Spec::Service(spec) => check.service(object, spec, written),
            Spec::ExternalService(spec) => check.external_service(object, spec, written),
            Spec::MeshPolicy(spec) => check.mesh_policy(object, spec, written),
            Spec::Attached(attached) => {
                attached.references.iter().for_each(|reference| check.reference(object.id.kind, reference, written));
            }
            Spec::Workload(_) => {}
        }
        check.findings[found..].iter_mut().for_each(|finding| finding.object = object.id.to_string());
    }
    check.findings
}

struct Check<'a> {
    model: &'a Model,
    written: &'a HashMap<ObjectId, Written>,
    addresses: Addresses<'a>,
    missing: Severity,
    findings: Vec<Diagnostic>,
}

impl Check<'_> {
    fn service(&mut self, object: &Object, spec: &ServiceSpec, written: &Written) {
        if !spec.selector.is_empty() && !self.model.selects_any(&object.id.namespace, &spec.selector) {
            let message = format!("no Workload of namespace '{}' has these labels", object.id.namespace);
            self.findings.push(written.finding(Severity::Warning, "spec.selector", message));
        }
        if spec.session_affinity == Some(SessionAffinity::ClientIP) {
            let message = "calls of one client do not stay with one workload in the mesh: expected None";
            self.findings.push(written.finding(Severity::Warning, "spec.sessionAffinity", message));
        }
        self.named_ports(object, spec, written);
        for address in spec.addresses() {
            let other = self.addresses.services(address).find(|id| **id != object.id);
            if let Some(other) = other {
                let message = format!("{address} is the clusterIP of two services, this one and {other}");
                self.claimed_twice("spec.clusterIP", message, written, other, "spec.clusterIP");
            }
        }
    }

    /// A workload without a port of the name gets no calls on it.
    fn named_ports(&mut self, object: &Object, spec: &ServiceSpec, written: &Written) {
        for (n, port) in spec.ports.iter().enumerate() {
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
            self.findings.push(written.finding(self.missing, &format!("spec.ports[{n}].targetPort"), message));
        }
    }

    /// Says that a field claims what another object claims too.
    fn claimed_twice(&mut self, path: &str, message: String, written: &Written, other: &ObjectId, at: &str) {
        let finding = written.finding(self.missing, path, message);
        let finding = match self.written.get(other) {
            Some(other) => finding.related(other.place(at), "it stands here too"),
            None => finding,
        };
        self.findings.push(finding);
    }

    fn external_service(&mut self, object: &Object, spec: &ExternalServiceSpec, written: &Written) {
        if self.model.service(&object.id.namespace, &object.id.name).is_some() {
            let message = "a Service of this name is in the namespace, and it goes before an ExternalService";
            self.findings.push(written.finding(self.missing, "metadata.name", message));
        }
        for (n, host) in spec.hosts.iter().enumerate() {
            let host = host.trim_end_matches(".svc.cluster.local").trim_end_matches(".svc");
            let Some((name, namespace)) = host.split_once('.') else { continue };
            if self.model.service(namespace, name).is_some() {
                let message = format!("this host is that of Service {namespace}/{name}, which goes before this one");
                self.findings.push(written.finding(Severity::Warning, &format!("spec.hosts[{n}]"), message));
            }
        }
        for (n, endpoint) in spec.endpoints.iter().enumerate() {
            let Some(owner) = self.addresses.owner(spec, n) else { continue };
            let at = if owner.kind == workload::KIND.name { "spec.address" } else { "spec.clusterIP" };
            let message = format!("{} is the address of {owner}, which is inside the mesh", endpoint.address);
            self.claimed_twice(&format!("spec.endpoints[{n}].address"), message, written, owner, at);
        }
    }

    fn mesh_policy(&mut self, object: &Object, spec: &MeshPolicySpec, written: &Written) {
        let Some(name) = spec.target_ref.as_ref().and_then(|target| target.name.as_deref()) else { return };
        if self.model.workload(&object.id.namespace, name).is_none() {
            self.unknown("Workload", &object.id.namespace, name, "spec.targetRef", written);
        }
    }

    fn reference(&mut self, kind: &str, reference: &Reference, written: &Written) {
        let path = format!("spec.{}", reference.path);
        match &reference.to {
            Target::Service(namespace, name) => match self.model.service(namespace, name) {
                None => self.unknown("Service", namespace, name, &path, written),
                Some((_, service)) => self.port(service, name, reference.port, &path, written),
            },
            Target::ExternalService(namespace, name) if self.model.external_service(namespace, name).is_none() => {
                self.unknown("ExternalService", namespace, name, &path, written);
            }
            Target::Workload(namespace, name) if self.model.workload(namespace, name).is_none() => {
                self.unknown("Workload", namespace, name, &path, written);
            }
            Target::Namespace(namespace)
                if self.model.in_namespace(workload::KIND.name, namespace).next().is_none() =>
            {
                let message = format!("this {kind} covers namespace '{namespace}', which has no Workload");
                self.findings.push(written.finding(Severity::Warning, "metadata", message));
            }
            _ => {}
        }
    }

    fn port(&mut self, service: &ServiceSpec, name: &str, port: Option<u16>, path: &str, written: &Written) {
        let Some(port) = port.filter(|port| !service.ports.iter().any(|known| known.port == *port)) else { return };
        let known: Vec<String> = service.ports.iter().map(|known| known.port.to_string()).collect();
        let message = format!("Service '{name}' has no port {port}: expected {}", known.join(" or "));
        self.findings.push(written.finding(self.missing, &format!("{path}.port"), message));
    }

    fn unknown(&mut self, kind: &'static str, namespace: &str, name: &str, path: &str, written: &Written) {
        let known = self.model.in_namespace(kind, namespace).map(|object| object.id.name.clone());
        let nearest = known.map(|known| (strsim::damerau_levenshtein(&known, name), known)).min();
        let hint = match nearest {
            Some((distance, known)) if distance <= 1 + known.len() / 4 => format!(": did you mean '{known}'?"),
            _ => String::new(),
        };
        let message = format!("there is no {kind} '{name}' in namespace '{namespace}'{hint}");
        self.findings.push(written.finding(self.missing, &format!("{path}.name"), message));
    }
}
