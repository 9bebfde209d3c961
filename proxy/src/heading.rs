//! Where connections lead, and what listeners are for: the direction of traffic (inbound, outbound) with its target.

use std::{net::SocketAddr, sync::Arc};

use selvedge_policies::names;

/// Where a connection leads.
#[derive(Clone, Debug)]
pub(crate) enum Heading {
    /// To the application at `forward`, which policies know as `port`.
    Inbound {
        /// Where the application listens.
        forward: SocketAddr,
        /// Its port as policies name it.
        port: u16,
    },
    /// From the application to a service.
    Outbound {
        /// `namespace/service` (declared) or `ip:port` (captured).
        destination: Arc<str>,
        /// Port of the service.
        port: u16,
        /// The address the application dialled, when it was captured.
        original: Option<SocketAddr>,
    },
}

impl Heading {
    /// Where it leads, as the host and port of a URI.
    pub(crate) fn dialled(&self) -> String {
        match self {
            Self::Inbound { forward: address, .. } | Self::Outbound { original: Some(address), .. } => {
                address.to_string()
            }
            Self::Outbound { destination, port, .. } => match names::parts(destination) {
                Some((namespace, service)) => format!("{service}.{namespace}:{port}"),
                None => destination.to_string(),
            },
        }
    }
}

/// What a listener is for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// Where every connection leads is declared.
    Declared(Heading),
    /// Calls to the application, redirected; the original destination is the application.
    CapturedInbound,
    /// Calls of the application, redirected; the original destination is the service.
    CapturedOutbound,
}

impl Purpose {
    /// Whether it is for calls to the application.
    pub(crate) const fn is_inbound(&self) -> bool {
        matches!(self, Self::Declared(Heading::Inbound { .. }) | Self::CapturedInbound)
    }
}
