//! What stands around the sidecar and decides whether traffic comes to it: capture rules, and where the application
//! listens. It is found out without any rights, and told by `/ready`, `/config`, metrics and the log.

use std::net::SocketAddr;

pub(crate) mod captured;
pub(crate) mod direct;

use captured::Captured;
use direct::InboundPort;

/// What was found, last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Whether redirected connections come here.
    pub captured: Captured,
    /// The declared inbound ports, and whether they can be called past the sidecar.
    pub inbound: Vec<InboundPort>,
}

impl Surroundings {
    /// Whether it is looked whether the application takes connections at `forward`.
    pub(crate) fn is_looked_for(&self, forward: SocketAddr) -> bool {
        self.inbound.iter().any(|port| port.forward == forward && port.probed)
    }

    /// Whether the application was looked for at `forward` and takes no connections.
    pub(crate) fn is_away(&self, forward: SocketAddr) -> bool {
        self.inbound.iter().any(|port| port.forward == forward && port.away)
    }
}
