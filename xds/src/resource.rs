//! Kinds, names and versions of the resources on the wire.

use bytes::Bytes;
use prost::{Message, Name};

use crate::proto::{
    discovery::Resource,
    mesh::{Destination, Endpoints, Inbound, TrustBundle},
};

/// The kinds of resource a sidecar subscribes to, in the order a change must be pushed: what is referred to
/// comes before what refers to it (make before break); removals go the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Trusted authorities.
    TrustBundle,
    /// Endpoints of one port of a destination.
    Endpoints,
    /// A service that can be called.
    Destination,
    /// A workload's view of itself.
    Inbound,
}

impl Kind {
    /// All kinds in push order.
    pub const ALL: [Kind; 4] = [Kind::TrustBundle, Kind::Endpoints, Kind::Destination, Kind::Inbound];

    /// The type URL on the wire.
    pub fn type_url(self) -> String {
        match self {
            Self::TrustBundle => TrustBundle::type_url(),
            Self::Endpoints => Endpoints::type_url(),
            Self::Destination => Destination::type_url(),
            Self::Inbound => Inbound::type_url(),
        }
    }

    /// The kind of a type URL.
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

/// One resource as bytes, shared by every subscriber. Equal content has equal version, whoever compiled it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Kind.
    pub kind: Kind,
    /// Canonical name.
    pub name: String,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// 64-bit content hash, 16 hex digits.
    pub version: String,
    /// The protobuf message.
    pub body: Bytes,
}

impl Encoded {
    /// Encodes `message`; the version is a hash of its bytes.
    pub fn new(kind: Kind, name: impl Into<String>, mut aliases: Vec<String>, message: &impl Message) -> Self {
        aliases.sort();
        aliases.dedup();
        let body = Bytes::from(message.encode_to_vec());
        let mut hash = fnv1a(FNV_OFFSET, &body);
        for alias in &aliases {
            hash = fnv1a(fnv1a(hash, alias.as_bytes()), b"\0");
        }
        Self { kind, name: name.into(), aliases, version: format!("{hash:016x}"), body }
    }

    /// The message a response carries, with `aliases` as the names that were asked for.
    pub fn to_wire(&self, aliases: Vec<String>) -> Resource {
        let content = prost_types::Any { type_url: self.kind.type_url(), value: self.body.to_vec() };
        Resource { version: self.version.clone(), resource: Some(content), name: self.name.clone(), aliases }
    }

    /// The resource in a message; `None` when it has no content or one of a type that is not ours.
    pub fn from_wire(message: Resource) -> Option<Self> {
        let content = message.resource?;
        let kind = Kind::of(&content.type_url)?;
        let body = Bytes::from(content.value);
        Some(Self { kind, name: message.name, aliases: message.aliases, version: message.version, body })
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a. Versions only tell "changed" from "unchanged" among contents an operator wrote, so no keyed hash is
/// needed, and the value is stable across builds, which a `Hasher` of std does not promise.
fn fnv1a(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// `namespace/name`, the canonical name of a destination or workload.
pub fn object_name(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// `namespace/name:port`, the canonical name of a port's endpoints.
pub fn endpoints_name(namespace: &str, name: &str, port: u16) -> String {
    format!("{namespace}/{name}:{port}")
}

/// ALPN of the hop between sidecars. A ClientHello with one of these is mesh TLS; any other is the
/// application's own and passes through.
pub mod alpn {
    /// HTTP/2 carrying requests of any HTTP version.
    pub const HTTP2: &[u8] = b"selvedge-h2";
    /// HTTP/1.1, for upgrades, CONNECT and bulk bodies.
    pub const HTTP1: &[u8] = b"selvedge-h1";
    /// Opaque bytes.
    pub const TCP: &[u8] = b"selvedge-tcp";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_their_type_url() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(&kind.type_url()), Some(kind));
        }
        assert_eq!(Kind::of("type.googleapis.com/envoy.config.cluster.v3.Cluster"), None);
    }

    #[test]
    fn versions_follow_content_and_aliases_only() {
        let message = Destination { name: "web".into(), ..Default::default() };
        let one = Encoded::new(Kind::Destination, "a/web", vec!["x".into(), "y".into()], &message);
        let same = Encoded::new(Kind::Destination, "a/web", vec!["y".into(), "x".into()], &message);
        let other = Encoded::new(Kind::Destination, "a/web", vec!["x".into()], &message);
        assert_eq!(one.version, same.version);
        assert_ne!(one.version, other.version);
    }
}
