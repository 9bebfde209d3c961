//! Whether an application can be called past its sidecar. With declared ports nothing redirects who calls the
//! application's own port, so policies are enforced only where it listens on loopback alone.

use std::net::SocketAddr;

use selvedge_xds::ports::{NOT_ENFORCED, Port};
use serde_json::{Value, json};

use crate::bootstrap::InboundListener;

/// One declared inbound port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InboundPort {
    /// The application's port as policies name it.
    pub port: u16,
    /// Where the application listens.
    pub forward: SocketAddr,
    /// Whether calls can go past the sidecar.
    pub direct: Direct,
    /// Whether somebody may come who only looks if the application takes connections.
    pub probed: bool,
    /// Whether it is known to take none; known of a port that is `probed` only.
    pub away: bool,
}

/// Whether calls can go past the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Direct {
    /// Nobody listens, or it is not to be seen.
    Unknown,
    /// The application listens on loopback alone.
    No,
    /// It listens at these addresses, too.
    At(Vec<SocketAddr>),
}

impl InboundPort {
    /// What is known of a declared port before anybody looked: an application is not there before it is seen.
    pub(crate) fn declared(declared: &InboundListener, probed: bool) -> Self {
        let forward = declared.forward;
        Self { port: declared.port(), forward, direct: Direct::Unknown, probed, away: probed }
    }

    /// What is known of it where this host `listens` at these addresses, of which `own` are the sidecar's.
    #[must_use]
    pub(crate) fn seen(&self, listens: &[SocketAddr], own: &[SocketAddr]) -> Self {
        let is_it = |at: &&SocketAddr| at.port() == self.forward.port() && !own.contains(at);
        let application: Vec<SocketAddr> = listens.iter().filter(is_it).copied().collect();
        let open: Vec<SocketAddr> = application.iter().filter(|at| !at.ip().is_loopback()).copied().collect();
        let direct = match (application.is_empty(), open.is_empty()) {
            (true, _) => Direct::Unknown,
            (false, true) => Direct::No,
            (false, false) => Direct::At(open),
        };
        Self { direct, ..self.clone() }
    }

    /// Whether the application is seen to listen where it should, where this host `listens` at these addresses, of which
    /// `own` are the sidecar's. An address of another host is not among them.
    pub(crate) fn is_seen(&self, listens: &[SocketAddr], own: &[SocketAddr]) -> bool {
        let takes = |at: &&SocketAddr| at.ip() == self.forward.ip() || at.ip().is_unspecified();
        listens.iter().filter(takes).any(|at| at.port() == self.forward.port() && !own.contains(at))
    }

    /// As `/config` shows it.
    pub(crate) fn shown(&self) -> Value {
        let Port { port, policies, why } = self.told();
        json!({ "port": port, "policies": policies, "why": why })
    }

    /// As the control plane is told of it.
    pub(crate) fn told(&self) -> Port {
        let (policies, why) = match &self.direct {
            Direct::Unknown => ("unknown", format!("nobody is seen to listen on port {}", self.forward.port())),
            Direct::No => ("enforced", "the application listens on loopback only".into()),
            Direct::At(_) => (NOT_ENFORCED, self.to_string()),
        };
        Port { port: self.port, policies: policies.into(), why }
    }
}

/// What to tell people of a port that can be called past the sidecar.
impl std::fmt::Display for InboundPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Direct::At(open) = &self.direct else { return Ok(()) };
        let at: Vec<String> = open.iter().map(SocketAddr::to_string).collect();
        let at = at.join(", ");
        write!(
            f,
            "the application listens on {at}, where it is called past the sidecar; let it listen on 127.0.0.1 only"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(declared: &str) -> InboundPort {
        let listener = InboundListener {
            listen: "10.0.0.7:8443".parse().unwrap(),
            forward: declared.parse().unwrap(),
            port: None,
        };
        InboundPort::declared(&listener, true)
    }

    #[test]
    fn an_application_is_seen_where_it_is_called_and_the_sidecar_is_not_taken_for_it() {
        let own = ["[::]:8080".parse().unwrap()];
        for (listens, seen) in [
            ("127.0.0.1:8080", true),
            ("0.0.0.0:8080", true),
            ("[::]:8080", false),
            ("10.0.0.7:8080", false),
            ("127.0.0.1:8081", false),
        ] {
            assert_eq!(port("127.0.0.1:8080").is_seen(&[listens.parse().unwrap()], &own), seen, "{listens}");
        }
    }

    #[test]
    fn policies_are_enforced_only_where_the_application_listens_on_loopback_alone() {
        let address = |text: &&str| text.parse().unwrap();
        for (listens, expected) in [
            (&["127.0.0.1:8080"][..], Direct::No),
            (&["[::1]:8080", "127.0.0.1:8080", "0.0.0.0:22"], Direct::No),
            (&["0.0.0.0:8080"], Direct::At(vec!["0.0.0.0:8080".parse().unwrap()])),
            (&["127.0.0.1:8080", "[::]:8080"], Direct::At(vec!["[::]:8080".parse().unwrap()])),
            (&["10.0.0.7:8080", "127.0.0.1:8080"], Direct::No),
            (&["10.0.0.8:8080"], Direct::At(vec!["10.0.0.8:8080".parse().unwrap()])),
            (&["0.0.0.0:80"], Direct::Unknown),
        ] {
            let listens: Vec<SocketAddr> = listens.iter().map(address).collect();
            let own = ["10.0.0.7:8080".parse().unwrap()];
            assert_eq!(port("127.0.0.1:8080").seen(&listens, &own).direct, expected, "{listens:?}");
        }
    }
}
