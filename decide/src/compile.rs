//! Resources to [`RuntimeConfig`]: what the control plane has said becomes what a request is decided by.
//!
//! Guarantees:
//! - All or nothing for each resource: [`check`] refuses one (a NACK) that would not compile, by compiling it, so what
//!   is taken can be put in force. Its last good version goes on.
//! - A configuration is compiled as a whole and never changed afterwards. Links between its parts are places in lists
//!   ([`Link`](crate::config::Link)), made here, so that no request looks endpoints up by name.
//! - Live state outlives it: a [`Compiler`] hands the policies of before to those after, and a rate limit that stands
//!   in its object as it did keeps its buckets.
//! - What is in doubt closes: a port that several services stand for has the policies of all of them, and a name that
//!   the control plane refused is nothing that could be passed by.
//!
//! It knows no TLS: the certificates of authorities stay bytes here.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use prost::Message;
use selvedge_policies::{
    attempt::TrafficPolicySpec,
    kind::{self, Attached, Problem},
    names::{PortName, ServiceName},
    policy::{Place, Posture, Role},
    registry,
    request::{PolicySet, Unsound},
    route::{HttpRouteSpec, ParentRef, RouteTable},
    settings::Settings,
};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND, TRUST_BUNDLE},
    proto::mesh::{self, AccessLog, Attachment, InboundMode, OutboundMode},
    resource::Encoded,
};
use serde_json::Value;

use crate::{
    config::{
        AccessLogMode, AppProtocol, ClusterConfig, Destination, DestinationPort, EndpointConfig, InboundPort, Own,
        RuntimeConfig, Traffic, Transport,
    },
    resources::Resources,
};

mod traffic;

/// Compiles configurations one after the other. What was compiled for a port before hands its live state over, so a rate
/// limit keeps its buckets when something else changes.
#[derive(Default)]
pub struct Compiler {
    /// Of calls received, by port; 0 stands for every other port.
    inbound: HashMap<u32, PolicySet>,
    /// Of calls made, by destination.
    outbound: HashMap<ServiceName, PolicySet>,
    generation: u64,
}

/// Whether one resource can be put in force; the answer names the user's object and the problem. Whether certificates of
/// authorities can be trusted is for whoever has the means to verify them.
///
/// ```
/// use selvedge_decide::compile::check;
/// use selvedge_xds::{kinds::ENDPOINTS, proto::mesh::Endpoints, resource::Encoded};
///
/// let endpoints = |name: &str| Encoded::new(ENDPOINTS, name, vec![], &Endpoints::default());
/// assert!(check(&endpoints("shop/web:80")).is_ok());
/// assert!(check(&endpoints("shop/web")).is_err(), "endpoints are those of a port");
/// ```
pub fn check(resource: &Encoded) -> Result<(), String> {
    let text = |e: prost::DecodeError| e.to_string();
    match resource.kind {
        DESTINATION => {
            let message = mesh::Destination::decode(resource.body.clone()).map_err(text)?;
            destination(&message, &NONE)?;
        }
        INBOUND => {
            let message = mesh::Inbound::decode(resource.body.clone()).map_err(text)?;
            for port in by_number(&message.ports).iter().chain([&mesh::InboundPort::default()]) {
                inbound_port(&message, port, &NONE)?;
            }
        }
        ENDPOINTS => {
            let message = mesh::Endpoints::decode(resource.body.clone()).map_err(text)?;
            let name = resource.name.parse::<PortName>().map_err(|error| error.to_string())?;
            cluster(&name, &message, &Arc::default(), false)?;
        }
        TRUST_BUNDLE => {
            mesh::TrustBundle::decode(resource.body.clone()).map_err(text)?;
        }
        other => return Err(format!("resources of type {other} are not known to this version of the sidecar")),
    }
    Ok(())
}

impl Compiler {
    /// The configuration for `resources`. What does not compile is left out, and a port whose policies do not refuses
    /// everything; [`check`] has refused it before.
    pub fn compile(&mut self, resources: &Arc<Resources>) -> RuntimeConfig {
        self.generation += 1;
        let mut config =
            RuntimeConfig { generation: self.generation, resources: Arc::clone(resources), ..RuntimeConfig::default() };
        if let Some(inbound) = &resources.inbound {
            self.inbound(&mut config, inbound);
        }
        let mut destinations = self.outbound(resources);
        config.refused.clone_from(&resources.refused);
        for (name, canonical) in &resources.aliases {
            let known = canonical.as_ref().map(|canonical| canonical.parse());
            // A name that is none stands for nothing that could be called, nor for leave to pass it by.
            if let Some(Err(_)) = known {
                config.refused.insert(name.clone());
            }
            config.aliases.insert(name.clone(), known.and_then(Result::ok));
        }
        config.clusters = clusters(resources, &destinations);
        for destination in destinations.values_mut() {
            link(destination, &config);
        }
        config.destinations = destinations.into_iter().map(|(name, found)| (name, Arc::new(found))).collect();
        config
    }

    /// The destinations, not yet linked.
    fn outbound(&mut self, resources: &Resources) -> HashMap<ServiceName, Destination> {
        let before = std::mem::take(&mut self.outbound);
        let mut destinations = HashMap::new();
        for (name, found) in &resources.destinations {
            let Ok(name) = name.parse::<ServiceName>() else { continue };
            if let Ok(compiled) = destination(&found.value, before.get(&name).unwrap_or(&NONE)) {
                self.outbound.insert(name.clone(), compiled.policies.clone());
                destinations.insert(name, compiled);
            }
        }
        destinations
    }

    fn inbound(&mut self, config: &mut RuntimeConfig, inbound: &mesh::Inbound) {
        config.own = Own {
            workload: inbound.workload.parse().ok(),
            identity: inbound.identity.clone(),
            caller: inbound.identity.parse().ok().map(Arc::new),
        };
        config.permissive = inbound.mode() == InboundMode::Permissive;
        config.passthrough = inbound.outbound_mode() == OutboundMode::Prefer;
        config.access_log = match inbound.access_log() {
            AccessLog::Errors => AccessLogMode::Errors,
            AccessLog::Off => AccessLogMode::Off,
            AccessLog::All => AccessLogMode::All,
        };
        let before = std::mem::take(&mut self.inbound);
        let mut compiled = |port: &mesh::InboundPort| {
            let before = before.get(&port.port).unwrap_or(&NONE);
            let compiled = inbound_port(inbound, port, before).unwrap_or_else(|_| closed(inbound));
            self.inbound.insert(port.port, compiled.policies.clone());
            Arc::new(compiled)
        };
        for port in &by_number(&inbound.ports) {
            config.ports.insert(u16::try_from(port.port).unwrap_or_default(), compiled(port));
        }
        config.other_ports = compiled(&mesh::InboundPort::default());
    }
}

/// What was in force where nothing was.
static NONE: PolicySet = PolicySet::new();

/// Each port once. Several services may stand for one port, and a caller could name whichever suits it: what is attached
/// to any of them covers every call.
pub(crate) fn by_number(ports: &[mesh::InboundPort]) -> Vec<mesh::InboundPort> {
    let mut merged: BTreeMap<u32, mesh::InboundPort> = BTreeMap::new();
    for port in ports {
        let whole = merged.entry(port.port).or_insert_with(|| mesh::InboundPort {
            policies: Vec::new(),
            routes: Vec::new(),
            ..port.clone()
        });
        if whole.app_protocol.is_empty() {
            whole.app_protocol.clone_from(&port.app_protocol);
        }
        for (into, from) in [(&mut whole.policies, &port.policies), (&mut whole.routes, &port.routes)] {
            let new: Vec<_> = from.iter().filter(|attachment| !into.contains(attachment)).cloned().collect();
            into.extend(new);
        }
    }
    merged.into_values().collect()
}

/// The policies that cover a port, in the order in which they decide.
pub(crate) fn in_order<'a>(inbound: &'a mesh::Inbound, port: &'a mesh::InboundPort) -> Vec<&'a Attachment> {
    sorted(inbound.policies.iter().chain(&port.policies).collect())
}

/// Policies in the order in which they decide.
pub(crate) fn sorted(mut policies: Vec<&Attachment>) -> Vec<&Attachment> {
    policies.sort_by_key(|policy| {
        let origin = policy.origin.as_ref();
        let phase = origin.and_then(|origin| registry::find(&origin.kind)?.phase());
        (phase, origin.map(|origin| (&origin.kind, &origin.namespace, &origin.name)))
    });
    policies
}

/// The endpoints of every port, in order of their names, each tried as the service does that it belongs to.
fn clusters(resources: &Resources, destinations: &HashMap<ServiceName, Destination>) -> Vec<Arc<ClusterConfig>> {
    let parents = parents(destinations);
    let compiled = resources.endpoints.iter().filter_map(|(name, found)| {
        let name: PortName = name.parse().ok()?;
        let owner = destinations.get(&name.service).or_else(|| destinations.get(parents.get(&name.service)?));
        let port = owner.and_then(|owner| owner.ports.get(&name.port));
        let http2 = port.is_some_and(|port| port.protocol == AppProtocol::Http2);
        let traffic = owner.map(|owner| owner.traffic.clone()).unwrap_or_default();
        cluster(&name, &found.value, &traffic, http2).ok().map(Arc::new)
    });
    let mut clusters: Vec<_> = compiled.collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    clusters
}

/// Leads the ports and backends of a destination to their endpoints in `config`.
fn link(destination: &mut Destination, config: &RuntimeConfig) {
    for (number, port) in &mut destination.ports {
        port.cluster = config.link(&destination.name.port(*number));
    }
    for (called, routes) in &destination.routes {
        let links =
            routes.backends().map(|backend| config.link(&backend.service.port(backend.port.unwrap_or(*called))));
        destination.backends.insert(*called, links.collect());
    }
}

/// Which service's policy governs a backend that has none of its own: the first that routes to it.
fn parents(destinations: &HashMap<ServiceName, Destination>) -> HashMap<ServiceName, ServiceName> {
    let mut sorted: Vec<_> = destinations.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut parents = HashMap::new();
    for (name, destination) in sorted {
        for backend in destination.routes.values().flat_map(|routes| routes.backends()) {
            parents.entry(backend.service.clone()).or_insert_with(|| name.clone());
        }
    }
    parents
}

fn describe(attachment: &Attachment) -> String {
    let generation = attachment.origin.as_ref().map_or(0, |origin| origin.generation);
    format!("{} (generation {generation})", object(&attachment.origin.clone().unwrap_or_default()))
}

/// `Kind namespace/name`.
pub(crate) fn object(origin: &mesh::Origin) -> String {
    format!("{} {}/{}", origin.kind, origin.namespace, origin.name)
}

fn problems(attachment: &str, problems: &[Problem]) -> String {
    let told = |problem: &Problem| match problem.path.is_empty() {
        true => problem.message.clone(),
        false => format!("spec.{}: {}", problem.path, problem.message),
    };
    format!("{attachment}: {}", problems.iter().map(told).collect::<Vec<_>>().join("; "))
}

/// The kind of a document, and the document with the name of its object.
pub(crate) fn read(attachment: &Attachment) -> Result<(String, Attached<Value>), String> {
    let origin = attachment.origin.clone().unwrap_or_default();
    let spec = serde_json::from_str(&attachment.document).map_err(|e| format!("{}: {e}", describe(attachment)))?;
    Ok((origin.kind, Attached { name: format!("{}/{}", origin.namespace, origin.name).into(), spec }))
}

/// The routes in `attachments`, each read as its type.
pub(crate) fn read_routes(attachments: &[Attachment]) -> Result<Vec<Attached<HttpRouteSpec>>, String> {
    let mut parsed = Vec::new();
    for attachment in attachments {
        let (kind, document) = read(attachment)?;
        if !registry::find(&kind).is_some_and(|kind| matches!(kind.role, Role::Routes)) {
            return Err(format!(
                "{}: this version of the sidecar cannot route by documents of this kind",
                describe(attachment)
            ));
        }
        let spec: HttpRouteSpec =
            kind::parse(&document.spec).map_err(|found| problems(&describe(attachment), &found))?;
        parsed.push(Attached { name: document.name, spec });
    }
    Ok(parsed)
}

fn routes(attachments: &[Attachment]) -> Result<RouteTable, String> {
    let parsed = read_routes(attachments)?;
    let names: Vec<_> = attachments.iter().map(describe).collect();
    let mut table = RouteTable::compile(&parsed).map_err(|found| problems(&names.join(", "), &found))?;
    let stand_ins = attachments.iter().zip(&parsed).filter(|(attachment, _)| attachment.stands_for.is_some());
    stand_ins.for_each(|(_, document)| table.stands_in(&document.name));
    Ok(table)
}

/// What users wrote, and the names of the objects that cannot be enforced here: everything is refused in their place.
fn apart<'a>(attachments: impl Iterator<Item = &'a Attachment>) -> (Vec<&'a Attachment>, Vec<Arc<str>>) {
    let (mut written, mut refused) = (Vec::new(), Vec::new());
    for attachment in attachments {
        match &attachment.stands_for {
            Some(object) => refused.push(format!("{}/{}", object.namespace, object.name).into()),
            None => written.push(attachment),
        }
    }
    (written, refused)
}

/// Whether a route is for calls of this port: a parent names it, or the destination without a port.
pub(crate) fn is_for(route: &HttpRouteSpec, message: &mesh::Destination, port: u16) -> bool {
    let is_this = |parent: &&ParentRef| {
        parent.name == message.name && parent.namespace.as_ref().is_none_or(|given| *given == message.namespace)
    };
    let mut parents = route.parent_refs.iter().filter(is_this).peekable();
    parents.peek().is_none() || parents.any(|parent| parent.port.is_none_or(|named| named == port))
}

/// The routes of each port of a destination, and at 0 those of any other. Ports with the same routes share their table.
fn routes_by_port(message: &mesh::Destination, ports: &[u16]) -> Result<HashMap<u16, Arc<RouteTable>>, String> {
    let documents = read_routes(&message.routes)?;
    let mut shared: HashMap<Vec<bool>, Arc<RouteTable>> = HashMap::new();
    let mut by_port = HashMap::new();
    for port in ports.iter().copied().chain([0]) {
        let chosen: Vec<bool> = documents.iter().map(|route| is_for(&route.spec, message, port)).collect();
        let table = match shared.get(&chosen) {
            Some(table) => Arc::clone(table),
            None => {
                let of_port = message.routes.iter().zip(&chosen).filter(|(_, chosen)| **chosen);
                Arc::new(routes(&of_port.map(|(route, _)| route.clone()).collect::<Vec<_>>())?)
            }
        };
        shared.insert(chosen, Arc::clone(&table));
        by_port.insert(port, table);
    }
    Ok(by_port)
}

fn inbound_port(inbound: &mesh::Inbound, port: &mesh::InboundPort, before: &PolicySet) -> Result<InboundPort, String> {
    let (attachments, refused) = apart(inbound.policies.iter().chain(&port.policies));
    let documents = attachments.iter().map(|attachment| read(attachment)).collect::<Result<Vec<_>, _>>()?;
    let policies = registry::compile(Place::Called, &documents, posture(inbound)?, before);
    let policies = policies.map_err(|found| unsound(&attachments, &found))?;
    Ok(InboundPort {
        service: port.service.parse().ok(),
        protocol: AppProtocol::of(&port.app_protocol),
        routes: routes(&port.routes)?,
        policies: without_content(policies.and(settings(inbound)?.policies()))?.refusing(refused),
    })
}

/// A port that refuses everything, because nobody knows what its policies would let pass.
fn closed(inbound: &mesh::Inbound) -> InboundPort {
    InboundPort { policies: PolicySet::new().refusing([inbound.workload.as_str().into()]), ..InboundPort::default() }
}

/// What the mesh policies of the workload say; nothing where the control plane is older.
fn settings(inbound: &mesh::Inbound) -> Result<Settings, String> {
    if inbound.settings.is_empty() {
        return Ok(Settings::default());
    }
    serde_json::from_str(&inbound.settings).map_err(|error| format!("settings of {}: {error}", inbound.workload))
}

/// A posture this sidecar does not know must not be taken for leave.
fn posture(inbound: &mesh::Inbound) -> Result<Posture, String> {
    match inbound.posture.as_str() {
        "deny" => Ok(Posture::Deny),
        "" | "allow" => Ok(Posture::Allow),
        other => Err(format!("posture '{other}' is not known to this version of the sidecar")),
    }
}

/// No stage of the sidecar hands the content of a request to policies yet, so one that needs it is refused.
fn without_content(policies: PolicySet) -> Result<PolicySet, String> {
    match policies.needs().body {
        0 => Ok(policies),
        bytes => {
            Err(format!("a policy needs {bytes} bytes of the content, which this version of the sidecar cannot read"))
        }
    }
}

fn unsound(attachments: &[&Attachment], found: &[Unsound]) -> String {
    let names = |kind: &str| {
        let of_kind = attachments.iter().filter(|a| a.origin.as_ref().is_some_and(|origin| origin.kind == kind));
        of_kind.map(|attachment| describe(attachment)).collect::<Vec<_>>().join(", ")
    };
    let told = found.iter().map(|unsound| problems(&names(&unsound.kind), &unsound.problems));
    told.collect::<Vec<_>>().join("; ")
}

fn destination(message: &mesh::Destination, before: &PolicySet) -> Result<Destination, String> {
    let (mut trying, mut deciding) = (Vec::new(), Vec::new());
    let (attachments, refused) = apart(message.policies.iter());
    for attachment in &attachments {
        let (kind, document) = read(attachment)?;
        match registry::find(&kind).map(|kind| kind.role) {
            Some(Role::Tries) => {
                kind::parse::<TrafficPolicySpec>(&document.spec)
                    .map_err(|found| problems(&describe(attachment), &found))?;
                trying.push((object(&attachment.origin.clone().unwrap_or_default()), document));
            }
            // What no policy of callers is, compiling refuses.
            Some(Role::Decides(..) | Role::Routes) | None => deciding.push((kind, document)),
        }
    }
    let (traffic, traffic_from) = traffic::compile(&trying).map_err(|found| problems(&message.name, &found))?;
    let policies = registry::compile(Place::Caller, &deciding, Posture::Allow, before);
    let number = |port: &mesh::Port| u16::try_from(port.port).unwrap_or_default();
    let unlinked = |port: &mesh::Port| DestinationPort { protocol: AppProtocol::of(&port.app_protocol), cluster: None };
    let ports: Vec<u16> = message.ports.iter().map(number).collect();
    Ok(Destination {
        name: ServiceName::new(&message.namespace, &message.name),
        routes: routes_by_port(message, &ports)?,
        policies: policies.map_err(|found| unsound(&attachments, &found)).and_then(without_content)?.refusing(refused),
        ports: message.ports.iter().map(|port| (number(port), unlinked(port))).collect(),
        backends: HashMap::new(),
        traffic: Arc::new(traffic),
        traffic_from,
    })
}

fn cluster(
    name: &PortName,
    message: &mesh::Endpoints,
    traffic: &Arc<Traffic>,
    http2: bool,
) -> Result<ClusterConfig, String> {
    let endpoint = |endpoint: &mesh::Endpoint| {
        Ok(Arc::new(EndpointConfig {
            cluster: Some(name.clone()),
            address: endpoint.address.parse().map_err(|e| format!("endpoint {}: {e}", endpoint.address))?,
            transport: transport(&name.service, endpoint)?,
            workload: endpoint.workload.parse().ok(),
            identity: endpoint.identity.clone(),
            weight: endpoint.weight.max(1),
            http2,
            traffic: traffic.clone(),
        }))
    };
    let endpoints = message.endpoints.iter().map(endpoint).collect::<Result<_, String>>()?;
    Ok(ClusterConfig { name: name.clone(), endpoints, traffic: traffic.clone() })
}

fn transport(service: &ServiceName, endpoint: &mesh::Endpoint) -> Result<Transport, String> {
    let name = |name: String| match is_server_name(&name) {
        true => Ok(name.into()),
        false => Err(format!("endpoint {}: '{name}' is no name that TLS can verify", endpoint.address)),
    };
    if !endpoint.identity.is_empty() {
        let identity = endpoint.identity.parse().map_err(|e| format!("endpoint {}: {e}", endpoint.address))?;
        let server_name = name(format!("{}.{}", service.name(), service.namespace()))?;
        return Ok(Transport::Mesh { identity: Arc::new(identity), server_name });
    }
    if endpoint.tls_server_name.is_empty() {
        return Ok(Transport::Plain);
    }
    Ok(Transport::External { server_name: name(endpoint.tls_server_name.clone())? })
}

/// What TLS can send and verify as the name of a server: an IP address, or the name of a host (RFC 1123, and the
/// underscores that are in use) whose last label is not a number, which would be read as an address.
fn is_server_name(text: &str) -> bool {
    let labels = || text.strip_suffix('.').unwrap_or(text).split('.');
    let label_is_sound = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let is_number = |label: &str| match label.strip_prefix("0x").or_else(|| label.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    };
    let is_host = text.len() <= 253 && labels().all(label_is_sound) && !labels().next_back().is_some_and(is_number);
    is_host || text.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use selvedge_policies::{
        reason::Reason,
        testing::{Clock, Request},
        verdict::Verdict,
    };

    use super::*;

    fn inbound(posture: &str, kind: &str) -> Encoded {
        let origin = mesh::Origin { kind: kind.into(), ..Default::default() };
        let policy =
            Attachment { origin: Some(origin), document: r#"{"action": "DENY"}"#.into(), ..Attachment::default() };
        let message = mesh::Inbound { posture: posture.into(), policies: vec![policy], ..Default::default() };
        Encoded::new(INBOUND, "shop/web-1", Vec::new(), &message)
    }

    #[test]
    fn what_cannot_be_enforced_is_refused_and_not_left_out() {
        check(&inbound("deny", "AuthorizationPolicy")).unwrap();
        let newer = check(&inbound("deny", "RequestAuthentication")).unwrap_err();
        assert!(newer.contains("RequestAuthentication"), "{newer}");
        assert!(check(&inbound("audit", "AuthorizationPolicy")).is_err());
    }

    #[test]
    fn what_callers_cannot_enforce_is_refused_as_what_the_called_side_cannot() {
        let attachment = |kind: &str, document: &str| {
            let origin = mesh::Origin { kind: kind.into(), namespace: "shop".into(), name: "x".into(), generation: 7 };
            Attachment { origin: Some(origin), document: document.into(), ..Default::default() }
        };
        let destination = |policies: Vec<Attachment>, routes: Vec<Attachment>| {
            let message = mesh::Destination { policies, routes, ..Default::default() };
            check(&Encoded::new(DESTINATION, "shop/web", Vec::new(), &message))
        };
        let traffic = attachment("TrafficPolicy", r#"{"targetRef": {"name": "web"}}"#);
        let route = |kind: &str| attachment(kind, r#"{"parentRefs": [{"name": "web"}]}"#);
        destination(vec![traffic.clone()], vec![route("HTTPRoute")]).unwrap();
        for kind in ["FaultOfTomorrow", "AuthorizationPolicy", "HTTPRoute"] {
            let why =
                destination(vec![traffic.clone(), attachment(kind, r#"{"action": "DENY"}"#)], vec![]).unwrap_err();
            assert!(why.starts_with(&format!("{kind} shop/x (generation 7): shop/x: this version")), "{why}");
        }
        for kind in ["GRPCRoute", "TrafficPolicy"] {
            let why = destination(vec![], vec![route(kind)]).unwrap_err();
            assert!(why.contains(&format!("{kind} shop/x")) && why.contains("cannot route by"), "{why}");
        }
    }

    #[test]
    fn what_stands_for_a_policy_that_cannot_be_enforced_refuses_in_its_name() {
        let object = |kind: &str| mesh::Origin {
            kind: kind.into(),
            namespace: "shop".into(),
            name: "jwt".into(),
            generation: 1,
        };
        let stand_in = Attachment {
            origin: Some(object("AuthorizationPolicy")),
            document: r#"{"action": "DENY", "rules": [{}]}"#.into(),
            stands_for: Some(object("TokenAuthentication")),
        };
        let inbound = mesh::Inbound { policies: vec![stand_in], ..Default::default() };
        let port = inbound_port(&inbound, &mesh::InboundPort::default(), &NONE).unwrap();
        let (mut context, request) = (Clock::default().context(), Request::new("GET", "/"));
        let connection = request.connection();
        let Verdict::Answer(answer) = port.policies.on_connection(&connection, &mut context) else {
            panic!("it passed")
        };
        assert_eq!((answer.reason, &*answer.policy), (Some(Reason::PolicyUnenforceable), "shop/jwt"));
        assert!(port.policies.on_open_connection(&connection, &mut context).is_some(), "open ones end");
    }

    #[test]
    fn a_port_whose_policies_do_not_compile_refuses_everything() {
        let unknown = Attachment { document: "{".into(), ..Default::default() };
        let broken = mesh::InboundPort { port: 8080, policies: vec![unknown], ..Default::default() };
        let sound = mesh::InboundPort { port: 8081, ..Default::default() };
        let reasons = |posture: &str| {
            let ports = vec![broken.clone(), sound.clone()];
            let view =
                mesh::Inbound { workload: "shop/web-1".into(), posture: posture.into(), ports, ..Default::default() };
            let resources = Resources { inbound: Some(Arc::new(view)), ..Default::default() };
            let config = Compiler::default().compile(&Arc::new(resources));
            [8080, 8081, 9000].map(|port| {
                let (mut context, request) = (Clock::default().context(), Request::new("GET", "/"));
                match config.inbound(port).policies.on_request(&request.facts(), &mut context) {
                    Verdict::Answer(answer) => answer.reason,
                    _ => None,
                }
            })
        };
        let closed = Some(Reason::PolicyUnenforceable);
        assert_eq!(reasons("allow"), [closed, None, None], "not as other ports are judged");
        assert_eq!(reasons("audit"), [closed; 3], "a posture of another release");
    }

    #[test]
    fn a_rule_that_cannot_be_enforced_says_so_and_one_without_weight_says_that() {
        let route = |name: &str, stands_for| Attachment {
            origin: Some(mesh::Origin {
                kind: "HTTPRoute".into(),
                namespace: "shop".into(),
                name: name.into(),
                generation: 1,
            }),
            document: format!(
                r#"{{"parentRefs": [{{"name": "web"}}], "rules": [{{"name": "{name}", "backendRefs": [{{"name": "web", "weight": 0}}]}}]}}"#
            ),
            stands_for,
        };
        let table = routes(&[route("old", Some(mesh::Origin::default())), route("own", None)]).unwrap();
        let reasons: Vec<_> = table.rules().map(|rule| (&*rule.name, rule.nowhere)).collect();
        let expected = [("shop/old/old", Reason::PolicyUnenforceable), ("shop/own/own", Reason::NoEndpoints)];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn a_route_is_for_the_ports_its_parents_name_and_those_share_it() {
        let route = |name: &str, port: &str| {
            let origin = mesh::Origin { kind: "HTTPRoute".into(), name: name.into(), ..Default::default() };
            let document = format!(
                r#"{{"parentRefs": [{{"name": "other", "port": 80}}, {{"name": "web"{port}}}], "rules": [{{"name": "all"}}]}}"#
            );
            Attachment { origin: Some(origin), document, ..Default::default() }
        };
        let message = mesh::Destination {
            namespace: "shop".into(),
            name: "web".into(),
            routes: vec![route("every", ""), route("one", r#", "port": 81"#)],
            ..Default::default()
        };
        let routes = routes_by_port(&message, &[80, 81, 82]).unwrap();
        let names = |port: u16| routes[&port].rules().map(|rule| rule.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(81), ["/every/all", "/one/all"]);
        for port in [80, 82, 0] {
            assert_eq!(names(port), ["/every/all"], "port {port}");
            assert!(Arc::ptr_eq(&routes[&port], &routes[&80]));
        }
    }

    #[test]
    fn names_that_tls_cannot_verify_are_refused() {
        for good in
            ["web.shop", "api.example.com", "api.example.com.", "_dmarc.example.com", "10.0.0.1", "::1", "a.0xg"]
        {
            assert!(is_server_name(good), "{good}");
        }
        for bad in
            ["", ".", "a..b", "-a.b", "a-.b", "a b", "a.7", "a.0x1f", "1.2.3", &"a".repeat(64), &"a.".repeat(127)]
        {
            assert!(!is_server_name(bad), "{bad}");
        }
    }

    #[test]
    fn endpoints_are_reached_as_what_is_known_of_them_says() {
        let service = ServiceName::new("shop", "web");
        let reached = |identity: &str, tls_server_name: &str| {
            let endpoint = mesh::Endpoint {
                identity: identity.into(),
                tls_server_name: tls_server_name.into(),
                ..Default::default()
            };
            transport(&service, &endpoint)
        };
        let mesh = reached("spiffe://mesh.local/ns/shop/sa/web", "");
        assert!(matches!(mesh, Ok(Transport::Mesh { server_name, .. }) if &*server_name == "web.shop"));
        let external = reached("", "api.example.com");
        assert!(matches!(external, Ok(Transport::External { server_name }) if &*server_name == "api.example.com"));
        assert!(matches!(reached("", ""), Ok(Transport::Plain)));
        assert!(reached("web", "").is_err() && reached("", "a b").is_err(), "never in plain text instead");
    }

    #[test]
    fn the_first_protocol_that_a_service_behind_a_port_names_is_the_port_s() {
        let port = |app_protocol: &str| mesh::InboundPort {
            port: 8080,
            app_protocol: app_protocol.into(),
            ..Default::default()
        };
        for (ports, expected) in [(["", "grpc"], "grpc"), (["grpc", ""], "grpc"), (["http", "grpc"], "http")] {
            assert_eq!(by_number(&ports.map(port))[0].app_protocol, expected, "{ports:?}");
        }
    }

    #[test]
    fn policies_of_every_service_behind_a_port_cover_it() {
        let attachment = |document: &str| Attachment { document: document.into(), ..Default::default() };
        let port = |service: &str, policies: &[&str]| mesh::InboundPort {
            port: 8080,
            service: service.into(),
            policies: policies.iter().map(|document| attachment(document)).collect(),
            ..Default::default()
        };
        let merged = by_number(&[port("shop/web", &["a", "b"]), port("shop/web-v1", &["b", "c"])]);
        let documents: Vec<_> = merged[0].policies.iter().map(|policy| &*policy.document).collect();
        assert_eq!((merged.len(), &*merged[0].service, documents), (1, "shop/web", vec!["a", "b", "c"]));
    }
}
