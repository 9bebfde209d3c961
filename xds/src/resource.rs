//! What the protocol speaks of: kinds, names, versions and bytes. What they mean is for others to know ([`crate::kinds`]).

use std::fmt;

use bytes::Bytes;
use prost::Message;

use crate::proto::discovery::Resource;

/// A kind of resource: the type URL of its message, such as `type.googleapis.com/selvedge.v1alpha1.Destination`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeUrl(&'static str);

impl TypeUrl {
    /// The kind whose messages have this type URL.
    pub const fn new(url: &'static str) -> Self {
        Self(url)
    }

    /// The type URL as it goes over the wire.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// The name of the message without its package, such as `Destination`: for people.
    pub fn name(self) -> &'static str {
        self.0.rsplit(['.', '/']).next().unwrap_or(self.0)
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kinds of one API that are served together, in the order in which a change must be pushed: what is referred to
/// comes before what refers to it (make before break); removals go the other way.
///
/// A set is all that the two halves of the protocol have to be told of an API, so another one (Envoy's clusters and
/// listeners, say) is another constant.
#[derive(Debug)]
pub struct KindSet {
    order: &'static [TypeUrl],
}

impl KindSet {
    /// The set of these kinds.
    pub const fn new(order: &'static [TypeUrl]) -> Self {
        Self { order }
    }

    /// The kinds, what is referred to first.
    pub const fn order(&self) -> &'static [TypeUrl] {
        self.order
    }

    /// The kind of a type URL that came over the wire.
    pub fn find(&self, type_url: &str) -> Option<TypeUrl> {
        self.order.iter().copied().find(|kind| kind.0 == type_url)
    }
}

/// One resource as bytes, shared by every subscriber. Equal content has equal version, whoever compiled it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The type URL of its message, which is what tells kinds apart.
    pub kind: TypeUrl,
    /// The canonical name, under which it is sent whatever alias was asked for.
    pub name: String,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// 64-bit content hash, 16 hex digits.
    pub version: String,
    /// The encoded protobuf message of its kind.
    pub body: Bytes,
}

impl Encoded {
    /// Encodes `message`; the version is a hash of its bytes.
    pub fn new(kind: TypeUrl, name: impl Into<String>, mut aliases: Vec<String>, message: &impl Message) -> Self {
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
        let content = prost_types::Any { type_url: self.kind.to_string(), value: self.body.to_vec() };
        Resource { version: self.version.clone(), resource: Some(content), name: self.name.clone(), aliases }
    }

    /// The resource in a message; `None` when it has no content or one of a type that is not in the set.
    pub fn from_wire(message: Resource, kinds: &KindSet) -> Option<Self> {
        let content = message.resource?;
        let kind = kinds.find(&content.type_url)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::DESTINATION, proto::mesh::Destination};

    #[test]
    fn versions_follow_content_and_aliases_only() {
        let message = Destination { name: "web".into(), ..Default::default() };
        let one = Encoded::new(DESTINATION, "a/web", vec!["x".into(), "y".into()], &message);
        let same = Encoded::new(DESTINATION, "a/web", vec!["y".into(), "x".into()], &message);
        let other = Encoded::new(DESTINATION, "a/web", vec!["x".into()], &message);
        assert_eq!(one.version, same.version);
        assert_ne!(one.version, other.version);
    }
}
