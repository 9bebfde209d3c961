//! The own addresses of workloads. A call of one is answered by the workload that is there, whoever else stands behind its
//! service: a destination without routes and with one endpoint, tried as that service is.

use std::{net::SocketAddr, sync::Arc};

use selvedge_policies::{names::ServiceName, request::PolicySet};
use selvedge_xds::proto::mesh::{self, AddressPort};

use super::{cluster, destination};
use crate::config::{AppProtocol, ClusterConfig, Destination, Transport};

/// What answers at `called`, with its endpoint as a cluster of its own, not yet linked; `None` where the address is not
/// known to be the mesh's on that port. Without a sidecar it is reached by `plain`.
///
/// # Errors
/// The port cannot be put in force.
pub(crate) fn compile(
    message: &mesh::Destination,
    called: SocketAddr,
    plain: &Transport,
) -> Result<Option<(Destination, ClusterConfig)>, String> {
    let Some(port) = answering(message, called.port()) else { return Ok(None) };
    let Some(endpoint) = &port.endpoint else { return Ok(None) };
    let compiled = settings(port, called)?;
    let service = port.service.parse::<ServiceName>().ok();
    let is_http2 = AppProtocol::of(&port.app_protocol) == AppProtocol::Http2;
    let name = own_name(message, endpoint, called);
    let asked = service.as_ref().unwrap_or(&name).port(called.port());
    // Where nothing can be said of a service, there is still the address.
    let server_name = service.as_ref().map(cluster::server_name).filter(|name| cluster::is_server_name(name));
    let server_name = server_name.unwrap_or_else(|| called.ip().to_string());
    let mut endpoint = cluster::endpoint(&asked, &server_name, endpoint, &compiled.traffic, is_http2, plain)?;
    if endpoint.address.port() == 0 {
        endpoint.address = called;
    }
    let (endpoints, traffic) = (vec![Arc::new(endpoint)], compiled.traffic.clone());
    let cluster = ClusterConfig { name: name.port(called.port()), endpoints, traffic, nowhere: None };
    let service = service.map(|service| service.text().clone()).unwrap_or_default();
    Ok(Some((Destination { name, service, ..compiled }, cluster)))
}

/// What is said of a port of an own address, or of those of which nothing is.
pub(crate) fn answering(message: &mesh::Destination, port: u16) -> Option<&AddressPort> {
    let of_port = |port: u16| message.address_ports.iter().find(|known| known.port == u32::from(port));
    of_port(port).or_else(|| of_port(0))
}

/// The destination that a service would be with this one port, and without its routes.
fn settings(port: &AddressPort, called: SocketAddr) -> Result<Destination, String> {
    let declared =
        mesh::Port { port: called.port().into(), app_protocol: port.app_protocol.clone(), ..Default::default() };
    let message = mesh::Destination {
        name: port.service.clone(),
        ports: vec![declared],
        policies: port.policies.clone(),
        ..Default::default()
    };
    destination::compile(&message, &PolicySet::new())
}

/// Told from every service's by what no name of one has.
fn own_name(message: &mesh::Destination, endpoint: &mesh::Endpoint, called: SocketAddr) -> ServiceName {
    let origin = message.origin.clone().unwrap_or_default();
    let workload = endpoint.workload.parse::<ServiceName>();
    let workload = workload.unwrap_or_else(|_| ServiceName::new(&origin.namespace, &origin.name));
    ServiceName::new(workload.namespace(), &format!("{}@{}", workload.name(), called.ip()))
}

#[cfg(test)]
mod tests {
    use selvedge_xds::proto::mesh::{Attachment, Endpoint, Origin};

    use super::*;

    fn endpoint(address: &str) -> Option<Endpoint> {
        let identity = "spiffe://mesh.local/ns/shop/sa/redis".into();
        Some(Endpoint { address: address.into(), identity, workload: "shop/redis-0".into(), ..Default::default() })
    }

    fn redis() -> mesh::Destination {
        let origin =
            Origin { kind: "TrafficPolicy".into(), namespace: "shop".into(), name: "slow".into(), generation: 1 };
        let document = r#"{"targetRef": {"kind": "Service", "name": "redis"}, "timeouts": {"connect": "7s"}}"#.into();
        let slow = Attachment { origin: Some(origin), document, ..Default::default() };
        let ports = vec![
            AddressPort { endpoint: endpoint("10.1.0.5:0"), ..Default::default() },
            AddressPort {
                port: 6379,
                endpoint: endpoint("10.1.0.5:6379"),
                service: "shop/redis".into(),
                app_protocol: "tcp".into(),
                policies: vec![slow],
            },
            AddressPort { port: 15020, ..Default::default() },
        ];
        mesh::Destination { address_ports: ports, ..Default::default() }
    }

    fn called(address: &str) -> Option<(Destination, ClusterConfig)> {
        compile(&redis(), address.parse().unwrap(), &Transport::Unmeshed).unwrap()
    }

    #[test]
    fn a_port_of_a_service_is_called_with_its_settings_and_without_its_routes() {
        let (destination, cluster) = called("10.1.0.5:6379").unwrap();
        let [endpoint] = &cluster.endpoints[..] else { panic!("{cluster:?}") };
        assert_eq!((&*destination.service, endpoint.service()), ("shop/redis", "shop/redis"));
        assert_eq!((endpoint.connect_timeout().as_secs(), endpoint.address.port()), (7, 6379));
        assert_eq!(cluster.name.to_string(), "shop/redis-0@10.1.0.5:6379");
        assert_eq!(destination.ports[&6379].protocol, AppProtocol::Opaque);
        assert!(destination.routes.values().all(|routes| routes.is_empty()));
        assert!(matches!(&endpoint.transport, Transport::Mesh { server_name, .. } if &**server_name == "redis.shop"));
    }

    #[test]
    fn any_other_port_is_the_workloads_too_but_not_one_that_is_reached_past_its_sidecar() {
        let (destination, cluster) = called("10.1.0.5:16379").unwrap();
        let [endpoint] = &cluster.endpoints[..] else { panic!("{cluster:?}") };
        assert_eq!((&*destination.service, endpoint.address), ("", "10.1.0.5:16379".parse().unwrap()));
        assert!(matches!(&endpoint.transport, Transport::Mesh { server_name, .. } if &**server_name == "10.1.0.5"));
        assert!(called("10.1.0.5:15020").is_none());
    }
}
