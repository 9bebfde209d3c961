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
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use prost::Message;
use selvedge_policies::{
    names::{PortName, ServiceName},
    request::PolicySet,
};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND, TRUST_BUNDLE},
    proto::mesh::{self, AccessLog, InboundMode, OutboundMode},
    resource::Encoded,
};

use crate::{
    config::{AccessLogMode, Destination, Locality, Own, RuntimeConfig, Transport},
    resources::Resources,
};

mod address;
mod attached;
mod cluster;
mod destination;
mod inbound;
mod nearby;
mod outside;
mod routes;
mod traffic;

pub use inbound::by_number;
pub(crate) use {
    address::{answering, compile as at_address},
    attached::{read, sorted},
    cluster::{reached_by_tls, without_plaintext},
    inbound::{in_order, posture},
    nearby::used,
    routes::{is_for, read_routes},
};

/// Compiles configurations one after the other. What was compiled for a port before hands its live state over, so a rate
/// limit keeps its buckets when something else changes.
///
/// ```
/// use std::sync::Arc;
///
/// use selvedge_decide::{compile::Compiler, resources::Resources};
///
/// let mut compiler = Compiler::default();
/// let resources = Arc::new(Resources::default());
/// assert_eq!([1, 2].map(|_| compiler.compile(&resources).generation), [1, 2]);
/// ```
#[derive(Default)]
pub struct Compiler {
    /// Of calls received, by port; 0 stands for every other port.
    inbound: HashMap<u32, Arc<PolicySet>>,
    /// Of calls made, by destination.
    outbound: HashMap<ServiceName, Arc<PolicySet>>,
    generation: u64,
    /// Where the workload is, as far as its own file says.
    locality: Locality,
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
            destination::compile(&message, &NONE)?;
            for port in &message.address_ports {
                let called = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), u16::try_from(port.port).unwrap_or(0));
                address::compile(&message, called, &Transport::Plain)?;
            }
        }
        INBOUND => {
            let message = mesh::Inbound::decode(resource.body.clone()).map_err(text)?;
            for port in by_number(&message.ports).iter().chain([&mesh::InboundPort::default()]) {
                inbound::compile(&message, port, &NONE)?;
            }
        }
        ENDPOINTS => {
            let message = mesh::Endpoints::decode(resource.body.clone()).map_err(text)?;
            let name = resource.name.parse::<PortName>().map_err(|error| error.to_string())?;
            let every = message.endpoints.iter().chain(&message.leaving).collect();
            cluster::compile(&name, every, &Arc::default(), false, &Transport::Plain)?;
        }
        TRUST_BUNDLE => {
            mesh::TrustBundle::decode(resource.body.clone()).map_err(text)?;
        }
        other => return Err(format!("resources of type {other} are not known to this version of the sidecar")),
    }
    Ok(())
}

impl Compiler {
    /// One for a workload that is there. What is not known of its place is taken from what the control plane says.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use selvedge_decide::{compile::Compiler, config::Locality, resources::Resources};
    /// use selvedge_xds::proto::mesh::Inbound;
    ///
    /// let told = Inbound { zone: "a".into(), node: "other".into(), ..Inbound::default() };
    /// let resources = Arc::new(Resources { inbound: Some(Arc::new(told)), ..Resources::default() });
    /// let here = Locality { node: "one".into(), ..Locality::default() };
    /// let known = Compiler::at(here).compile(&resources).own.locality;
    /// assert_eq!((&*known.zone, &*known.node), ("a", "one"));
    /// ```
    pub fn at(locality: Locality) -> Self {
        Self { locality, ..Self::default() }
    }

    /// The configuration for `resources`. What does not compile is left out, and a port whose policies do not refuses
    /// everything; [`check`] has refused it before.
    pub fn compile(&mut self, resources: &Arc<Resources>) -> RuntimeConfig {
        self.generation += 1;
        let mut config = RuntimeConfig {
            generation: self.generation,
            own: Own { locality: self.locality.clone(), ..Own::default() },
            resources: Arc::clone(resources),
            ..RuntimeConfig::default()
        };
        if let Some(inbound) = &resources.inbound {
            self.inbound(&mut config, inbound);
        }
        let told = resources.bundle.iter().flat_map(|bundle| &bundle.networks);
        config.networks = told.filter_map(|network| network.parse().ok()).collect();
        let mut destinations = self.outbound(resources);
        config.refused.clone_from(&resources.refused);
        config.clusters = cluster::all(resources, &destinations, &config.own.locality);
        let mut addresses = names(&mut config, resources);
        addresses.extend(outside::named(&mut config, resources, &destinations));
        config.clusters.sort_by(|a, b| a.name.cmp(&b.name));
        for destination in destinations.values_mut() {
            destination::link(destination, &config);
        }
        addresses.values_mut().for_each(|address| destination::link(address, &config));
        config.addresses = addresses.into_iter().map(|(name, found)| (name, Arc::new(found))).collect();
        config.destinations = destinations.into_iter().map(|(name, found)| (name, Arc::new(found))).collect();
        config
    }

    /// The destinations, not yet linked.
    fn outbound(&mut self, resources: &Resources) -> HashMap<ServiceName, Destination> {
        let before = std::mem::take(&mut self.outbound);
        let mut destinations = HashMap::new();
        for (name, found) in &resources.destinations {
            let Ok(name) = name.parse::<ServiceName>() else { continue };
            if let Ok(compiled) = destination::compile(&found.value, before.get(&name).map_or(&NONE, Arc::as_ref)) {
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
            locality: self.locality.or(inbound),
            probers: inbound.probers.iter().filter_map(|address| address.parse().ok()).collect(),
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
            let before = before.get(&port.port).map_or(&NONE, Arc::as_ref);
            let compiled = inbound::compile(inbound, port, before).unwrap_or_else(|_| inbound::closed(inbound));
            self.inbound.insert(port.port, compiled.policies.clone());
            Arc::new(compiled)
        };
        for port in &by_number(&inbound.ports) {
            config.ports.insert(u16::try_from(port.port).unwrap_or_default(), compiled(port));
        }
        config.other_ports = compiled(&mesh::InboundPort::default());
    }
}

/// Puts every name that was asked for in force, and the endpoints of those that are addresses of workloads. Returns what
/// answers at these, not yet linked.
fn names(config: &mut RuntimeConfig, resources: &Resources) -> HashMap<String, Destination> {
    let plain = cluster::without_sidecar(resources);
    let mut addresses = HashMap::new();
    for (name, canonical) in &resources.aliases {
        let Some(canonical) = canonical else {
            config.aliases.insert(name.clone(), None);
            continue;
        };
        if canonical.parse::<IpAddr>().is_ok() {
            let Ok(called) = name.parse::<SocketAddr>() else { continue };
            let message = resources.destinations.get(canonical).map(|found| &found.value);
            match message.map_or(Ok(None), |message| address::compile(message, called, &plain)) {
                Ok(Some((destination, cluster))) => {
                    config.clusters.push(Arc::new(cluster));
                    addresses.insert(name.clone(), destination);
                }
                Ok(None) => {}
                Err(_) => drop(config.refused.insert(name.clone())),
            }
            config.aliases.insert(name.clone(), None);
            continue;
        }
        let known = canonical.parse();
        // A name that is none stands for nothing that could be called, nor for leave to pass it by.
        if known.is_err() {
            config.refused.insert(name.clone());
        }
        config.aliases.insert(name.clone(), known.ok());
    }
    addresses
}

/// What was in force where nothing was.
static NONE: PolicySet = PolicySet::new();

#[cfg(test)]
mod tests {
    use selvedge_policies::{
        reason::Reason,
        testing::{Clock, Request},
        verdict::Verdict,
    };
    use selvedge_xds::proto::mesh::Attachment;

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
        let route = |kind: &str| attachment(kind, r#"{"parentRefs": [{"kind": "Service", "name": "web"}]}"#);
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
}
