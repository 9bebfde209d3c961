//! Where everything runs: addresses of every process, without root on ports that are free, held until the demo ends.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use tokio::net::TcpSocket;

use super::plan::{INSTANCES, Instance};

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
    /// Where the control plane listens.
    pub(super) control_plane: SocketAddr,
    /// Sockets that hold the ports.
    _held: Vec<TcpSocket>,
}

impl Stage {
    /// Everything on loopback, each listener on a port that was free.
    pub(super) fn on_loopback() -> io::Result<Self> {
        let mut held = Vec::new();
        let mut free = || {
            let (socket, address) = hold()?;
            held.push(socket);
            io::Result::Ok(address)
        };
        let mut places = Vec::new();
        for instance in INSTANCES {
            let serves = instance.port.is_some();
            places.push(Place {
                instance,
                address: Ipv4Addr::LOCALHOST.into(),
                app: serves.then(&mut free).transpose()?,
                inbound: serves.then(&mut free).transpose()?,
                outbound: instance.calls.iter().map(|_| free()).collect::<io::Result<_>>()?,
                metrics: free()?,
                namespace: None,
            });
        }
        let third_party = free()?;
        Ok(Self { places, third_party, control_plane: ANY_PORT, _held: held })
    }

    /// The place of the instance of this name.
    pub(super) fn place(&self, name: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.instance.name == name)
    }
}

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Takes a free port and keeps it: a bound socket that never listens gets no connection, and only sockets of the
/// same user that also say `SO_REUSEPORT` can be bound beside it, so nobody else gets the port in between.
fn hold() -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
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
        let stage = Stage::on_loopback().expect("free ports");
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
