//! What a sidecar says at connect that it can enforce: for each kind of document the words it knows.
//!
//! Control plane and sidecars are upgraded at different times, so a document may say more than a sidecar understands. The
//! sidecar lists what it does understand in `Node.metadata`, as a client of Envoy's protocol may list anything:
//!
//! ```json
//! {"selvedge": {"enforces": {"RateLimit": ["limits", "limits[].per", "limits[].key[]=identity"]}}}
//! ```
//!
//! What a word is, is for those to know who write and read documents; here it is text. What the other side says is bounded,
//! because anybody with a certificate may say it.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::{ListValue, Struct, Value, value::Kind};

use crate::proto::discovery::Node;

/// The field of `Node.metadata` with what is ours.
pub(crate) const PROJECT: &str = "selvedge";
const ENFORCES: &str = "enforces";
/// Words of all kinds together, and bytes of them: some thirty times as many as there are today.
const MOST_WORDS: usize = 10_000;
const MOST_BYTES: usize = 256 << 10;

/// The words a sidecar knows, by kind of document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capabilities(pub BTreeMap<String, BTreeSet<String>>);

/// More words than a sidecar may say.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the metadata lists more than {MOST_WORDS} words or {MOST_BYTES} bytes of them, which is the limit")]
pub struct TooMany;

impl Capabilities {
    /// As it stands in [`Node::metadata`].
    pub fn to_metadata(&self) -> Struct {
        let text = |word: &String| Value { kind: Some(Kind::StringValue(word.clone())) };
        let list = |words: &BTreeSet<String>| Kind::ListValue(ListValue { values: words.iter().map(text).collect() });
        let kinds = self.0.iter().map(|(kind, words)| (kind.clone(), Value { kind: Some(list(words)) }));
        let enforces = Struct { fields: kinds.collect() };
        nested(PROJECT, nested(ENFORCES, enforces))
    }

    /// Whether `node` says exactly this, as [`Self::to_metadata`] writes it. Cheaper by far than to take apart what it says.
    pub fn are_said_by(&self, node: &Node) -> bool {
        let Some(enforces) = listed(node) else { return false };
        let is_same = |(known, words): (&String, &BTreeSet<String>), (kind, value): (&String, &Value)| match &value.kind
        {
            Some(Kind::ListValue(list)) => known == kind && words.iter().map(Some).eq(list.values.iter().map(word)),
            _ => false,
        };
        self.0.len() == enforces.fields.len()
            && self.0.iter().zip(&enforces.fields).all(|(known, said)| is_same(known, said))
    }

    /// What `node` says; `None` when it says nothing, as sidecars did that came before this was asked. What is no list of
    /// words is passed over.
    ///
    /// # Errors
    /// There are more words than a sidecar may say.
    pub fn of(node: &Node) -> Result<Option<Self>, TooMany> {
        let Some(enforces) = listed(node) else { return Ok(None) };
        let (mut count, mut bytes) = (0, 0);
        let mut known = BTreeMap::new();
        for (kind, value) in &enforces.fields {
            let Some(Kind::ListValue(list)) = &value.kind else { continue };
            let mut words = BTreeSet::new();
            for value in &list.values {
                let Some(word) = word(value) else { continue };
                (count, bytes) = (count + 1, bytes + word.len());
                if count > MOST_WORDS || bytes > MOST_BYTES {
                    return Err(TooMany);
                }
                words.insert(word.clone());
            }
            (count, bytes) = (count + 1, bytes + kind.len());
            known.insert(kind.clone(), words);
        }
        if count > MOST_WORDS || bytes > MOST_BYTES { Err(TooMany) } else { Ok(Some(Self(known))) }
    }

    /// Whether everything that `other` knows is known here.
    pub fn include(&self, other: &Self) -> bool {
        other.0.iter().all(|(kind, words)| self.0.get(kind).is_some_and(|known| known.is_superset(words)))
    }
}

/// The lists of words, by kind, in what `node` says.
fn listed(node: &Node) -> Option<&Struct> {
    field(field(node.metadata.as_ref()?, PROJECT)?, ENFORCES)
}

fn word(value: &Value) -> Option<&String> {
    match &value.kind {
        Some(Kind::StringValue(word)) => Some(word),
        _ => None,
    }
}

/// A message with `content` in one field.
pub(crate) fn nested(name: &str, content: Struct) -> Struct {
    Struct { fields: BTreeMap::from([(name.to_owned(), Value { kind: Some(Kind::StructValue(content)) })]) }
}

/// The message in a field.
pub(crate) fn field<'a>(of: &'a Struct, name: &str) -> Option<&'a Struct> {
    match &of.fields.get(name)?.kind {
        Some(Kind::StructValue(content)) => Some(content),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(words: impl IntoIterator<Item = String>) -> Capabilities {
        Capabilities(BTreeMap::from([("RateLimit".to_owned(), words.into_iter().collect())]))
    }

    fn node(metadata: Struct) -> Node {
        Node { metadata: Some(metadata), ..Node::default() }
    }

    #[test]
    fn what_is_said_is_understood_and_nothing_said_is_not_the_same_as_nothing_known() {
        let said = capabilities(["limits".to_owned(), "limits[].key[]=identity".to_owned()]);
        assert_eq!(Capabilities::of(&node(said.to_metadata())), Ok(Some(said)));
        assert_eq!(Capabilities::of(&node(Capabilities::default().to_metadata())), Ok(Some(Capabilities::default())));
        assert_eq!(Capabilities::of(&Node::default()), Ok(None));
        assert_eq!(Capabilities::of(&node(nested("istio", Struct::default()))), Ok(None));
    }

    #[test]
    fn what_is_said_is_the_same_or_it_is_not() {
        let words = |words: &[&str]| capabilities(words.iter().map(|word| (*word).to_owned()));
        let said = node(words(&["limits", "per"]).to_metadata());
        assert!(words(&["limits", "per"]).are_said_by(&said));
        for other in [words(&["limits"]), words(&["limits", "per", "to"]), words(&["limits", "key"]), words(&[])] {
            assert!(!other.are_said_by(&said), "{other:?}");
        }
        assert!(!Capabilities::default().are_said_by(&said));
        assert!(!Capabilities::default().are_said_by(&Node::default()), "nothing said is not nothing known");
        let kinds =
            |kinds: &[&str]| Capabilities(kinds.iter().map(|kind| ((*kind).to_owned(), BTreeSet::new())).collect());
        assert!(!kinds(&["A"]).are_said_by(&node(kinds(&["B"]).to_metadata())));
        assert!(!kinds(&["A"]).are_said_by(&node(nested(PROJECT, nested(ENFORCES, nested("A", Struct::default()))))));
    }

    #[test]
    fn a_sidecar_cannot_say_without_end() {
        let many = capabilities((0..=MOST_WORDS).map(|n| n.to_string()));
        assert_eq!(Capabilities::of(&node(many.to_metadata())), Err(TooMany));
        let long = capabilities(["x".repeat(MOST_BYTES + 1)]);
        assert_eq!(Capabilities::of(&node(long.to_metadata())), Err(TooMany));
        let kinds = Capabilities((0..=MOST_WORDS).map(|n| (n.to_string(), BTreeSet::new())).collect());
        assert_eq!(Capabilities::of(&node(kinds.to_metadata())), Err(TooMany));
    }

    #[test]
    fn more_includes_less() {
        let (more, less) = (capabilities(["a".to_owned(), "b".to_owned()]), capabilities(["a".to_owned()]));
        assert!(more.include(&less) && more.include(&more) && !less.include(&more));
        assert!(less.include(&Capabilities::default()) && !Capabilities::default().include(&less));
    }
}
