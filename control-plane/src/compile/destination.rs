//! A service as callers see it, and where its ports lead.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use selvedge_policies::names::{self, ServiceName};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS},
    proto::mesh::{self, Attachment, Destination, Endpoint, Endpoints, Port},
    resource::Encoded,
};

use super::{Mesh, attachment, identity, origin, route};
use crate::{
    model::{
        Attached, Model, Object, Target,
        endpoint_slice::{AddressType, EndpointSliceSpec, Hint, SliceEndpoint},
        external_service::{ExternalPort, ExternalServiceSpec},
        granted,
        service::{InternalTrafficPolicy, ServicePort, ServiceSpec},
        workload::WorkloadSpec,
    },
    snapshot::Draft,
};

/// A destination with the endpoints of its ports.
pub(super) struct Compiled {
    message: Destination,
    aliases: Vec<String>,
    endpoints: Vec<(u16, Endpoints)>,
    /// What callers of some namespaces are told in its place.
    views: BTreeMap<Arc<str>, Destination>,
}

/// The destination of that name; `None` when there is no such service. A `Service` goes before an
/// `ExternalService` of the same name.
pub(super) fn compile(model: &Model, mesh: &Mesh, namespace: &str, name: &str) -> Option<Compiled> {
    if let Some((object, spec)) = model.service(namespace, name) {
        return Some(service(model, mesh, object, spec));
    }
    model.external_service(namespace, name).map(|(object, spec)| external(model, object, spec))
}

impl Compiled {
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.endpoints.iter().map(|(port, _)| *port)
    }

    pub(super) fn into_draft(self, draft: &mut Draft) {
        let service = ServiceName::new(&self.message.namespace, &self.message.name);
        for (port, endpoints) in &self.endpoints {
            let name = service.port(*port).to_string();
            draft.put(Encoded::new(ENDPOINTS, name, Vec::new(), endpoints), false);
        }
        draft.set_views(service.text(), self.views.keys().cloned().collect());
        for (namespace, view) in &self.views {
            // Asked for by the names of the service, of which it has none to itself.
            let name = names::view(service.text(), namespace);
            draft.put(Encoded::new(DESTINATION, name, Vec::new(), view), self.message.external);
        }
        draft.put(Encoded::new(DESTINATION, &**service.text(), self.aliases, &self.message), self.message.external);
    }
}

fn service(model: &Model, mesh: &Mesh, object: &Object, spec: &ServiceSpec) -> Compiled {
    let (namespace, name) = (&object.id.namespace, &object.id.name);
    let hosts = names::hosts(namespace, name);
    let carried: Vec<&ServicePort> = spec.carried().collect();
    let numbers: Vec<u16> = carried.iter().map(|port| port.port).collect();
    let mut aliases = names(&hosts, &numbers);
    aliases.extend(spec.addresses().into_iter().flat_map(|ip| numbers.iter().map(move |port| socket(ip, *port))));
    let port = |p: &&ServicePort| Port {
        port: p.port.into(),
        name: p.name.clone().unwrap_or_default(),
        app_protocol: protocol(p),
    };
    let target = Target::Service(namespace.clone(), name.clone());
    let local = spec.internal_traffic_policy == Some(InternalTrafficPolicy::Local);
    let message = Destination {
        ports: carried.iter().map(port).collect(),
        hosts: hosts.into(),
        internal_traffic_policy: policy(local).into(),
        ..destination(model, object, &target, &carried)
    };
    let mut slices = model.slices(namespace, name);
    // A pod with addresses of both IP versions is one place to call, by the version of the service's own address.
    let is_first = |slice: &EndpointSliceSpec| (slice.address_type == AddressType::IPv6) == spec.is_first_ipv6();
    slices.sort_by_key(|(_, slice)| !is_first(slice));
    let mut workloads = model.selected(namespace, &spec.selector);
    workloads.retain(|(object, workload)| workload.weight > 0 && !speak_of(&slices, object, workload));
    let selected = |port: &ServicePort| -> Vec<Endpoint> {
        let endpoint = |(object, workload): &(&Object, &WorkloadSpec)| {
            let port = port.target(workload)?;
            Some(hinted(spec, at(model, mesh, object, workload, workload.ip(), port)))
        };
        workloads.iter().filter_map(endpoint).collect()
    };
    let endpoints = |port: &ServicePort| (port.port, sliced(model, mesh, &slices, port).beside(selected(port), local));
    let views = views(model, &message, &target, &carried);
    let endpoints = carried.into_iter().map(endpoints).collect();
    Compiled { message, aliases, endpoints, views }
}

/// What callers are told in the place of a service whose namespaces have routes of their own to it (GEP-1294). At a port that
/// one of these is for, the routes of the service's own namespace do not hold for them (GEP-1426).
fn views(
    model: &Model,
    message: &Destination,
    target: &Target,
    ports: &[&ServicePort],
) -> BTreeMap<Arc<str>, Destination> {
    let mut theirs: BTreeMap<&Arc<str>, Vec<(&Object, &Attached)>> = BTreeMap::new();
    let mut own = Vec::new();
    for (object, document) in model.attached(target, |document| document.is_route) {
        match granted::consumer(object, document, target) {
            Some(namespace) => theirs.entry(namespace).or_default().push((object, document)),
            None => own.push((object, document)),
        }
    }
    let view = |(namespace, theirs): (&Arc<str>, Vec<(&Object, &Attached)>)| {
        let is_taken = |port: &&ServicePort| theirs.iter().any(|(_, document)| document.is_for(target, port));
        let (taken, left): (Vec<&ServicePort>, Vec<&ServicePort>) = ports.iter().copied().partition(is_taken);
        if taken.is_empty() {
            return None;
        }
        let theirs = theirs.iter().filter_map(|(of, document)| route(model, of, document, target, (ports, true)));
        let own = own.iter().filter_map(|(of, document)| route(model, of, document, target, (&left, false)));
        Some((namespace.clone(), Destination { routes: theirs.chain(own).collect(), ..message.clone() }))
    };
    theirs.into_iter().filter_map(view).collect()
}

/// True for a workload of which it is for the slices to say whether it is called: a pod, where there are any, and whatever
/// else stands in them.
fn speak_of(slices: &[(&Object, &EndpointSliceSpec)], object: &Object, workload: &WorkloadSpec) -> bool {
    let is_it = |endpoint: &SliceEndpoint| {
        endpoint.pod().map_or_else(|| workload.ips().any(|ip| endpoint.ip() == Some(ip)), |pod| *pod == *object.id.name)
    };
    let mut endpoints = slices.iter().flat_map(|(_, slice)| &slice.endpoints);
    (workload.pod && !slices.is_empty()) || endpoints.any(is_it)
}

/// What a cluster says of the endpoints of a service's port.
struct Sliced {
    ready: Vec<Endpoint>,
    /// Those that end and still take calls.
    leaving: Vec<Endpoint>,
}

impl Sliced {
    /// The endpoints of the port, with those that only a selector tells of. Those that end are called when there are no others,
    /// as everywhere in Kubernetes (KEP-1669): none in the cluster or, where calls stay on their node, none on it.
    fn beside(self, selected: Vec<Endpoint>, local: bool) -> Endpoints {
        let Self { mut ready, leaving } = self;
        ready.extend(selected);
        match (local, ready.is_empty()) {
            (true, _) => of_policy(true, ready, leaving),
            (false, true) => of_policy(false, leaving, Vec::new()),
            (false, false) => of_policy(false, ready, Vec::new()),
        }
    }
}

/// The endpoints of a service's port where a cluster says which there are.
fn sliced(model: &Model, mesh: &Mesh, slices: &[(&Object, &EndpointSliceSpec)], port: &ServicePort) -> Sliced {
    let such = |is_such: fn(&SliceEndpoint) -> bool| -> Vec<Endpoint> {
        let (mut pods, mut found) = (BTreeSet::new(), Vec::new());
        for (object, slice) in slices {
            let Some(number) = slice.port_named(port.name.as_deref()) else { continue };
            for endpoint in slice.endpoints.iter().filter(|endpoint| is_such(endpoint)) {
                let is_known = endpoint.pod().is_some_and(|pod| pods.contains(pod));
                let at = (!is_known).then(|| in_slice(model, mesh, &object.id.namespace, endpoint, number)).flatten();
                if let Some(at) = at {
                    found.push(at);
                    pods.extend(endpoint.pod());
                }
            }
        }
        found
    };
    // What ends is called as a last resort, from anywhere.
    let leaving = such(SliceEndpoint::is_leaving).into_iter();
    let leaving = leaving.map(|endpoint| Endpoint { for_zones: vec![], for_nodes: vec![], ..endpoint }).collect();
    Sliced { ready: such(SliceEndpoint::is_ready), leaving }
}

/// With the hints that a cluster would write for it.
fn hinted(spec: &ServiceSpec, endpoint: Endpoint) -> Endpoint {
    let (node, zone) = spec.prefers();
    let hint = |wanted: bool, name: &str| Some(name.to_owned()).filter(|name| wanted && !name.is_empty());
    let for_nodes = hint(node, &endpoint.node).into_iter().collect();
    let for_zones = hint(zone, &endpoint.zone).into_iter().collect();
    Endpoint { for_nodes, for_zones, ..endpoint }
}

fn of_policy(local: bool, mut endpoints: Vec<Endpoint>, leaving: Vec<Endpoint>) -> Endpoints {
    // Where one workload has a sidecar, another that claims the same place is no reason to call it in plaintext.
    let proven: BTreeSet<String> = endpoints
        .iter()
        .filter(|endpoint| !endpoint.identity.is_empty())
        .map(|endpoint| endpoint.address.clone())
        .collect();
    endpoints.retain(|endpoint| !endpoint.identity.is_empty() || !proven.contains(&endpoint.address));
    Endpoints { endpoints, internal_traffic_policy: policy(local).into(), leaving }
}

const fn policy(local: bool) -> mesh::InternalTrafficPolicy {
    if local { mesh::InternalTrafficPolicy::Local } else { mesh::InternalTrafficPolicy::Cluster }
}

/// What is called at one endpoint of a slice; `None` while it is not known whether the pod there has a sidecar, or which of
/// several it is. Of an endpoint without a pod the address says what is there: many are written by hand.
fn in_slice(model: &Model, mesh: &Mesh, namespace: &str, endpoint: &SliceEndpoint, port: u16) -> Option<Endpoint> {
    let ip = endpoint.ip()?;
    let there: Vec<(&Object, &WorkloadSpec)> = match endpoint.pod() {
        Some(pod) => vec![model.workload(namespace, pod)?],
        None => model.claims().standing(ip).filter_map(|id| model.workload(&id.namespace, &id.name)).collect(),
    };
    let found = match there.as_slice() {
        [(object, workload)] => at(model, mesh, object, workload, ip, port),
        several if several.iter().any(|(_, workload)| workload.sidecar) => return None,
        _ => Endpoint { address: socket(ip, port), weight: 1, port: port.into(), ..Default::default() },
    };
    let of_node = |known: String| match &endpoint.node_name {
        Some(node) if known.is_empty() => model.nodes().zone(Some(node)).to_owned(),
        _ => known,
    };
    let names = |hints: &[Hint]| hints.iter().map(|hint| hint.name.clone()).collect();
    Some(Endpoint {
        zone: endpoint.zone.clone().unwrap_or_else(|| of_node(found.zone)),
        node: endpoint.node_name.clone().unwrap_or(found.node),
        for_zones: names(&endpoint.hints.for_zones),
        for_nodes: names(&endpoint.hints.for_nodes),
        ..found
    })
}

/// The endpoint that a workload is with a port of its application.
pub(super) fn at(
    model: &Model,
    mesh: &Mesh,
    object: &Object,
    workload: &WorkloadSpec,
    ip: IpAddr,
    port: u16,
) -> Endpoint {
    let plain = Endpoint {
        address: socket(ip, workload.dial(port)),
        weight: workload.weight,
        port: port.into(),
        zone: zone(model, workload),
        node: workload.node.clone().unwrap_or_default(),
        ..Default::default()
    };
    if !workload.sidecar || workload.direct_ports.contains(&port) {
        return plain;
    }
    let identity = identity(mesh, &object.id.namespace, &workload.service_account);
    Endpoint { identity, workload: object.id.path(), ..plain }
}

/// The zone of a workload: its own word, or that of its node.
pub(super) fn zone(model: &Model, workload: &WorkloadSpec) -> String {
    let of_node = || model.nodes().zone(workload.node.as_deref()).to_owned();
    workload.zone.clone().unwrap_or_else(of_node)
}

fn external(model: &Model, object: &Object, spec: &ExternalServiceSpec) -> Compiled {
    let numbers: Vec<u16> = spec.ports.iter().map(|port| port.port).collect();
    let mut aliases = names(&spec.hosts, &numbers);
    let port = |p: &ExternalPort| Port {
        port: p.port.into(),
        name: p.name.clone().unwrap_or_default(),
        app_protocol: p.app_protocol.map_or(String::new(), |protocol| protocol.name().to_owned()),
    };
    let target = Target::ExternalService(object.id.namespace.clone(), object.id.name.clone());
    let message = Destination {
        ports: spec.ports.iter().map(port).collect(),
        hosts: spec.hosts.clone(),
        external: true,
        ..destination(model, object, &target, &[])
    };
    let mut endpoints = Vec::new();
    for port in &spec.ports {
        let known = spec.endpoints.iter().filter_map(|endpoint| Some((endpoint.address.parse().ok()?, endpoint.port)));
        let addresses: Vec<String> = known.map(|(ip, own)| socket(ip, own.unwrap_or(port.port))).collect();
        aliases.extend(addresses.iter().cloned());
        let tls_server_name = spec.tls_server_name(port);
        let endpoint =
            |address| Endpoint { address, weight: 1, tls_server_name: tls_server_name.clone(), ..Default::default() };
        endpoints.push((port.port, of_policy(false, addresses.into_iter().map(endpoint).collect(), Vec::new())));
    }
    Compiled { message, aliases, endpoints, views: BTreeMap::new() }
}

/// What both kinds of destination have in common. An external one has no ports that routes are for.
fn destination(model: &Model, object: &Object, target: &Target, ports: &[&ServicePort]) -> Destination {
    let routes = model.attached(target, |document| document.is_route).into_iter();
    let routes = routes.filter(|(of, document)| granted::consumer(of, document, target).is_none());
    Destination {
        namespace: object.id.namespace.to_string(),
        name: object.id.name.to_string(),
        routes: routes.filter_map(|(of, document)| route(model, of, document, target, (ports, true))).collect(),
        policies: policies(model, object, target, Attached::acts_at_callers),
        origin: Some(origin(object)),
        ..Default::default()
    }
}

/// What is attached to a destination or its namespace and is `such`. Of settings the first wins; a sidecar that merges no
/// fields obeys it alone.
fn policies(model: &Model, object: &Object, target: &Target, such: fn(&Attached) -> bool) -> Vec<Attachment> {
    let every = Target::Namespace(object.id.namespace.clone());
    let own = model.attached(target, such).into_iter().map(|said| (0, said));
    let mut policies: Vec<_> = own.chain(model.attached(&every, such).into_iter().map(|said| (1, said))).collect();
    policies.sort_by_cached_key(|(scope, (object, document))| document.is_setting.then(|| object.precedence(*scope)));
    policies.into_iter().map(|(_, (of, document))| attachment(of, document)).collect()
}

/// The settings with which a service is called.
pub(super) fn settings(model: &Model, service: &Object) -> Vec<Attachment> {
    let target = Target::Service(service.id.namespace.clone(), service.id.name.clone());
    policies(model, service, &target, |document| document.is_setting)
}

/// What is spoken on a port, as it is declared.
pub(super) fn protocol(port: &ServicePort) -> String {
    port.spoken().map_or(String::new(), |protocol| protocol.name().to_owned())
}

/// Every host, alone and with every port.
fn names(hosts: &[String], ports: &[u16]) -> Vec<String> {
    let with_port = hosts.iter().flat_map(|host| ports.iter().map(move |port| format!("{host}:{port}")));
    hosts.iter().cloned().chain(with_port).collect()
}

fn socket(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}
