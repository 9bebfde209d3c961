//! Numbers of ports that two parties read in two ways, or that only one of them knows.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use selvedge_policies::{
    advice::Advice,
    finding::Code,
    matching::ports,
    names,
    policy::{Posture, Reference, Relation, Target},
};

use crate::model::{
    Attached, Model, Object,
    service::{ServicePort, ServiceSpec},
    workload::{self, WorkloadSpec},
};

/// A workload with the services it stands behind.
type Behind<'m> = (&'m Object, &'m WorkloadSpec, Vec<(&'m Object, &'m ServiceSpec)>);

/// The workloads that a target covers.
fn covered<'m>(model: &'m Model, target: &Target) -> Vec<Behind<'m>> {
    let behind = |(object, spec): (&'m Object, &'m WorkloadSpec)| {
        (object, spec, model.selecting(&object.id.namespace, &object.labels))
    };
    match target {
        Target::Service(namespace, name) => {
            let selector = model.service(namespace, name).map(|(_, spec)| &spec.selector);
            let selected = selector.map(|selector| model.selected(namespace, selector));
            selected.into_iter().flatten().map(behind).collect()
        }
        Target::Workload(namespace, name) => model.workload(namespace, name).map(behind).into_iter().collect(),
        Target::Namespace(namespace) => {
            let objects = model.in_namespace(workload::KIND.name, namespace);
            objects.filter_map(|object| model.workload(namespace, &object.id.name)).map(behind).collect()
        }
        Target::Mesh(_) => {
            let objects = model.of_kind(workload::KIND.name);
            objects.filter_map(|object| model.workload(&object.id.namespace, &object.id.name)).map(behind).collect()
        }
        Target::ExternalService(..) => Vec::new(),
    }
}

/// The application's ports of a workload that are known: those that it lists, and those that services call.
fn known((_, workload, services): &Behind<'_>) -> BTreeSet<u16> {
    let listed = workload.ports.iter().map(|port| port.port);
    let called = services.iter().flat_map(|(_, service)| service.carried()).filter_map(|port| port.target(workload));
    listed.chain(called).collect()
}

/// Numbers of ports in the conditions of a document that are those of a service.
pub(super) fn of_document(model: &Model, attached: &Attached) -> Vec<Advice> {
    let (true, [target]) = (attached.acts_where_called(), &*attached.targets) else { return Vec::new() };
    let mut document = serde_json::from_str(&attached.document).unwrap_or_default();
    let mut numbers = Vec::new();
    ports::each(&mut document, &mut |path, number| {
        numbers.push((path.to_owned(), number));
        number
    });
    if numbers.is_empty() {
        return Vec::new();
    }
    let covered = covered(model, target);
    numbers.into_iter().filter_map(|(path, number)| of_number(&covered, target, path, number)).collect()
}

fn of_number(covered: &[Behind<'_>], target: &Target, path: String, number: u16) -> Option<Advice> {
    let is_applications = covered.iter().any(|behind| known(behind).contains(&number));
    let leads = covered.iter().find_map(|(_, workload, services)| {
        let mut ports = services.iter().flat_map(|(of, service)| service.carried().map(move |port| (of, port)));
        ports.find_map(|(of, port)| {
            let to = port.target(workload).filter(|to| port.port == number && *to != number)?;
            is_of(target, of).then_some((of, to))
        })
    });
    let (service, to) = leads?;
    Some(match (is_applications, target) {
        (true, _) => {
            let message = format!(
                "{number} is a port of the workloads and, as that of {}, their port {to}: here it is the workloads' own: expected \
                 {to} where the other is meant",
                service.id
            );
            Advice::new(Code::ServicePort, path, message)
        }
        (false, Target::Service(..)) => {
            let message = format!("{number} is the port of {}, which is port {to} of its workloads", service.id);
            Advice { is_note: true, ..Advice::new(Code::ServicePort, path, message) }
        }
        (false, _) => {
            let message = format!(
                "no workload has port {number}, it is that of {}, which is their port {to}: did you mean '{to}'?",
                service.id
            );
            Advice::new(Code::ServicePort, path, message)
        }
    })
}

/// Whether a service is the target, or may be meant by a number in a document that is for something else.
fn is_of(target: &Target, service: &Object) -> bool {
    match target {
        Target::Service(namespace, name) => service.id.namespace == *namespace && service.id.name == *name,
        _ => true,
    }
}

/// The ports of workloads behind the target, in words, that nothing of the kind of `object` covers and everyone may call.
pub(super) fn open(model: &Model, object: &Object, target: &Reference) -> Option<String> {
    let Target::Service(namespace, name) = &target.to else { return None };
    covered(model, &target.to).iter().find_map(|behind| {
        let (of, workload, services) = behind;
        let own = services.iter().filter(|(service, _)| service.id.name == *name);
        let own: BTreeSet<u16> =
            own.flat_map(|(_, service)| service.carried()).filter_map(|port| port.target(workload)).collect();
        let is_open = |port: &u16| !own.contains(port) && !is_covered(model, object, behind, *port);
        let is_allowed = || model.effective(namespace, &of.id.name).0.modes().posture != Posture::Deny;
        let port = known(behind).into_iter().find(is_open).filter(|_| is_allowed())?;
        Some(format!("port {port} of {}", of.id))
    })
}

/// Whether another document of the kind of `object` covers a port of a workload.
fn is_covered(model: &Model, object: &Object, (of, workload, services): &Behind<'_>, number: u16) -> bool {
    let (namespace, name) = (&of.id.namespace, &of.id.name);
    let covers = |target: &Target, is_port: &dyn Fn(&Reference) -> bool| {
        let all = model.attached(target, Attached::acts_where_called);
        let mut others = all.iter().filter(|(other, _)| other.id.kind == object.id.kind);
        others.any(|(_, attached)| {
            let own = attached.references.iter().filter(|reference| reference.relation == Relation::AttachedTo);
            own.filter(|reference| reference.to == *target).any(is_port)
        })
    };
    let is_number = |reference: &Reference| reference.port.is_none_or(|port| port == number);
    let by_service = services.iter().any(|(service, spec)| {
        let target = Target::Service(namespace.clone(), service.id.name.clone());
        let leads = |port: &&ServicePort| port.target(workload) == Some(number);
        covers(&target, &|reference| spec.carried().filter(leads).any(|port| port.is_meant(reference)))
    });
    by_service
        || covers(&Target::Workload(namespace.clone(), name.clone()), &is_number)
        || covers(&Target::Namespace(namespace.clone()), &is_number)
        || covers(&Target::Mesh(names::ROOT_NAMESPACE.into()), &is_number)
}

/// Whether a workload says which ports it has.
fn lists((_, workload): &(&Object, &WorkloadSpec)) -> bool {
    !workload.ports.is_empty() && !workload.pod
}

fn has(workload: &WorkloadSpec, number: u16) -> bool {
    workload.ports.iter().any(|port| port.port == number)
}

/// Ports that a service calls and none of its workloads lists.
pub(super) fn of_service(model: &Model, object: &Object, spec: &ServiceSpec) -> Vec<Advice> {
    let mut selected = model.selected(&object.id.namespace, &spec.selector);
    selected.retain(lists);
    let Some((first, workload)) = selected.first() else { return Vec::new() };
    let numbers = spec.ports.iter().enumerate().filter_map(|(n, port)| Some((n, port.target(workload)?)));
    let unlisted = numbers.filter(|(_, number)| selected.iter().all(|(_, workload)| !has(workload, *number)));
    let told = unlisted.map(|(n, number)| {
        let field = if spec.ports[n].target_port.is_some() { "targetPort" } else { "port" };
        let listed: Vec<String> = workload.ports.iter().map(|port| port.port.to_string()).collect();
        let message = format!(
            "no workload behind this lists port {number}: expected one that they list, as {} does {}",
            first.id,
            listed.join(", ")
        );
        Advice::new(Code::UnlistedPort, format!("ports[{n}].{field}"), message)
    });
    told.collect()
}

/// Ports that a service calls, that others behind it list and this workload does not; and an address and port that another
/// workload is called at, too.
pub(super) fn of_workload(model: &Model, object: &Object, spec: &WorkloadSpec) -> Vec<Advice> {
    let services = model.selecting(&object.id.namespace, &object.labels);
    let mut advice = Vec::new();
    for (service, of) in services.iter().filter(|_| lists(&(object, spec))) {
        let others = model.selected(&object.id.namespace, &of.selector);
        let missing = of.carried().filter_map(|port| Some((port.port, port.target(spec)?)));
        let missing = missing.filter(|(_, number)| !has(spec, *number));
        for (port, number) in missing {
            if others.iter().any(|(_, other)| has(other, number)) {
                let message = format!(
                    "calls on port {port} of {} go to port {number} here, which is not listed, so past the sidecar where \
                     that has another: expected it among the ports, or another label",
                    service.id
                );
                advice.push(Advice::new(Code::UnlistedPort, "ports", message));
            }
        }
    }
    advice.extend(same_socket(model, object, spec));
    advice
}

/// Where a workload is called, by the services it stands behind.
fn sockets(model: &Model, object: &Object, spec: &WorkloadSpec) -> BTreeSet<SocketAddr> {
    let services = model.selecting(&object.id.namespace, &object.labels);
    let ports = services.iter().flat_map(|(_, service)| service.carried()).filter_map(|port| port.target(spec));
    ports.map(|port| SocketAddr::new(spec.ip(), spec.dial(port))).collect()
}

/// The other workload, of those before it by name, that is called at the same address and port. Where both list the port that
/// is told already.
fn same_socket(model: &Model, object: &Object, spec: &WorkloadSpec) -> Option<Advice> {
    let own = sockets(model, object, spec);
    let mut others = model.claims().standing(spec.ip()).filter(|id| **id < object.id);
    let (other, socket) = others.find_map(|id| {
        let (other, of) = model.workload(&id.namespace, &id.name).filter(|(_, of)| !of.pod && !spec.pod)?;
        let is_told = spec.ports.iter().any(|port| has(of, port.port));
        let common = sockets(model, other, of).intersection(&own).next().copied();
        common.filter(|_| !is_told).map(|socket| (Arc::clone(&id.name), socket))
    })?;
    let message =
        format!("{socket} is where Workload '{other}' is called, too: expected an address or a port of its own");
    Some(Advice::new(Code::ClaimedTwice, "address", message))
}
