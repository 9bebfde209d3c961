//! How settings that several objects give for one thing come to one, field by field.
//!
//! A field is what has no fields of its own: a value, or a list as a whole. Who wins a field does not depend on the order in
//! which objects are read:
//!
//! 1. the object whose target is more specific;
//! 2. of equal targets the stricter value, where the field has strict and lax ones; of lists that give rights what all of
//!    them give;
//! 3. else the older object by `metadata.creationTimestamp`, those without one last, then the first by namespace and name.
//!
//! Losing to a more specific target is what targets are for. Losing another value to an equal target is a [`Conflict`].
//!
//! Rules (authorization, limits, faults) are not settings: those of all objects hold together.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

/// The field that says what an object is about; no setting.
const TARGET: &str = "targetRef";

/// Who goes first: the lesser.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// What the object is about, from the most specific, 0, on. Equal scopes are equal targets.
    scope: usize,
    /// In seconds since the Unix epoch; without a time after all that have one.
    created: u64,
    /// Namespace and name.
    object: (Arc<str>, Arc<str>),
}

impl Precedence {
    /// That of an object about a target as specific as `scope` says, `created` in seconds since the Unix epoch.
    pub fn new(scope: usize, created: Option<u64>, namespace: Arc<str>, name: Arc<str>) -> Self {
        Self { scope, created: created.unwrap_or(u64::MAX), object: (namespace, name) }
    }
}

/// Which value of a field is stricter than another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// None is.
    #[default]
    None,
    /// These, from the strictest on.
    Words(&'static [&'static str]),
    /// It is a list that gives rights, and who is not in it has none: the strictest is what is in all of them.
    Rights,
}

impl Strictness {
    /// The place of a value among others, the strictest first.
    fn rank(self, value: &Value) -> usize {
        let Self::Words(words) = self else { return 0 };
        words.iter().position(|known| Some(*known) == value.as_str()).unwrap_or(usize::MAX)
    }

    /// The value that holds of those of equal targets, which are in order of precedence.
    fn strictest(self, equals: &[(usize, &Value)]) -> Option<Value> {
        let values = || equals.iter().map(|(_, value)| *value);
        match self {
            Self::None | Self::Words(_) => values().min_by_key(|value| self.rank(value)).cloned(),
            Self::Rights => {
                let in_all = |right: &&Value| values().all(|value| gives(value, right));
                Some(values().next()?.as_array()?.iter().filter(in_all).cloned().collect())
            }
        }
    }

    /// True when not all that `value` says holds where `strictest` does.
    fn says_more(self, value: &Value, strictest: &Value) -> bool {
        match (self, value.as_array()) {
            (Self::Rights, Some(rights)) => rights.iter().any(|right| !gives(strictest, right)),
            _ => value != strictest,
        }
    }
}

fn gives(list: &Value, right: &Value) -> bool {
    list.as_array().is_some_and(|list| list.contains(right))
}

/// Fields of which no value is stricter than another.
pub const fn no_strictness(_: &str) -> Strictness {
    Strictness::None
}

/// What several objects come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged<T> {
    /// The settings, each from whoever won it.
    pub value: Map<String, Value>,
    /// Who won each field, by its path, such as `timeouts.request`.
    pub from: BTreeMap<String, T>,
    /// Who lost what to an equal target, by field.
    pub conflicts: Vec<Conflict<T>>,
}

/// A field in which an object says something else than another with an equal target, which wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict<T> {
    /// Its path, such as `timeouts.request`.
    pub field: String,
    /// Which object's value of the field is not in force.
    pub loser: T,
    /// Which object's value of the field is in force instead.
    pub winner: T,
    /// True when that value won because it is the stricter.
    pub is_stricter: bool,
}

/// Merges what objects say; each is told by what its caller calls it.
///
/// ```
/// use selvedge_policies::merge::{Precedence, merge, no_strictness};
/// use serde_json::json;
///
/// let (old, new) = (json!({ "timeouts": { "request": "1s" } }), json!({ "timeouts": { "request": "9s", "connect": "2s" } }));
/// let of = |name: &str, created| Precedence::new(0, Some(created), "shop".into(), name.into());
/// let said = [(of("new", 9), "new", new.as_object().unwrap()), (of("old", 1), "old", old.as_object().unwrap())];
/// let merged = merge(said, no_strictness);
/// assert_eq!(merged.value["timeouts"], json!({ "request": "1s", "connect": "2s" }));
/// assert_eq!((merged.from["timeouts.request"], merged.conflicts[0].loser), ("old", "new"));
/// ```
pub fn merge<'a, T: Clone>(
    said: impl IntoIterator<Item = (Precedence, T, &'a Map<String, Value>)>,
    strictness: fn(&str) -> Strictness,
) -> Merged<T> {
    let mut said: Vec<_> = said.into_iter().collect();
    said.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut fields = BTreeMap::new();
    for (n, (.., spec)) in said.iter().enumerate() {
        spec.iter()
            .filter(|(name, _)| *name != TARGET)
            .for_each(|(name, value)| leaves(&[name], value, n, &mut fields));
    }
    let mut merged = Merged { value: Map::new(), from: BTreeMap::new(), conflicts: Vec::new() };
    for (path, values) in fields {
        let field = path.join(".");
        let scope = |n: usize| said.get(n).map(|(precedence, ..)| precedence.scope);
        let first = values.first().and_then(|(n, _)| scope(*n));
        let equals: Vec<_> = values.into_iter().filter(|(n, _)| scope(*n) == first).collect();
        let Some(settled) = Settled::new(strictness(&field), &equals) else { continue };
        let named = |n: usize| said.get(n).map(|(_, name, _)| name.clone());
        let Some(from) = named(settled.winner) else { continue };
        merged.conflicts.extend(settled.lost.into_iter().filter_map(|(loser, winner, is_stricter)| {
            Some(Conflict { field: field.clone(), loser: named(loser)?, winner: named(winner)?, is_stricter })
        }));
        put(&mut merged.value, &path, settled.value);
        merged.from.insert(field, from);
    }
    merged
}

/// What values of one field, for equal targets, come to.
struct Settled {
    value: Value,
    winner: usize,
    /// Who loses, to whom, and whether to something stricter.
    lost: Vec<(usize, usize, bool)>,
}

impl Settled {
    /// Of these, which are in order of precedence.
    fn new(strictness: Strictness, equals: &[(usize, &Value)]) -> Option<Self> {
        let value = strictness.strictest(equals)?;
        let loses = |(_, other): &&(usize, &Value)| strictness.says_more(other, &value);
        // Nobody may have written just the rights that hold.
        let (winner, _) = *equals.iter().find(|equal| !loses(equal)).or(equals.first())?;
        let lost = equals.iter().filter(loses).map(|(loser, other)| match strictness {
            Strictness::Rights => {
                let taker = equals.iter().find(|(_, taker)| strictness.says_more(other, taker));
                (*loser, taker.map_or(winner, |(taker, _)| *taker), true)
            }
            _ => (*loser, winner, strictness.rank(&value) < strictness.rank(other)),
        });
        let lost = lost.collect();
        Some(Self { value, winner, lost })
    }
}

/// Every field under `path`, with who says what, in order of precedence. What is null is not said.
fn leaves<'a>(
    path: &[&'a str],
    value: &'a Value,
    n: usize,
    fields: &mut BTreeMap<Vec<&'a str>, Vec<(usize, &'a Value)>>,
) {
    match value {
        Value::Null => {}
        Value::Object(within) if !within.is_empty() => {
            within.iter().for_each(|(name, value)| leaves(&[path, &[name]].concat(), value, n, fields));
        }
        value => fields.entry(path.to_vec()).or_default().push((n, value)),
    }
}

/// Sets the field at `path`. One written without fields (`retry: {}`) is there before those within it.
fn put(into: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [name] => drop(into.insert((*name).to_owned(), value)),
        [name, rest @ ..] => {
            let within = into.entry(*name).or_insert_with(|| Map::new().into());
            if let Value::Object(within) = within {
                put(within, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn precedence((scope, created, name): (usize, Option<u64>, &str)) -> Precedence {
        Precedence::new(scope, created, "shop".into(), name.into())
    }

    fn strict(field: &str) -> Strictness {
        match field {
            "mode" => Strictness::Words(&["deny", "audit", "allow"]),
            "rights" => Strictness::Rights,
            _ => Strictness::None,
        }
    }

    type Said = (usize, Option<u64>, &'static str, Value);

    fn merged(said: &[Said]) -> Merged<&'static str> {
        let said = said.iter().map(|(scope, created, name, spec)| {
            (precedence((*scope, *created, name)), *name, spec.as_object().unwrap())
        });
        merge(said, strict)
    }

    #[test]
    fn who_wins_a_field() {
        for (what, said, winner, conflict) in [
            (
                "the more specific, though younger and laxer",
                [(1, Some(1), "a", json!({"mode": "deny"})), (0, Some(9), "b", json!({"mode": "allow"}))],
                "b",
                None,
            ),
            ("the older", [(0, Some(2), "a", json!({"x": 1})), (0, Some(1), "b", json!({"x": 2}))], "b", Some("a")),
            ("one with a time", [(0, None, "a", json!({"x": 1})), (0, Some(9), "b", json!({"x": 2}))], "b", Some("a")),
            ("the first by name", [(0, None, "b", json!({"x": 1})), (0, None, "a", json!({"x": 2}))], "a", Some("b")),
            (
                "of one age the first by name",
                [(0, Some(3), "b", json!({"x": 1})), (0, Some(3), "a", json!({"x": 2}))],
                "a",
                Some("b"),
            ),
            (
                "the stricter, though younger",
                [(0, Some(1), "a", json!({"mode": "allow"})), (0, Some(2), "b", json!({"mode": "audit"}))],
                "b",
                Some("a"),
            ),
            (
                "the strictest",
                [(0, None, "a", json!({"mode": "audit"})), (0, None, "b", json!({"mode": "deny"}))],
                "b",
                Some("a"),
            ),
            (
                "of equals nobody loses",
                [(0, None, "b", json!({"x": [1]})), (0, None, "a", json!({"x": [1]}))],
                "a",
                None,
            ),
            (
                "a list is one field",
                [(0, None, "b", json!({"x": [1]})), (0, None, "a", json!({"x": [2]}))],
                "a",
                Some("b"),
            ),
            ("null says nothing", [(0, None, "a", json!({"x": null})), (0, None, "b", json!({"x": 1}))], "b", None),
            ("an older null too", [(0, Some(1), "a", json!({"x": null})), (1, None, "b", json!({"x": 1}))], "b", None),
        ] {
            let merged = merged(&said);
            assert_eq!(merged.from.values().collect::<Vec<_>>(), [&winner], "{what}");
            let losers: Vec<_> = merged.conflicts.iter().map(|conflict| (conflict.loser, conflict.winner)).collect();
            assert_eq!(losers, conflict.map(|loser| (loser, winner)).into_iter().collect::<Vec<_>>(), "{what}");
            let won = said.iter().find(|(.., name, _)| *name == winner).unwrap();
            assert_eq!(Value::Object(merged.value), won.3, "{what}");
        }
    }

    #[test]
    fn only_rights_that_all_give_are_given() {
        let of = |scope, name, rights: &[&str]| (scope, None, name, json!({"rights": rights}));
        let cases = [
            (vec![of(0, "a", &["x", "y"]), of(0, "b", &["y", "x"])], json!(["x", "y"]), "a", vec![]),
            (vec![of(0, "a", &["x", "y"]), of(0, "b", &["y"])], json!(["y"]), "b", vec![("a", "b")]),
            (vec![of(0, "a", &["x"]), of(0, "b", &["y"])], json!([]), "a", vec![("a", "b"), ("b", "a")]),
            (
                vec![of(0, "a", &["x", "y"]), of(0, "b", &["y", "z"]), of(0, "c", &["x", "y", "z"])],
                json!(["y"]),
                "a",
                vec![("a", "b"), ("b", "a"), ("c", "a")],
            ),
            (vec![of(0, "a", &["x"]), of(1, "b", &["y"])], json!(["x"]), "a", vec![]),
        ];
        for (said, value, winner, lost) in cases {
            let merged = merged(&said);
            assert_eq!((&merged.value["rights"], merged.from["rights"]), (&value, winner), "{said:?}");
            let told: Vec<_> = merged.conflicts.iter().map(|conflict| (conflict.loser, conflict.winner)).collect();
            assert_eq!(told, lost, "{said:?}");
            assert!(merged.conflicts.iter().all(|conflict| conflict.is_stricter), "{said:?}");
        }
    }

    #[test]
    fn fields_of_several_objects_hold_together() {
        let merged = merged(&[
            (
                0,
                Some(2),
                "two",
                json!({"targetRef": {"name": "web"}, "retry": {"attempts": 3}, "timeouts": {"request": "9s"}}),
            ),
            (0, Some(1), "one", json!({"targetRef": {"kind": "Service"}, "timeouts": {"request": "1s"}, "retry": {}})),
            (1, None, "wide", json!({"timeouts": {"request": "5s", "connect": "2s"}})),
        ]);
        let expected = json!({"retry": {"attempts": 3}, "timeouts": {"request": "1s", "connect": "2s"}});
        assert_eq!(Value::Object(merged.value), expected);
        let from: Vec<_> = merged.from.iter().map(|(field, from)| (&**field, *from)).collect();
        let expected =
            [("retry", "one"), ("retry.attempts", "two"), ("timeouts.connect", "wide"), ("timeouts.request", "one")];
        assert_eq!(from, expected);
        let conflict = Conflict { field: "timeouts.request".into(), loser: "two", winner: "one", is_stricter: false };
        assert_eq!(merged.conflicts, [conflict]);
    }

    proptest! {
        #[test]
        fn the_order_in_which_objects_are_read_is_nothing(
            objects in proptest::collection::vec(
                (0usize..3, proptest::option::of(0u64..3), proptest::option::of(0u8..3), 0usize..4), 0..8,
            ),
            turn in 0usize..8,
        ) {
            const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
            const MODES: [Option<&str>; 4] = [Some("deny"), Some("audit"), Some("allow"), None];
            let mut said: Vec<Said> = Vec::new();
            for (n, (scope, created, x, mode)) in objects.iter().enumerate() {
                let rights: Vec<usize> = (0..4).filter(|right| right != mode).collect();
                let spec = json!({"mode": MODES[*mode], "x": {"y": x}, "list": [mode], "rights": rights});
                said.push((*scope, *created, NAMES[n], spec));
            }
            let once = merged(&said);
            said.rotate_left(turn % objects.len().max(1));
            prop_assert_eq!(&merged(&said), &once);
            said.reverse();
            prop_assert_eq!(&merged(&said), &once);
        }
    }
}
