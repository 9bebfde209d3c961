//! Documents that nobody wrote and every sidecar knows: what refuses, in the words of the oldest release there is.

use std::collections::BTreeSet;

use selvedge_policies::kind::vocabulary;
use selvedge_xds::{
    capability::Capabilities,
    proto::mesh::{Attachment, Origin},
};
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

/// The route with every rule that says more than its `words` without a backend to go to. What its conditions say beyond
/// them is left out: too much is answered with an error, never too little. Where the route itself says more, or its kind is
/// not known, all of it is.
pub(super) fn rules(document: &Value, kind: &str, knows: &Capabilities) -> Value {
    let nothing = BTreeSet::new();
    let words = knows.0.get(&OLDEST.routes).unwrap_or(&nothing);
    let everything = vec![json!({})];
    let rules =
        document.get("rules").and_then(Value::as_array).filter(|rules| !rules.is_empty()).unwrap_or(&everything);
    let mut whole = document.clone();
    if let Some(fields) = whole.as_object_mut() {
        fields.remove("rules");
    }
    let is_known = kind == OLDEST.routes && vocabulary::unknown(words, &whole).is_none();
    vocabulary::reduce(words, &mut whole);
    let name = document["parentRefs"][0]["name"].as_str().unwrap_or_default();
    let told =
        rules.iter().map(|rule| match is_known && vocabulary::unknown(words, &json!({"rules": [rule]})).is_none() {
            true => rule.clone(),
            false => closed(rule, name, words),
        });
    whole["rules"] = told.collect();
    whole
}

/// The rule without a backend to go to, and without conditions that are not among `words`.
fn closed(rule: &Value, name: &str, words: &BTreeSet<String>) -> Value {
    let mut closed = nowhere(name);
    let is_known = |part: Value| vocabulary::unknown(words, &json!({"rules": [part]})).is_none();
    if rule["name"].is_string() && is_known(json!({"name": rule["name"]})) {
        closed["name"] = rule["name"].clone();
    }
    let condition = |condition: &Value| {
        let mut alone = json!({"rules": [{"matches": [condition]}]});
        vocabulary::reduce(words, &mut alone);
        let known = alone.pointer("/rules/0/matches/0").cloned();
        known.unwrap_or_else(|| json!({}))
    };
    let conditions = rule["matches"].as_array().filter(|conditions| !conditions.is_empty());
    if let Some(conditions) = conditions.filter(|_| is_known(json!({"matches": []}))) {
        closed["matches"] = conditions.iter().map(condition).collect();
    }
    closed
}

/// A rule without a backend to go to.
fn nowhere(name: &str) -> Value {
    json!({"backendRefs": [{"name": name, "weight": 0}]})
}
