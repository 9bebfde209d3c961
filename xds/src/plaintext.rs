//! What a sidecar says while its stream lasts of who calls its workload in plaintext: before plaintext is refused, somebody has
//! to know whom that would hit.
//!
//! It stands in `Node.metadata` of any request, as `{"selvedge": {"plaintextCallers": ["10.0.0.7"]}}`. A control plane that does
//! not know it reads over it.

use std::{collections::BTreeSet, net::IpAddr};

use prost_types::{ListValue, Struct, Value, value::Kind};

use crate::{
    capability::{PROJECT, field, nested},
    proto::discovery::Node,
};

const CALLERS: &str = "plaintextCallers";

/// How many callers one request says at most.
pub const MOST: usize = 256;

/// These callers as they stand in [`Node::metadata`].
pub fn to_metadata(callers: &BTreeSet<IpAddr>) -> Struct {
    let text = |caller: &IpAddr| Value { kind: Some(Kind::StringValue(caller.to_string())) };
    let list = Kind::ListValue(ListValue { values: callers.iter().take(MOST).map(text).collect() });
    let said = Struct { fields: [(CALLERS.to_owned(), Value { kind: Some(list) })].into() };
    nested(PROJECT, said)
}

/// The callers that `node` says, the first [`MOST`] of them. What is no address is passed over.
pub fn callers(node: &Node) -> BTreeSet<IpAddr> {
    let said = node.metadata.as_ref().and_then(|fields| field(fields, PROJECT)).and_then(|own| own.fields.get(CALLERS));
    let Some(Kind::ListValue(list)) = said.and_then(|said| said.kind.as_ref()) else { return BTreeSet::new() };
    let address = |value: &Value| match &value.kind {
        Some(Kind::StringValue(text)) => text.parse().ok(),
        _ => None,
    };
    list.values.iter().take(MOST).filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::Capabilities;

    #[test]
    fn what_is_said_is_understood_and_nothing_else_is_taken_for_it() {
        let node = |metadata| Node { metadata: Some(metadata), ..Node::default() };
        let said: BTreeSet<IpAddr> = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()].into();
        assert_eq!(callers(&node(to_metadata(&said))), said);
        assert_eq!(callers(&Node::default()), BTreeSet::new());
        assert_eq!(callers(&node(Capabilities::default().to_metadata())), BTreeSet::new());
        let many: BTreeSet<IpAddr> = (0..1000u16).map(|n| IpAddr::from([10, 0, (n >> 8) as u8, n as u8])).collect();
        assert_eq!(callers(&node(to_metadata(&many))).len(), MOST);
    }
}
