//! What documents of a kind can say, as a list of words: a form in which a program tells another what it understands.
//!
//! A word is a field by its path (`rules[].from[].identities`), or a value of a field that takes only some
//! (`action=DENY`). Words are derived from the schema, so a field that is added to a type is a new word by itself, and
//! whoever does not know it can be told from whoever does. What a field means does not stand in a schema: a new meaning
//! needs a new field, or a new word in an old one.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Stands for any text where a field takes some words and others too.
const ANY: &str = "*";

/// The words of a kind with this schema of `spec`.
///
/// ```
/// use selvedge_policies::kind::vocabulary;
/// use serde_json::json;
///
/// let schema = json!({ "properties": { "action": { "enum": ["ALLOW", "DENY"] } } });
/// let words = vocabulary::of(&schema);
/// assert!(words.iter().eq(["action", "action=ALLOW", "action=DENY"]));
/// ```
pub fn of(schema: &Value) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    visit(schema, schema, "", &mut words);
    words
}

fn visit(root: &Value, schema: &Value, path: &str, words: &mut BTreeSet<String>) {
    if let Some(pointer) = schema.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#')) {
        // No schema of ours contains itself.
        return root.pointer(pointer).into_iter().for_each(|to| visit(root, to, path, words));
    }
    for alternative in ["anyOf", "oneOf", "allOf"].iter().filter_map(|key| schema.get(key)?.as_array()).flatten() {
        visit(root, alternative, path, words);
    }
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const"));
    let listed: Vec<&str> = listed.filter_map(Value::as_str).collect();
    words.extend(listed.iter().map(|word| format!("{path}={word}")));
    let is_text = schema.get("type").is_some_and(|named| named == "string" || is_among(named, "string"));
    if is_text && listed.is_empty() {
        words.insert(format!("{path}={ANY}"));
    }
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = join(path, name);
        visit(root, field, &path, words);
        words.insert(path);
    }
    if let Some(items) = schema.get("items") {
        visit(root, items, &format!("{path}[]"), words);
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        let path = join(path, ANY);
        visit(root, values, &path, words);
        words.insert(path);
    }
}

fn is_among(list: &Value, name: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|listed| listed == name))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What `document` says that is not among `words`: the field, such as `rules[1].when`, or the field and its value, such as
/// `action: AUDIT`. The first of them when there are several.
///
/// ```
/// use selvedge_policies::kind::vocabulary;
/// use serde_json::json;
///
/// let words = vocabulary::of(&json!({ "properties": { "action": { "enum": ["ALLOW", "DENY"] } } }));
/// assert_eq!(vocabulary::unknown(&words, &json!({ "action": "DENY" })), None);
/// assert_eq!(vocabulary::unknown(&words, &json!({ "action": "AUDIT" })).as_deref(), Some("action: AUDIT"));
/// ```
pub fn unknown(words: &BTreeSet<String>, document: &Value) -> Option<String> {
    look(words, document, "", "")
}

/// `path` is that of the words, `place` that of the document.
fn look(words: &BTreeSet<String>, value: &Value, path: &str, place: &str) -> Option<String> {
    match value {
        Value::Object(fields) => look_at_fields(words, fields, path, place),
        Value::Array(items) => {
            let path = format!("{path}[]");
            items.iter().enumerate().find_map(|(n, item)| look(words, item, &path, &format!("{place}[{n}]")))
        }
        Value::String(text) => {
            let takes = |word: &str| words.contains(&format!("{path}={word}"));
            (!takes(text) && !takes(ANY)).then(|| format!("{place}: {text}"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn look_at_fields(words: &BTreeSet<String>, fields: &Map<String, Value>, path: &str, place: &str) -> Option<String> {
    fields.iter().find_map(|(name, value)| {
        let place = join(place, name);
        let known = [name, ANY].map(|name| join(path, name)).into_iter().find(|path| words.contains(path));
        known.map_or_else(|| Some(place.clone()), |path| look(words, value, &path, &place))
    })
}

/// Takes what is not among `words` out of `document`, and what is empty after that. What it was, as [`unknown`] names it.
///
/// ```
/// use selvedge_policies::kind::vocabulary;
/// use serde_json::json;
///
/// let words = vocabulary::of(&json!({ "properties": { "action": { "enum": ["ALLOW", "DENY"] } } }));
/// let mut document = json!({ "action": "DENY", "when": { "hour": 7 } });
/// vocabulary::reduce(&words, &mut document);
/// assert_eq!(document, json!({ "action": "DENY" }));
/// ```
pub fn reduce(words: &BTreeSet<String>, document: &mut Value) -> Vec<String> {
    let mut taken = Vec::new();
    while let Some(place) = unknown(words, document) {
        let is_gone = remove(document, field(&place));
        taken.push(place);
        if !is_gone {
            break;
        }
    }
    taken
}

/// The path of the field in which something that [`unknown`] has named stands.
///
/// ```
/// use selvedge_policies::kind::vocabulary::field;
///
/// assert_eq!((field("action: AUDIT"), field("rules[1].when")), ("action", "rules[1].when"));
/// ```
pub fn field(place: &str) -> &str {
    place.split_once(": ").map_or(place, |(field, _)| field)
}

/// Removes the field or item at `place`, and what holds nothing else. Whether it was there.
fn remove(document: &mut Value, place: &str) -> bool {
    let steps: Vec<&str> = place.split(['.', '[', ']']).filter(|step| !step.is_empty()).collect();
    (1..=steps.len()).rev().try_for_each(|depth| {
        let (last, parents) = steps[..depth].split_last().ok_or(false)?;
        let pointer: String = parents.iter().map(|step| format!("/{step}")).collect();
        let left = match (document.pointer_mut(&pointer), last.parse::<usize>()) {
            (Some(Value::Object(fields)), _) => fields.remove(*last).map(|_| fields.len()),
            (Some(Value::Array(items)), Ok(n)) if n < items.len() => {
                items.remove(n);
                Some(items.len())
            }
            _ => None,
        };
        match left {
            Some(0) => Ok(()),
            Some(_) => Err(true),
            None => Err(false),
        }
    }) != Err(false)
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde_json::json;

    use super::*;
    use crate::registry;

    #[derive(JsonSchema)]
    #[schemars(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Spec {
        action: Action,
        rules: Vec<Rule>,
        labels: std::collections::BTreeMap<String, String>,
        name: Option<String>,
        count: u32,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Action {
        Allow,
        Deny,
        /// With a value.
        Header(String),
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Rule {
        path: Option<String>,
    }

    fn words() -> BTreeSet<String> {
        of(schemars::schema_for!(Spec).as_value())
    }

    #[test]
    fn words_are_fields_and_the_values_of_those_that_take_only_some() {
        let words = words();
        let expected = [
            "action",
            "action.Header",
            "action.Header=*",
            "action=Allow",
            "action=Deny",
            "count",
            "labels",
            "labels.*",
            "labels.*=*",
            "name",
            "name=*",
            "rules",
            "rules[].path",
            "rules[].path=*",
        ];
        assert_eq!(words.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_not_a_word_is_named_where_it_stands() {
        let unknown = |document: &Value| unknown(&words(), document);
        let rules = json!([{"path": "/"}, {"path": "/", "when": 1}]);
        assert_eq!(unknown(&json!({"action": "Deny", "labels": {"x": "y"}, "name": null, "count": 1})), None);
        assert_eq!(unknown(&json!({"action": {"Header": "x"}, "rules": [{}]})), None);
        assert_eq!(unknown(&json!({"rules": rules})).as_deref(), Some("rules[1].when"));
        assert_eq!(unknown(&json!({"action": "Audit"})).as_deref(), Some("action: Audit"));
        assert_eq!(unknown(&json!({"action": {"Cookie": "x"}})).as_deref(), Some("action.Cookie"));
        assert_eq!(unknown(&json!({"onUnsupported": "close"})).as_deref(), Some("onUnsupported"));
    }

    #[test]
    fn a_document_can_be_reduced_to_what_is_known() {
        let mut document =
            json!({"action": "Audit", "rules": [{"path": "/", "when": 1}], "new": {"deep": [1]}, "count": 1});
        let taken = reduce(&words(), &mut document);
        assert_eq!(taken, ["action: Audit", "new", "rules[0].when"]);
        assert_eq!(document, json!({"rules": [{"path": "/"}], "count": 1}));
    }

    #[test]
    fn every_kind_knows_its_own_words() {
        for kind in registry::kinds() {
            let words = of((kind.schema)().as_value());
            assert!(words.len() > 8, "{}: {words:?}", kind.name);
        }
    }
}
