//! The endpoints of a port: which addresses they are, what is on the wire to them, and how they are tried.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use selvedge_policies::names::{PortName, ServiceName};
use selvedge_xds::proto::mesh;

use super::nearby::used;
use crate::{
    config::{AppProtocol, ClusterConfig, Destination, EndpointConfig, Locality, Traffic, Transport},
    resources::Resources,
};

/// The endpoints of every port of a service, those that a workload uses which is `here`, each tried as the service is that
/// it belongs to.
pub(super) fn all(
    resources: &Resources,
    destinations: &HashMap<ServiceName, Destination>,
    here: &Locality,
) -> Vec<Arc<ClusterConfig>> {
    let parents = parents(destinations);
    let unmeshed = without_sidecar(resources);
    let compiled = resources.endpoints.iter().filter_map(|(name, found)| {
        let name: PortName = name.parse().ok()?;
        let owner = destinations.get(&name.service).or_else(|| destinations.get(parents.get(&name.service)?));
        let port = owner.and_then(|owner| owner.ports.get(&name.port));
        let http2 = port.is_some_and(|port| port.protocol == AppProtocol::Http2);
        let traffic = owner.map(|owner| owner.traffic.clone()).unwrap_or_default();
        let is_external = resources.destinations.get(&**name.service.text()).is_some_and(|found| found.value.external);
        let plain = if is_external { &Transport::Plain } else { &unmeshed };
        let (used, nowhere) = used(&found.value, here);
        let used = if *plain == Transport::Unmeshed { without_plaintext(used) } else { used };
        let compiled = compile(&name, used, &traffic, http2, plain).ok()?;
        Some(Arc::new(ClusterConfig { nowhere, ..compiled }))
    });
    compiled.collect()
}

/// Of these endpoints those that are called where nothing may go in plaintext: one without a sidecar could only fail in the
/// turn of another. All, where no other is there: then each says why it is not called.
pub(crate) fn without_plaintext(endpoints: Vec<&mesh::Endpoint>) -> Vec<&mesh::Endpoint> {
    let by_tls: Vec<&mesh::Endpoint> = endpoints.iter().copied().filter(|endpoint| reached_by_tls(endpoint)).collect();
    if by_tls.is_empty() { endpoints } else { by_tls }
}

/// False for an endpoint without a sidecar that is of the mesh.
pub(crate) fn reached_by_tls(endpoint: &mesh::Endpoint) -> bool {
    !endpoint.identity.is_empty() || !endpoint.tls_server_name.is_empty()
}

/// What goes on the wire to a workload without a sidecar: nothing, as long as nobody has said that it may be plaintext.
pub(super) fn without_sidecar(resources: &Resources) -> Transport {
    match resources.inbound.as_ref().map(|own| own.outbound_mode()) {
        Some(mesh::OutboundMode::Prefer) => Transport::Plain,
        _ => Transport::Unmeshed,
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

/// A port with these endpoints; those without sidecar and TLS are reached by `plain`.
///
/// # Errors
/// An endpoint that is no address, or that has no name that could be verified.
pub(super) fn compile(
    name: &PortName,
    endpoints: Vec<&mesh::Endpoint>,
    traffic: &Arc<Traffic>,
    http2: bool,
    plain: &Transport,
) -> Result<ClusterConfig, String> {
    let server_name = server_name(&name.service);
    let endpoint = |message| endpoint(name, &server_name, message, traffic, http2, plain).map(Arc::new);
    let endpoints = endpoints.into_iter().map(endpoint).collect::<Result<_, String>>()?;
    Ok(ClusterConfig { name: name.clone(), endpoints, traffic: traffic.clone(), nowhere: None })
}

/// What the sidecar of a service's workload is asked for, so that it knows which of its services is called.
pub(super) fn server_name(service: &ServiceName) -> String {
    format!("{}.{}", service.name(), service.namespace())
}

/// One endpoint of the port `name`; its sidecar is asked for `server_name`.
pub(super) fn endpoint(
    name: &PortName,
    server_name: &str,
    message: &mesh::Endpoint,
    traffic: &Arc<Traffic>,
    http2: bool,
    plain: &Transport,
) -> Result<EndpointConfig, String> {
    Ok(EndpointConfig {
        cluster: Some(name.clone()),
        address: message.address.parse().map_err(|e| format!("endpoint {}: {e}", message.address))?,
        transport: transport(server_name, message, plain)?,
        workload: message.workload.parse().ok(),
        identity: message.identity.clone(),
        weight: message.weight.max(1),
        http2,
        traffic: traffic.clone(),
    })
}

fn transport(server_name: &str, endpoint: &mesh::Endpoint, plain: &Transport) -> Result<Transport, String> {
    let name = |name: String| match is_server_name(&name) {
        true => Ok(name.into()),
        false => Err(format!("endpoint {}: '{name}' is no name that TLS can verify", endpoint.address)),
    };
    if !endpoint.identity.is_empty() {
        let identity = endpoint.identity.parse().map_err(|e| format!("endpoint {}: {e}", endpoint.address))?;
        let server_name = name(server_name.to_owned())?;
        return Ok(Transport::Mesh { identity: Arc::new(identity), server_name });
    }
    if endpoint.tls_server_name.is_empty() {
        return Ok(plain.clone());
    }
    Ok(Transport::External { server_name: name(endpoint.tls_server_name.clone())? })
}

/// What TLS can send and verify as the name of a server: an IP address, or the name of a host (RFC 1123, and the
/// underscores that are in use) whose last label is not a number, which would be read as an address.
pub(super) fn is_server_name(text: &str) -> bool {
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
    use super::*;
    use crate::resources::Versioned;

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
    fn nothing_goes_in_plaintext_as_long_as_nobody_has_said_that_it_may() {
        let endpoint = mesh::Endpoint { address: "10.0.0.9:8080".into(), ..Default::default() };
        let value = mesh::Endpoints { endpoints: vec![endpoint], ..Default::default() };
        let known = Versioned { name: "shop/web:80".into(), version: "1".into(), value };
        let reached = |inbound: Option<mesh::OutboundMode>| {
            let inbound =
                inbound.map(|mode| Arc::new(mesh::Inbound { outbound_mode: mode.into(), ..Default::default() }));
            let endpoints = HashMap::from([("shop/web:80".into(), Arc::new(known.clone()))]);
            let resources = Resources { inbound, endpoints, ..Resources::default() };
            let clusters = all(&resources, &HashMap::new(), &Locality::default());
            clusters[0].endpoints[0].transport.clone()
        };
        assert_eq!(reached(None), Transport::Unmeshed);
        assert_eq!(reached(Some(mesh::OutboundMode::Require)), Transport::Unmeshed);
        assert_eq!(reached(Some(mesh::OutboundMode::Prefer)), Transport::Plain);
    }

    #[test]
    fn where_nothing_goes_in_plaintext_an_endpoint_without_a_sidecar_takes_no_turn_of_one_that_has_one() {
        let endpoint = |address: &str, identity: &str| mesh::Endpoint {
            address: address.into(),
            identity: identity.into(),
            ..Default::default()
        };
        let (meshed, bare) =
            (endpoint("10.0.0.1:80", "spiffe://mesh.local/ns/shop/sa/web"), endpoint("10.0.0.2:80", ""));
        let addresses = |mode: mesh::OutboundMode, endpoints: &[&mesh::Endpoint]| {
            let endpoints = endpoints.iter().map(|endpoint| (*endpoint).clone()).collect();
            let value = mesh::Endpoints { endpoints, ..Default::default() };
            let known = Versioned { name: "shop/web:80".into(), version: "1".into(), value };
            let inbound = Some(Arc::new(mesh::Inbound { outbound_mode: mode.into(), ..Default::default() }));
            let endpoints = HashMap::from([("shop/web:80".into(), Arc::new(known))]);
            let resources = Resources { inbound, endpoints, ..Resources::default() };
            let clusters = all(&resources, &HashMap::new(), &Locality::default());
            clusters[0].endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(addresses(mesh::OutboundMode::Prefer, &[&bare, &meshed]), ["10.0.0.2:80", "10.0.0.1:80"]);
        assert_eq!(addresses(mesh::OutboundMode::Require, &[&bare, &meshed]), ["10.0.0.1:80"]);
        assert_eq!(addresses(mesh::OutboundMode::Require, &[&bare]), ["10.0.0.2:80"], "it says why it is not called");
    }

    #[test]
    fn endpoints_are_reached_as_what_is_known_of_them_says() {
        let reached = |identity: &str, tls_server_name: &str| {
            let endpoint = mesh::Endpoint {
                identity: identity.into(),
                tls_server_name: tls_server_name.into(),
                ..Default::default()
            };
            transport("web.shop", &endpoint, &Transport::Plain)
        };
        let mesh = reached("spiffe://mesh.local/ns/shop/sa/web", "");
        assert!(matches!(mesh, Ok(Transport::Mesh { server_name, .. }) if &*server_name == "web.shop"));
        let external = reached("", "api.example.com");
        assert!(matches!(external, Ok(Transport::External { server_name }) if &*server_name == "api.example.com"));
        assert!(matches!(reached("", ""), Ok(Transport::Plain)));
        assert!(reached("web", "").is_err() && reached("", "a b").is_err(), "never in plain text instead");
    }
}
