//! What a sidecar says while its stream lasts of who calls its workload in plaintext: before plaintext is refused, somebody has
//! to know whom that would hit.
//!
//! It stands in `Node.metadata` of any request, as `{"selvedge": {"plaintextCallers": ["10.0.0.7"], "plaintextCallersMore": 2}}`.
//! A sidecar that says it at all says so when its stream begins, with a list that may be empty: of one that does not, nobody
//! knows who calls. A control plane that does not know it reads over it.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use prost_types::{ListValue, Struct, Value, value::Kind};

use crate::{
    capability::{PROJECT, field},
    proto::discovery::Node,
};

const CALLERS: &str = "plaintextCallers";
const MORE: &str = "plaintextCallersMore";

/// How many callers one request says at most.
pub const MOST: usize = 256;
/// How long a caller is remembered that does not call again, at both ends of the stream.
pub const LATELY: Duration = Duration::from_secs(600);

/// Callers in plaintext that were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Their addresses, at most [`MOST`].
    pub callers: BTreeSet<IpAddr>,
    /// How many more there were, for which there is no room.
    pub more: u32,
}

impl Seen {
    /// Notes one that called.
    pub fn add(&mut self, caller: IpAddr) {
        if self.callers.len() < MOST {
            self.callers.insert(caller);
        } else if !self.callers.contains(&caller) {
            self.more = self.more.saturating_add(1);
        }
    }

    /// True when nobody called.
    pub fn is_empty(&self) -> bool {
        self.callers.is_empty() && self.more == 0
    }

    /// As they stand in [`Node::metadata`].
    pub fn to_metadata(&self) -> Struct {
        let mut metadata = Struct::default();
        self.add_to(&mut metadata);
        metadata
    }

    /// Puts them into [`Node::metadata`], beside what is in it already.
    pub fn add_to(&self, metadata: &mut Struct) {
        let none = || Value { kind: Some(Kind::StructValue(Struct::default())) };
        let own = metadata.fields.entry(PROJECT.to_owned()).or_insert_with(none);
        let Some(Kind::StructValue(own)) = &mut own.kind else { return };
        let text = |caller: &IpAddr| Value { kind: Some(Kind::StringValue(caller.to_string())) };
        let list = Kind::ListValue(ListValue { values: self.callers.iter().take(MOST).map(text).collect() });
        own.fields.insert(CALLERS.to_owned(), Value { kind: Some(list) });
        if self.more > 0 {
            own.fields.insert(MORE.to_owned(), Value { kind: Some(Kind::NumberValue(self.more.into())) });
        }
    }

    /// What `node` says; `None` when it says nothing of callers. What is no address is passed over, as is what comes after
    /// [`MOST`] of them, but that is counted.
    pub fn of(node: &Node) -> Option<Self> {
        let own = node.metadata.as_ref().and_then(|fields| field(fields, PROJECT))?;
        let Some(Kind::ListValue(list)) = own.fields.get(CALLERS)?.kind.as_ref() else { return None };
        let mut seen = Self::default();
        for value in &list.values {
            let address = match &value.kind {
                Some(Kind::StringValue(text)) => text.parse().ok(),
                _ => None,
            };
            address.into_iter().for_each(|address| seen.add(address));
        }
        if let Some(Kind::NumberValue(more)) = own.fields.get(MORE).and_then(|more| more.kind.as_ref()) {
            // A number that is none, or below 0, is 0, and one that is too large the largest.
            seen.more = seen.more.saturating_add(*more as u32);
        }
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::Capabilities;

    fn node(seen: &Seen, mut metadata: Struct) -> Node {
        seen.add_to(&mut metadata);
        Node { metadata: Some(metadata), ..Node::default() }
    }

    #[test]
    fn what_is_said_is_understood_and_nothing_said_is_not_the_same_as_nobody_seen() {
        let callers = ["10.0.0.7", "fd00::7"].map(|address| address.parse().unwrap()).into();
        let seen = Seen { callers, more: 3 };
        assert_eq!(Seen::of(&node(&seen, Struct::default())), Some(seen.clone()));
        assert_eq!(Seen::of(&Node::default()), None);
        let capabilities = Capabilities([("RateLimit".to_owned(), ["limits".to_owned()].into())].into());
        let metadata = capabilities.to_metadata();
        assert_eq!(Seen::of(&Node { metadata: Some(metadata.clone()), ..Node::default() }), None);
        let both = node(&Seen::default(), metadata);
        assert_eq!((Seen::of(&both), Capabilities::of(&both)), (Some(Seen::default()), Ok(Some(capabilities))));
    }

    #[test]
    fn what_has_no_room_is_counted_and_numbers_are_bounded() {
        let mut many = Seen::default();
        (0..1000u16).map(|n| IpAddr::from([10, 0, (n >> 8) as u8, n as u8])).for_each(|caller| many.add(caller));
        many.add([10, 0, 0, 1].into());
        assert_eq!((many.callers.len(), many.more), (MOST, 744));
        let said = |more: f64| {
            let mut node = node(&Seen::default(), Struct::default());
            let own = node.metadata.as_mut().unwrap().fields.get_mut(PROJECT).unwrap();
            let Some(Kind::StructValue(own)) = &mut own.kind else { panic!("it is a message") };
            own.fields.insert(MORE.to_owned(), Value { kind: Some(Kind::NumberValue(more)) });
            Seen::of(&node).unwrap().more
        };
        assert_eq!([-1.0, f64::NAN, 1.5, 1e300].map(said), [0, 0, 1, u32::MAX]);
    }
}
