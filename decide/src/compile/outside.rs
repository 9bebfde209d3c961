//! Services outside the mesh at the addresses that the sidecar's own look-ups give for their hosts. What is called by the host
//! at one of them is the service, at this address and no other, tried as the service is.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use selvedge_policies::names::{PortName, ServiceName};
use selvedge_xds::proto::mesh;

use super::cluster;
use crate::{
    config::{AppProtocol, ClusterConfig, Destination, RuntimeConfig, Transport},
    resources::{Resources, called_at},
};

/// What a host stands for at each of its addresses, not yet linked; their endpoints are put among the clusters.
pub(super) fn named(
    config: &mut RuntimeConfig,
    resources: &Resources,
    destinations: &HashMap<ServiceName, Destination>,
) -> Vec<(String, Destination)> {
    let (mut named, mut clusters) = (Vec::new(), BTreeMap::new());
    for (host, addresses) in resources.looked_up.iter() {
        let canonical = resources.aliases.get(host).and_then(|name| name.as_ref()?.parse::<ServiceName>().ok());
        let Some(service) = canonical.and_then(|name| destinations.get(&name)).filter(|found| found.external) else {
            continue;
        };
        for address in addresses {
            let own = ServiceName::new(service.name.namespace(), &format!("{}@{address}", service.name.name()));
            for port in service.ports.keys() {
                let at = SocketAddr::new(*address, *port);
                let Ok(cluster) = cluster_at(resources, service, own.port(*port), at) else { continue };
                clusters.insert(cluster.name.clone(), Arc::new(cluster));
                let name = called_at(host, at);
                config.aliases.insert(name.clone(), None);
                named.push((name, Destination { name: own.clone(), ..service.clone() }));
            }
        }
    }
    config.clusters.extend(clusters.into_values());
    named
}

/// The one endpoint of a port of `service` at this address, reached as its declared ones are.
fn cluster_at(
    resources: &Resources,
    service: &Destination,
    name: PortName,
    address: SocketAddr,
) -> Result<ClusterConfig, String> {
    let port = service.name.port(name.port);
    let declared = resources.endpoints.get(&port.to_string()).and_then(|found| found.value.endpoints.first());
    let tls_server_name = declared.map(|endpoint| endpoint.tls_server_name.clone()).unwrap_or_default();
    let message = mesh::Endpoint { address: address.to_string(), tls_server_name, ..Default::default() };
    let http2 = service.ports.get(&name.port).is_some_and(|port| port.protocol == AppProtocol::Http2);
    let endpoint = cluster::endpoint(&port, "", &message, &service.traffic, http2, &Transport::Plain)?;
    Ok(ClusterConfig { name, endpoints: vec![Arc::new(endpoint)], traffic: service.traffic.clone(), nowhere: None })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use selvedge_xds::proto::mesh::{Endpoint, Endpoints, Port};

    use super::*;
    use crate::{
        compile::Compiler,
        resources::Versioned,
        route::{self, Scope},
    };

    const HOST: &str = "api.example";

    fn versioned<T>(name: &str, value: T) -> (String, Arc<Versioned<T>>) {
        (name.to_owned(), Arc::new(Versioned { name: name.to_owned(), version: "1".into(), value }))
    }

    /// What is in force where HOST is `shop/api`, and where a look-up has given it two addresses.
    fn config(external: bool) -> RuntimeConfig {
        let port = |port, app_protocol: &str| Port { port, app_protocol: app_protocol.into(), ..Port::default() };
        let ports = vec![port(80, "http"), port(8443, "http2")];
        let api =
            mesh::Destination { namespace: "shop".into(), name: "api".into(), ports, external, ..Default::default() };
        let endpoints = |tls_server_name: &str| {
            let endpoint = Endpoint {
                address: "203.0.113.1:80".into(),
                tls_server_name: tls_server_name.into(),
                ..Endpoint::default()
            };
            Endpoints { endpoints: vec![endpoint], ..Endpoints::default() }
        };
        let addresses = BTreeSet::from(["198.51.100.10", "2001:db8::1"].map(|address| address.parse().unwrap()));
        Compiler::default().compile(&Arc::new(Resources {
            destinations: [versioned("shop/api", api)].into(),
            endpoints: [versioned("shop/api:80", endpoints("")), versioned("shop/api:8443", endpoints(HOST))].into(),
            aliases: [(HOST.to_owned(), Some("shop/api".to_owned()))].into(),
            looked_up: Arc::new([(HOST.to_owned(), addresses)].into()),
            ..Resources::default()
        }))
    }

    #[test]
    fn a_host_at_one_of_its_addresses_is_its_service_there_and_nowhere_else() {
        let config = config(true);
        for (address, tls) in [("198.51.100.10:80", false), ("198.51.100.10:8443", true), ("[2001:db8::1]:80", false)] {
            let at: SocketAddr = address.parse().unwrap();
            let Some(Ok(Scope::Outbound(found))) = route::outbound(&config, &called_at(HOST, at), true) else {
                panic!("{address} is not known");
            };
            assert_eq!((&*found.service, found.external), ("shop/api", true));
            let link = route::cluster(&found, None, at.port()).unwrap();
            let [endpoint] = &config.clusters[link.place()].endpoints[..] else { panic!("{address}") };
            assert_eq!((endpoint.address, endpoint.service(), endpoint.http2), (at, "shop/api", tls));
            assert_eq!(matches!(endpoint.transport, Transport::External { .. }), tls, "{address}");
        }
        for other in ["198.51.100.11:80", "198.51.100.10:81"] {
            assert!(config.destination(&called_at(HOST, other.parse().unwrap())).is_none(), "{other}");
        }
    }

    #[test]
    fn no_look_up_says_where_a_service_of_the_mesh_is() {
        assert!(config(false).destination(&called_at(HOST, ([198, 51, 100, 10], 80).into())).is_none());
    }
}
