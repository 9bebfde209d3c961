//! Our own API: which kinds of resource there are, how they are named, and whose object is behind one.

use prost::Message;

use crate::{
    proto::mesh::{Attachment, Destination, Inbound, Origin, Unenforceable},
    resource::{Encoded, KindSet, TypeUrl},
};

/// Trusted authorities. Named by trust domain.
pub const TRUST_BUNDLE: TypeUrl = TypeUrl::new("type.googleapis.com/selvedge.v1alpha1.TrustBundle");
/// Endpoints of one port of a destination. Named `namespace/name:port`.
pub const ENDPOINTS: TypeUrl = TypeUrl::new("type.googleapis.com/selvedge.v1alpha1.Endpoints");
/// A service that can be called, named `namespace/name`, or the own address of workloads, named as that IP address.
pub const DESTINATION: TypeUrl = TypeUrl::new("type.googleapis.com/selvedge.v1alpha1.Destination");
/// A workload's view of itself. Named `namespace/name`.
pub const INBOUND: TypeUrl = TypeUrl::new("type.googleapis.com/selvedge.v1alpha1.Inbound");

/// What a sidecar subscribes to.
pub const SELVEDGE: KindSet = KindSet::new(&[TRUST_BUNDLE, ENDPOINTS, DESTINATION, INBOUND]);

/// What a resource has of users' objects.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The object it came from, where the resource says so.
    pub origin: Option<Origin>,
    /// Everything attached to it.
    pub attached: Vec<Attachment>,
    /// The objects that its settings are from.
    pub settings: Vec<Origin>,
    /// What of that whoever holds the resource cannot enforce.
    pub unenforceable: Vec<Unenforceable>,
}

/// What `resource` has of users' objects; nothing where it cannot be read.
pub fn parts(resource: &Encoded) -> Parts {
    let body = resource.body.clone();
    match resource.kind {
        DESTINATION => {
            let Destination { origin, routes, policies, address_ports, unenforceable, .. } =
                Destination::decode(body).unwrap_or_default();
            let of_ports = address_ports.into_iter().map(|port| port.policies);
            let attached = [routes, policies].into_iter().chain(of_ports).flatten().collect();
            Parts { origin, attached, settings: Vec::new(), unenforceable }
        }
        INBOUND => {
            let Inbound { origin, ports, policies, settings_from, unenforceable, .. } =
                Inbound::decode(body).unwrap_or_default();
            let of_ports = ports.into_iter().flat_map(|port| [port.routes, port.policies]);
            let settings = settings_from.into_iter().filter_map(|setting| setting.origin).collect();
            Parts { origin, attached: of_ports.chain([policies]).flatten().collect(), settings, unenforceable }
        }
        _ => Parts::default(),
    }
}

/// The user's object a resource came from, where the resource says so.
pub fn origin(resource: &Encoded) -> Option<Origin> {
    parts(resource).origin
}

/// An object in words: `Service shop/web`.
pub fn object(origin: &Origin) -> String {
    let Origin { kind, namespace, name, .. } = origin;
    format!("{kind} {namespace}/{name}")
}

/// [`origin`] in words: `Service shop/web generation 3`.
pub fn describe(resource: &Encoded) -> Option<String> {
    let origin = origin(resource)?;
    Some(format!("{} generation {}", object(&origin), origin.generation))
}

#[cfg(test)]
mod tests {
    use prost::Name;

    use super::*;
    use crate::proto::mesh::{Endpoints, TrustBundle};

    #[test]
    fn kinds_are_found_by_the_type_urls_of_their_messages() {
        let urls = [TrustBundle::type_url(), Endpoints::type_url(), Destination::type_url(), Inbound::type_url()];
        let found = urls.iter().map(|url| SELVEDGE.find(url));
        assert!(found.eq(SELVEDGE.order().iter().copied().map(Some)), "each message has its place");
        assert_eq!(SELVEDGE.find("type.googleapis.com/envoy.config.cluster.v3.Cluster"), None);
    }
}
