//! Ports of which nobody says what is spoken there, where something looks into requests.

use selvedge_policies::{
    advice::Advice,
    finding::Code,
    kind, names,
    policy::{Posture, Reference, Relation, Role, Target},
    registry,
};

use crate::model::{
    Attached, Model, Object,
    service::{ServicePort, ServiceSpec, Transport},
};

/// A note on each port of a service whose first bytes alone tell what is spoken, where these are waited for.
pub(super) fn of_service(model: &Model, object: &Object, spec: &ServiceSpec) -> Vec<Advice> {
    let ports = spec.ports.iter().enumerate();
    let undeclared = ports.filter(|(_, port)| port.spoken().is_none() && port.transport() == Transport::Tcp);
    let told = undeclared.filter_map(|(n, port)| {
        let looking = looking(model, object, spec, port)?;
        let message = format!(
            "no appProtocol, and {} looks into requests here, so a start that could still become one waits for its rest and is \
             refused in the end: expected 'http', or 'tcp' where it is no HTTP",
            looking.id
        );
        Some(Advice { is_note: true, ..Advice::new(Code::UndeclaredProtocol, format!("ports[{n}]"), message) })
    });
    told.collect()
}

/// What looks into the requests on a port of a service.
fn looking<'m>(model: &'m Model, service: &Object, spec: &ServiceSpec, port: &ServicePort) -> Option<&'m Object> {
    let namespace = &service.id.namespace;
    let means = |reference: &Reference| port.is_meant(reference);
    let of_service = Target::Service(namespace.clone(), service.id.name.clone());
    attached(model, &of_service, &means).or_else(|| {
        model.selected(namespace, &spec.selector).into_iter().find_map(|(of, workload)| {
            let number = port.target(workload)?;
            let means = |reference: &Reference| reference.port.is_none_or(|port| port == number);
            let targets = [
                Target::Workload(namespace.clone(), of.id.name.clone()),
                Target::Namespace(namespace.clone()),
                Target::Mesh(names::ROOT_NAMESPACE.into()),
            ];
            targets.iter().find_map(|target| attached(model, target, &means))
        })
    })
}

/// The first document attached to the target, as `means` reads the reference, that looks into requests.
fn attached<'m>(model: &'m Model, target: &Target, means: &dyn Fn(&Reference) -> bool) -> Option<&'m Object> {
    let all = model.attached(target, |attached| {
        let own = attached.references.iter().filter(|reference| reference.relation == Relation::AttachedTo);
        own.filter(|reference| reference.to == *target).any(means)
    });
    all.into_iter().find(|(object, attached)| looks_into_requests(object, attached)).map(|(object, _)| object)
}

/// As sidecars do: routes always, and policies that say so once they are compiled.
fn looks_into_requests(object: &Object, attached: &Attached) -> bool {
    let Some(Role::Decides(_, compile)) = registry::find(object.id.kind).map(|kind| kind.role) else {
        return attached.is_route;
    };
    let spec = serde_json::from_str(&attached.document).unwrap_or_default();
    let compiled = compile(&[kind::Attached { name: object.id.path().into(), spec }], Posture::Deny, None);
    compiled.ok().flatten().is_some_and(|policy| policy.needs().requests)
}
