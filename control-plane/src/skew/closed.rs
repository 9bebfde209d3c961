//! Documents that nobody wrote and every sidecar knows: what refuses, in the words of the oldest release there is.

use std::collections::BTreeSet;

use selvedge_policies::kind::vocabulary;
use selvedge_xds::proto::mesh::{Attachment, Origin};
use serde_json::{Value, json};

use super::OLDEST;

/// Refuses all that the object is attached to, in its name.
pub(super) fn policy(object: &Origin) -> Attachment {
    stand_in(object, &OLDEST.authorizes, &json!({"action": "DENY", "rules": [{}]}))
}

/// Answers every request for a service, `name`, with an error, in the name of the object.
pub(super) fn service(object: &Origin, name: &str) -> Attachment {
    stand_in(object, &OLDEST.routes, &json!({"parentRefs": [{"name": name}], "rules": [nowhere(name)]}))
}

/// `document`, a part of a route, in the name of the object.
pub(super) fn route(object: &Origin, document: &Value) -> Attachment {
    stand_in(object, &OLDEST.routes, document)
}

fn stand_in(object: &Origin, kind: &str, document: &Value) -> Attachment {
    let origin = Origin { kind: kind.to_owned(), ..object.clone() };
    Attachment { origin: Some(origin), document: document.to_string(), stands_for: Some(object.clone()) }
}

/// The policy without its rules: it closes what it is attached to, as before, and lets nobody pass.
pub(super) fn lets_nobody_pass(document: &Value, words: &BTreeSet<String>) -> Value {
    let mut document = document.clone();
    vocabulary::reduce(words, &mut document);
    let target = document.get("targetRef").map(|target| ("targetRef", target.clone()));
    let fields = target.into_iter().chain([("action", json!("ALLOW")), ("rules", json!([]))]);
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The route with every rule that says more than `words` without a backend to go to. What its conditions say beyond them
/// is left out: too much is answered with an error, never too little. Where the route itself says more, all of it is.
pub(super) fn rules(document: &Value, words: &BTreeSet<String>) -> Value {
    let parents = document.get("parentRefs").cloned().unwrap_or_default();
    let name = parents[0]["name"].as_str().unwrap_or_default().to_owned();
    let everything = vec![json!({})];
    let rules =
        document.get("rules").and_then(Value::as_array).filter(|rules| !rules.is_empty()).unwrap_or(&everything);
    let mut whole = document.clone();
    if let Some(fields) = whole.as_object_mut() {
        fields.remove("rules");
    }
    let is_known = !words.is_empty() && vocabulary::unknown(words, &whole).is_none();
    let rule = |rule: &Value| {
        if is_known && vocabulary::unknown(words, &json!({"rules": [rule]})).is_none() {
            return rule.clone();
        }
        let mut conditions = json!({"rules": [{"matches": rule["matches"]}]});
        vocabulary::reduce(words, &mut conditions);
        let mut closed = nowhere(&name);
        for (field, value) in [("name", &rule["name"]), ("matches", &conditions["rules"][0]["matches"])] {
            if !value.is_null() {
                closed[field] = value.clone();
            }
        }
        closed
    };
    whole["rules"] = rules.iter().map(rule).collect();
    if !is_known {
        let known = ["parentRefs", "hostnames"].map(|field| (field, whole[field].take()));
        let rules = whole["rules"].take();
        let fields = known.into_iter().filter(|(_, value)| !value.is_null()).chain([("rules", rules)]);
        whole = Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect());
    }
    whole
}

/// A rule without a backend to go to.
fn nowhere(name: &str) -> Value {
    json!({"backendRefs": [{"name": name, "weight": 0}]})
}
