//! What a sidecar says while its stream lasts of its declared ports: nothing brings callers of the application's own port to
//! it there, so it looks whether policies hold for them.
//!
//! It stands in `Node.metadata` of any request, as `{"selvedge": {"ports": [{"port": 8080, "policies": "not enforced",
//! "why": "the application listens on 0.0.0.0:8080"}]}}`. A control plane that does not know it reads over it.

use prost_types::{ListValue, Struct, Value, value::Kind};

use crate::{
    capability::{PROJECT, field, nested},
    proto::discovery::Node,
};

const PORTS: &str = "ports";
const PORT: &str = "port";
const POLICIES: &str = "policies";
const WHY: &str = "why";

/// What is said of a port where callers can go past the sidecar.
pub const NOT_ENFORCED: &str = "not enforced";
/// How many ports one request says at most.
pub const MOST: usize = 64;
/// How many characters of a text are taken.
const LONGEST: usize = 512;

/// A declared port, and whether policies hold for everybody who calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The application's port as policies name it.
    pub port: u16,
    /// `enforced`, [`NOT_ENFORCED`], or `unknown`.
    pub policies: String,
    /// How that is known, for people.
    pub why: String,
}

/// These ports as they stand in [`Node::metadata`].
pub fn to_metadata(ports: &[Port]) -> Struct {
    let value = |kind| Value { kind: Some(kind) };
    let entry = |port: &Port| {
        let fields = [
            (PORT.to_owned(), value(Kind::NumberValue(port.port.into()))),
            (POLICIES.to_owned(), value(Kind::StringValue(port.policies.clone()))),
            (WHY.to_owned(), value(Kind::StringValue(port.why.clone()))),
        ];
        value(Kind::StructValue(Struct { fields: fields.into() }))
    };
    let list = Kind::ListValue(ListValue { values: ports.iter().take(MOST).map(entry).collect() });
    nested(PROJECT, Struct { fields: [(PORTS.to_owned(), value(list))].into() })
}

/// The ports that `node` says, the first [`MOST`] of them; `None` where it says nothing of ports. What is no such entry is
/// passed over.
pub fn said(node: &Node) -> Option<Vec<Port>> {
    let own = field(node.metadata.as_ref()?, PROJECT)?;
    let Some(Kind::ListValue(list)) = own.fields.get(PORTS)?.kind.as_ref() else { return None };
    Some(list.values.iter().take(MOST).filter_map(port).collect())
}

fn port(value: &Value) -> Option<Port> {
    let Some(Kind::StructValue(entry)) = &value.kind else { return None };
    let text = |name| match &entry.fields.get(name)?.kind {
        Some(Kind::StringValue(text)) => Some(text.chars().take(LONGEST).collect()),
        _ => None,
    };
    let Some(Kind::NumberValue(number)) = entry.fields.get(PORT)?.kind else { return None };
    let port = (0..=u16::MAX).find(|port| f64::from(*port) == number)?;
    Some(Port { port, policies: text(POLICIES)?, why: text(WHY)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::Capabilities;

    #[test]
    fn what_is_said_is_understood_and_nothing_else_is_taken_for_it() {
        let node = |metadata| Node { metadata: Some(metadata), ..Node::default() };
        let port = |port| Port { port, policies: "not enforced".into(), why: "w".repeat(1000) };
        let heard = said(&node(to_metadata(&[port(8080), port(65535)]))).unwrap();
        assert_eq!(heard.iter().map(|heard| heard.port).collect::<Vec<_>>(), [8080, 65535]);
        assert_eq!((&*heard[0].policies, heard[0].why.len()), ("not enforced", LONGEST));
        assert_eq!(said(&node(to_metadata(&[]))), Some(Vec::new()));
        assert_eq!(said(&Node::default()), None);
        assert_eq!(said(&node(Capabilities::default().to_metadata())), None);
        let many: Vec<Port> = (0..1000).map(port).collect();
        assert_eq!(said(&node(to_metadata(&many))).unwrap().len(), MOST);
        for number in [-1.0, 0.5, 65536.0, f64::NAN, f64::INFINITY] {
            let mut metadata = to_metadata(&[port(1)]);
            let own = metadata.fields.get_mut(PROJECT).unwrap();
            let Some(Kind::StructValue(own)) = &mut own.kind else { panic!("it is nested") };
            let Some(Kind::ListValue(list)) = &mut own.fields.get_mut(PORTS).unwrap().kind else { panic!("a list") };
            let Some(Kind::StructValue(entry)) = &mut list.values[0].kind else { panic!("an entry") };
            entry.fields.insert(PORT.to_owned(), Value { kind: Some(Kind::NumberValue(number)) });
            assert_eq!(said(&node(metadata)), Some(Vec::new()), "{number}");
        }
    }
}
