//! Which condition fails, for people: each field of a condition is asked alone of what decides.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::kind;

/// What fails of `alternatives`, found at `path`, of which one has to match; nothing when one does or there are none. Of
/// several that do not it is the one that comes closest, and of that the first field that does not match alone.
pub(crate) fn failing<T>(alternatives: &[T], path: &str, matches: impl Fn(&T) -> bool) -> Option<String>
where
    T: Serialize + DeserializeOwned,
{
    if alternatives.is_empty() || alternatives.iter().any(&matches) {
        return None;
    }
    let failing = |alternative: &T| -> Vec<String> {
        let fields = fields(alternative).into_iter();
        fields.filter(|(_, alone)| !matches(alone)).map(|(field, _)| field).collect()
    };
    let found = alternatives.iter().map(failing).enumerate().min_by_key(|(_, fields)| fields.len());
    found.and_then(|(n, fields)| Some(format!("{path}[{n}].{}", fields.first()?)))
}

/// Each field that is written, alone.
fn fields<T: Serialize + DeserializeOwned>(condition: &T) -> Vec<(String, T)> {
    let Value::Object(fields) = kind::document(condition) else { return Vec::new() };
    let alone = |(name, value): (String, Value)| {
        let only = Value::Object(Map::from_iter([(name.clone(), value)]));
        Some((name, kind::parse(&only).ok()?))
    };
    fields.into_iter().filter_map(alone).collect()
}
