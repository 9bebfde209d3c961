//! A response on its way to the wire: what it says is shared with every other stream that is told the same, and is written
//! without being copied into messages first.

use std::sync::Arc;

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::{
    proto::discovery::DeltaDiscoveryResponse,
    resource::{Encoded, TypeUrl},
};

/// The fields of the messages, as `proto/` numbers them.
mod field {
    pub(super) const SYSTEM_VERSION_INFO: u32 = 1;
    pub(super) const RESOURCES: u32 = 2;
    pub(super) const TYPE_URL: u32 = 4;
    pub(super) const NONCE: u32 = 5;
    pub(super) const REMOVED_RESOURCES: u32 = 6;
    /// Of a resource.
    pub(super) mod resource {
        pub(in super::super) const VERSION: u32 = 1;
        pub(in super::super) const RESOURCE: u32 = 2;
        pub(in super::super) const NAME: u32 = 3;
        pub(in super::super) const ALIASES: u32 = 4;
    }
    /// Of `google.protobuf.Any`.
    pub(super) mod any {
        pub(in super::super) const TYPE_URL: u32 = 1;
        pub(in super::super) const VALUE: u32 = 2;
    }
}

/// What a [`DeltaDiscoveryResponse`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Kind of all its resources.
    pub kind: TypeUrl,
    /// Resources, each with the aliases it was asked by.
    pub resources: Vec<(Arc<Encoded>, Vec<String>)>,
    /// Names for which there is nothing, or nothing any more.
    pub removed: Vec<String>,
    /// What the client's answer has to repeat.
    pub nonce: u64,
    /// The version of everything, for people.
    pub version: Arc<str>,
}

impl Response {
    /// Bytes of the encoded message.
    pub fn encoded_len(&self) -> usize {
        let resources =
            self.resources.iter().map(|(resource, aliases)| nested(field::RESOURCES, wire(resource, aliases)));
        let removed = self.removed.iter().map(|name| nested(field::REMOVED_RESOURCES, name.len()));
        text_len(field::SYSTEM_VERSION_INFO, &self.version)
            + resources.sum::<usize>()
            + text_len(field::TYPE_URL, self.kind.as_str())
            + text_len(field::NONCE, &self.nonce.to_string())
            + removed.sum::<usize>()
    }

    /// Writes the encoded message.
    pub fn encode(&self, out: &mut impl BufMut) {
        text(out, field::SYSTEM_VERSION_INFO, &self.version);
        for (resource, aliases) in &self.resources {
            open(out, field::RESOURCES, wire(resource, aliases));
            text(out, field::resource::VERSION, &resource.version);
            open(out, field::resource::RESOURCE, content(resource));
            text(out, field::any::TYPE_URL, resource.kind.as_str());
            bytes(out, field::any::VALUE, &resource.body);
            text(out, field::resource::NAME, &resource.name);
            aliases.iter().for_each(|alias| bytes(out, field::resource::ALIASES, alias.as_bytes()));
        }
        text(out, field::TYPE_URL, self.kind.as_str());
        text(out, field::NONCE, &self.nonce.to_string());
        self.removed.iter().for_each(|name| bytes(out, field::REMOVED_RESOURCES, name.as_bytes()));
    }

    /// What it says as a message with copies of its own, for those that write it to no wire.
    pub fn to_message(&self) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            system_version_info: self.version.to_string(),
            resources: self.resources.iter().map(|(resource, aliases)| resource.to_wire(aliases.clone())).collect(),
            type_url: self.kind.to_string(),
            nonce: self.nonce.to_string(),
            removed_resources: self.removed.clone(),
        }
    }
}

/// Bytes of a resource without its own head.
fn wire(resource: &Encoded, aliases: &[String]) -> usize {
    text_len(field::resource::VERSION, &resource.version)
        + nested(field::resource::RESOURCE, content(resource))
        + text_len(field::resource::NAME, &resource.name)
        + aliases.iter().map(|alias| nested(field::resource::ALIASES, alias.len())).sum::<usize>()
}

/// Bytes of the content of a resource without its own head.
fn content(resource: &Encoded) -> usize {
    text_len(field::any::TYPE_URL, resource.kind.as_str()) + nested(field::any::VALUE, resource.body.len())
}

/// Bytes of a field with a length.
fn nested(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

/// Bytes of a text, which is left out when it is empty.
fn text_len(tag: u32, text: &str) -> usize {
    if text.is_empty() { 0 } else { nested(tag, text.len()) }
}

fn open(out: &mut impl BufMut, tag: u32, length: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn bytes(out: &mut impl BufMut, tag: u32, bytes: &[u8]) {
    open(out, tag, bytes.len());
    out.put_slice(bytes);
}

fn text(out: &mut impl BufMut, tag: u32, text: &str) {
    if !text.is_empty() {
        bytes(out, tag, text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::{kinds::DESTINATION, proto::mesh::Destination};

    #[test]
    fn what_is_written_is_the_message() {
        let resource = |name: &str, content: &str| {
            let message = Destination { name: content.into(), ..Destination::default() };
            Arc::new(Encoded::new(DESTINATION, name, Vec::new(), &message))
        };
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let both = vec![
            (resource("a/web", &"x".repeat(300)), texts(&["web.a", "", "10.0.0.1:80"])),
            (resource("a/api", ""), Vec::new()),
        ];
        for (resources, removed, version) in
            [(both, texts(&["gone", "", "b/gone"]), "7"), (Vec::new(), Vec::new(), ""), (Vec::new(), texts(&[""]), "")]
        {
            let response = Response { kind: DESTINATION, resources, removed, nonce: 300, version: version.into() };
            let mut written = Vec::new();
            response.encode(&mut written);
            assert_eq!(written.len(), response.encoded_len());
            assert_eq!(DeltaDiscoveryResponse::decode(&*written), Ok(response.to_message()));
        }
    }
}
