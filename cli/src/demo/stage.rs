//! Where everything runs: without root on free ports of loopback, held until the demo ends; with `--transparent` each
//! workload in a network namespace, on the ports that the mesh's YAML names.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use selvedge_policies::names::PortName;
use tokio::net::TcpSocket;

use super::{
    network::{self, Network},
    plan::{Call, Instance, POSTGRES, THIRD_PARTY},
};

/// Where one instance and its sidecar are.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) instance: &'static Instance,
    /// The address peers dial.
    pub(super) address: IpAddr,
    /// Where the service listens.
    pub(super) app: Option<SocketAddr>,
    /// Where the sidecar takes calls to the service; `None` where they are captured.
    pub(super) inbound: Option<SocketAddr>,
    /// Where the service connects for each of its calls, in the order of the plan.
    pub(super) outbound: Vec<SocketAddr>,
    /// The sidecar's metrics.
    pub(super) metrics: SocketAddr,
    /// The network namespace both run in; that of the demo when absent.
    pub(super) namespace: Option<String>,
}

/// The whole demo in space.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) places: Vec<Place>,
    /// The third party outside the mesh.
    pub(super) third_party: SocketAddr,
    /// The network namespace of the third party.
    pub(super) outside: Option<String>,
    /// Where the control plane listens.
    pub(super) control_plane: SocketAddr,
    /// What must stay until the end.
    _held: Held,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for what their drop does")]
enum Held {
    /// Sockets that hold the ports.
    Ports(Vec<TcpSocket>),
    /// Namespaces with the capture rules in them.
    Network(Network),
}

/// The sidecar's metrics, unless ports are chosen.
const METRICS_PORT: u16 = 15020;

impl Stage {
    /// Everything on loopback, each listener on a port that was free.
    pub(super) fn on_loopback(instances: &[&'static Instance]) -> io::Result<Self> {
        let mut held = Vec::new();
        let mut free = || {
            let (socket, address) = hold()?;
            held.push(socket);
            io::Result::Ok(address)
        };
        let mut places = Vec::new();
        for instance in instances {
            let serves = instance.port.is_some();
            let mut app = serves.then(&mut free).transpose()?;
            if instance.service == POSTGRES {
                // It does not say SO_REUSEPORT: the same port of another loopback address is as good as held.
                app = app.map(|address| network::at(OTHER_LOOPBACK, address.port()));
            }
            places.push(Place {
                instance,
                address: Ipv4Addr::LOCALHOST.into(),
                app,
                inbound: serves.then(&mut free).transpose()?,
                outbound: instance.calls.iter().map(|_| free()).collect::<io::Result<_>>()?,
                metrics: free()?,
                namespace: None,
            });
        }
        let third_party = free()?;
        Ok(Self { places, third_party, outside: None, control_plane: ANY_PORT, _held: Held::Ports(held) })
    }

    /// Every workload in a network namespace of its own, with capture rules in force.
    pub(super) fn in_namespaces(instances: &[&'static Instance]) -> anyhow::Result<Self> {
        let mut network = Network::new()?;
        let gateway = network.gateway();
        let (outside, third_party) = network.add()?;
        let third_party = (outside, network::at(third_party, 80));
        let mut places = Vec::new();
        for instance in instances {
            let (namespace, address) = network.add()?;
            network::capture(&namespace)?;
            places.push(Place {
                instance,
                address,
                app: instance.port.map(|port| network::at(address, port)),
                inbound: None,
                outbound: instance.calls.iter().map(|call| captured(call, third_party.1)).collect(),
                metrics: network::at(address, METRICS_PORT),
                namespace: Some(namespace),
            });
        }
        let control_plane = network::at(gateway, 0);
        let (outside, third_party) = third_party;
        Ok(Self { places, third_party, outside: Some(outside), control_plane, _held: Held::Network(network) })
    }

    /// The place of the instance of this name.
    pub(super) fn place(&self, name: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.instance.name == name)
    }
}

/// Where a service connects when its connections are captured: the cluster address, or the third party itself.
fn captured(call: &Call, third_party: SocketAddr) -> SocketAddr {
    if call.to == THIRD_PARTY.to {
        return third_party;
    }
    let port = call.to.parse::<PortName>().map(|to| to.port).unwrap_or_default();
    network::at(call.cluster.into(), port)
}

const OTHER_LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Takes a free port and keeps it: a bound socket that never listens gets no connection, and only sockets of the
/// same user that also say `SO_REUSEPORT` can be bound beside it, so nobody else gets the port in between. A sidecar
/// makes sure that nobody listens on its ports; `SO_REUSEADDR` tells it that the holder does not.
fn hold() -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(ANY_PORT)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test]
    async fn held_ports_are_distinct_and_can_still_be_listened_on() {
        let stage = Stage::on_loopback(&super::super::plan::instances(false)).expect("free ports");
        let ports: Vec<_> = stage
            .places
            .iter()
            .flat_map(|p| p.app.iter().chain(&p.inbound).chain(&p.outbound).chain([&p.metrics]))
            .collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());

        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseport(true).expect("supported");
        socket.bind(*ports[0]).expect("bound beside the holder");
        let listener = socket.listen(8).expect("listening");
        let (accepted, connected) = tokio::join!(listener.accept(), tokio::net::TcpStream::connect(*ports[0]));
        assert!(accepted.is_ok() && connected.is_ok());

        let stranger = TcpSocket::new_v4().expect("a socket");
        assert!(stranger.bind(*ports[0]).is_err(), "without SO_REUSEPORT the port is taken");
    }
}
