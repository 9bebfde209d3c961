//! A workload's view of itself: who it is, which services it stands behind, and what covers the calls it receives.

use std::net::IpAddr;

use selvedge_decide::compile::by_number;
use selvedge_policies::{
    kind,
    matching::ports,
    names::{self, WorkloadName},
    policy::Posture,
    settings::Log,
};
use selvedge_xds::proto::mesh::{self, Attachment, Inbound, InboundPort, SettingOrigin};

use super::{Mesh, attachment, destination, identity, origin, route};
use crate::model::{
    Attached, Model, Object, ObjectId, Target, granted,
    service::{ServicePort, ServiceSpec},
    workload::{self, WorkloadSpec},
};

/// The inbound view of the workload; `None` when there is no such workload.
pub(super) fn compile(model: &Model, mesh: &Mesh, namespace: &str, name: &str) -> Option<Inbound> {
    let id = ObjectId::new(workload::KIND.name, namespace, name);
    let (object, spec) = model.workload(namespace, name).filter(|(_, spec)| spec.sidecar)?;
    let own = model.attached(&Target::Workload(id.namespace.clone(), id.name.clone()), Attached::acts_where_called);
    let shared = model.attached(&Target::Namespace(id.namespace.clone()), Attached::acts_where_called);
    let wide = model.attached(&Target::Mesh(names::ROOT_NAMESPACE.into()), Attached::acts_where_called);
    let covering: Vec<(&Object, &Attached)> = own.into_iter().chain(shared).chain(wide).collect();
    let on_port = |port: Option<u16>| in_order(covering.iter().filter(|(_, document)| document.port == port));
    let mut ports: Vec<InboundPort> = model
        .selecting(&id.namespace, &object.labels)
        .iter()
        .flat_map(|(o, service)| ports(model, o, service, spec))
        .collect();
    for number in covering.iter().filter_map(|(_, document)| document.port) {
        if !ports.iter().any(|port| port.port == u32::from(number)) {
            ports.push(InboundPort { port: number.into(), ..Default::default() });
        }
    }
    for port in &mut ports {
        port.policies.extend(u16::try_from(port.port).ok().into_iter().flat_map(|number| on_port(Some(number))));
    }
    ports.sort_by(|a, b| (a.port, &a.service).cmp(&(b.port, &b.service)));
    let (settings, merged) = model.effective(namespace, name);
    let from = |(field, object): (String, Option<&Object>)| SettingOrigin { field, origin: object.map(origin) };
    let modes = settings.modes();
    Some(Inbound {
        workload: WorkloadName::new(namespace, name).to_string(),
        identity: identity(mesh, namespace, &spec.service_account),
        mode: if modes.permissive { mesh::InboundMode::Permissive } else { mesh::InboundMode::Strict }.into(),
        outbound_mode: if modes.passthrough { mesh::OutboundMode::Prefer } else { mesh::OutboundMode::Require }.into(),
        posture: match modes.posture {
            Posture::Deny => Posture::Deny,
            // What is noted stands in the settings, which sidecars of earlier releases can leave out.
            Posture::Allow | Posture::Audit => Posture::Allow,
        }
        .name()
        .to_owned(),
        access_log: match modes.log {
            Log::Errors => mesh::AccessLog::Errors,
            Log::Off => mesh::AccessLog::Off,
            Log::All => mesh::AccessLog::All,
        }
        .into(),
        settings: kind::document(&settings).to_string(),
        settings_from: merged.from.into_iter().map(from).collect(),
        ports,
        policies: on_port(None),
        origin: Some(origin(object)),
        trust_domain: mesh.trust_domain.clone(),
        unenforceable: Vec::new(),
        zone: destination::zone(model, spec),
        node: spec.node.clone().unwrap_or_default(),
        probers: probers(model, spec),
    })
}

/// Where the kubelet of a pod's node may ask from, beside the addresses that the pod knows: where a bridge leads to the pods,
/// it has the first address of their network.
fn probers(model: &Model, spec: &WorkloadSpec) -> Vec<String> {
    let of_node = if spec.pod { model.nodes().first_addresses(spec.node.as_deref()) } else { &[] };
    of_node.iter().map(IpAddr::to_string).collect()
}

/// The ports of the workload's application behind one service.
fn ports(model: &Model, object: &Object, service: &ServiceSpec, workload: &WorkloadSpec) -> Vec<InboundPort> {
    let target = Target::Service(object.id.namespace.clone(), object.id.name.clone());
    let mut routes = model.attached(&target, |document| document.is_route);
    // Who calls is known by its identity alone, so requests are named by the routes that are for everybody's.
    routes.retain(|(of, document)| granted::consumer(of, document, &target).is_none());
    let policies = model.attached(&target, Attached::acts_where_called);
    let carried: Vec<&ServicePort> = service.carried().collect();
    let port = |p: &&ServicePort| {
        let of_port = routes.iter().filter(|(_, document)| document.is_for(&target, p));
        Some(InboundPort {
            port: p.target(workload)?.into(),
            app_protocol: p.spoken().map_or(String::new(), |protocol| protocol.name().to_owned()),
            service: object.id.path(),
            routes: of_port
                .filter_map(|(of, document)| route(model, of, document, &target, (&carried, true)))
                .collect(),
            policies: own_ports(
                in_order(policies.iter().filter(|(_, document)| document.port.is_none_or(|port| port == p.port))),
                service,
                workload,
            ),
        })
    };
    // Two ports of a service may lead to one port of the application.
    by_number(&carried.iter().filter_map(port).collect::<Vec<_>>())
}

/// The policies of a service, in which the ports of the service that the application does not have are those that they lead to.
fn own_ports(mut policies: Vec<Attachment>, service: &ServiceSpec, workload: &WorkloadSpec) -> Vec<Attachment> {
    for policy in policies.iter_mut().filter(|policy| ports::are_named(&policy.document)) {
        let Ok(mut document) = serde_json::from_str(&policy.document) else { continue };
        let mut is_other = false;
        ports::each(&mut document, &mut |_, port| {
            let own = service.application_port(port, workload);
            is_other |= own != port;
            own
        });
        if is_other {
            policy.document = document.to_string();
        }
    }
    policies
}

/// Documents as attachments, in order of kind and name.
fn in_order<'a>(documents: impl Iterator<Item = &'a (&'a Object, &'a Attached)>) -> Vec<Attachment> {
    let mut documents: Vec<_> = documents.collect();
    documents.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    documents.into_iter().map(|(object, attached)| attachment(object, attached)).collect()
}
