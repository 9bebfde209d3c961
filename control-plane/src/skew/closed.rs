//! Documents that nobody wrote and every sidecar knows: what refuses, in the words of the oldest release there is.

use std::{cmp::Reverse, collections::BTreeSet};

use selvedge_policies::{
    kind::vocabulary,
    matching::path::{PathMatch, PathMatchType},
};
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

/// The route with every rule that says more than its `words` without a backend to go to. Of its conditions stands what they
/// say in those words, so it takes all requests that it was meant to take, and more: those are answered with an error, too.
/// Being less, the conditions may give way to those of other rules: [`claims`] says for which requests. Where the route
/// itself says more, or its kind is not known, all of it is closed.
pub(super) fn rules(document: &Value, kind: &str, knows: &Capabilities) -> Value {
    let nothing = BTreeSet::new();
    let words = knows.0.get(&OLDEST.routes).unwrap_or(&nothing);
    let mut whole = document.clone();
    if let Some(fields) = whole.as_object_mut() {
        fields.remove("rules");
    }
    let is_known = kind == OLDEST.routes && vocabulary::unknown(words, &whole).is_none();
    vocabulary::reduce(words, &mut whole);
    let name = document["parentRefs"][0]["name"].as_str().unwrap_or_default();
    let told = written(document).into_iter().map(|rule| {
        match is_known && vocabulary::unknown(words, &json!({"rules": [rule]})).is_none() {
            true => rule,
            false => closed(&rule, name, words),
        }
    });
    whole["rules"] = told.collect();
    whole
}

/// Puts a service that nobody can have in place of each backend of another kind, unless that is among `words`: its share
/// of the requests is answered with an error there, too. Whether there was one.
pub(super) fn backends(document: &mut Value, words: &BTreeSet<String>) -> bool {
    let rules = document.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten();
    let backends = rules.filter_map(|rule| rule.get_mut("backendRefs")?.as_array_mut()).flatten();
    let mut is_other = false;
    for backend in backends.filter(|backend| backend["kind"].as_str().is_some_and(|kind| kind != "Service")) {
        let named = json!({"group": backend["group"], "kind": backend["kind"]});
        if vocabulary::unknown(words, &json!({"rules": [{"backendRefs": [named]}]})).is_some() {
            let weight = backend.get("weight").cloned().unwrap_or_else(|| json!(1));
            // No name of an object has a dot.
            *backend = json!({"name": "nobody.invalid", "weight": weight});
            is_other = true;
        }
    }
    is_other
}

/// The rules of a route: one that matches everything where none is written.
fn written(document: &Value) -> Vec<Value> {
    let rules = document["rules"].as_array().filter(|rules| !rules.is_empty());
    rules.cloned().unwrap_or_else(|| vec![json!({})])
}

/// The conditions of a rule: one that holds for every request where none is written.
fn conditions(rule: &Value) -> Vec<Value> {
    let conditions = rule["matches"].as_array().filter(|conditions| !conditions.is_empty());
    conditions.cloned().unwrap_or_else(|| vec![json!({})])
}

/// The rule without a backend to go to, and without conditions that are not among `words`.
fn closed(rule: &Value, name: &str, words: &BTreeSet<String>) -> Value {
    let mut closed = nowhere(name);
    let is_known = |part: Value| vocabulary::unknown(words, &json!({"rules": [part]})).is_none();
    if rule["name"].is_string() && is_known(json!({"name": rule["name"]})) {
        closed["name"] = rule["name"].clone();
    }
    let is_written = rule["matches"].as_array().is_some_and(|conditions| !conditions.is_empty());
    if is_written && is_known(json!({"matches": []})) {
        closed["matches"] = conditions(rule).iter().map(|condition| known(condition, words)).collect();
    }
    closed
}

/// What of a condition is known, in whole parts: half of a part might ask for something else.
fn known(condition: &Value, words: &BTreeSet<String>) -> Value {
    let is_known = |field: &str, part: Value| {
        let alone = Value::Object([(field.to_owned(), part)].into_iter().collect());
        vocabulary::unknown(words, &json!({"rules": [{"matches": [alone]}]})).is_none()
    };
    let fields = condition.as_object().into_iter().flatten().filter_map(|(field, value)| {
        let known = match value {
            Value::Array(parts) => parts.iter().filter(|part| is_known(field, json!([part]))).cloned().collect(),
            part if is_known(field, part.clone()) => part.clone(),
            _ => return None,
        };
        (known != json!([])).then(|| (field.clone(), known))
    });
    Value::Object(fields.collect())
}

/// Requests whose rule is told with less than its conditions: others must not take them in its place.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    path: PathMatch,
    /// Whether it might go before rules with a more specific path, for all that is known.
    may_lead: bool,
}

/// What is claimed by the conditions of a route that stands as `told`, less than in `document`.
pub(super) fn claims(document: &Value, told: &Value) -> Vec<Claim> {
    if document["hostnames"] != told["hostnames"] {
        return vec![Claim { path: PathMatch::default(), may_lead: true }];
    }
    let rules = written(document).into_iter().zip(written(told));
    rules.flat_map(|(rule, told)| lessened(&conditions(&rule), &conditions(&told))).collect()
}

fn lessened(written: &[Value], told: &[Value]) -> Vec<Claim> {
    if written.len() != told.len() {
        return vec![Claim { path: PathMatch::default(), may_lead: true }];
    }
    let lessened = written.iter().zip(told).filter(|(written, told)| written != told);
    let claim = |(written, told): (&Value, &Value)| Claim {
        path: path(told),
        // The Gateway API ranks these after the path; of a field it does not have nobody can say.
        may_lead: written.as_object().into_iter().flatten().any(|(field, value)| {
            told.get(field) != Some(value) && !["method", "headers", "queryParams"].contains(&&**field)
        }),
    };
    lessened.map(claim).collect()
}

/// The route without a backend to go to in each rule that might take what is claimed; `None` when there is none.
pub(super) fn yielding(document: &Value, claims: &[Claim]) -> Option<Value> {
    let name = document["parentRefs"][0]["name"].as_str().unwrap_or_default();
    let mut is_closed = false;
    let rules = written(document).into_iter().map(|mut rule| {
        let paths: Vec<PathMatch> = conditions(&rule).iter().map(path).collect();
        if paths.iter().any(|path| claims.iter().any(|claim| may_take(path, claim))) {
            let closed = nowhere(name);
            is_closed |= rule["backendRefs"] != closed["backendRefs"];
            rule["backendRefs"] = closed["backendRefs"].clone();
            if let Some(fields) = rule.as_object_mut() {
                fields.retain(|field, _| matches!(&**field, "name" | "matches" | "backendRefs"));
            }
        }
        rule
    });
    let rules: Vec<Value> = rules.collect();
    let document =
        Value::Object(document.as_object()?.clone().into_iter().chain([("rules".into(), rules.into())]).collect());
    is_closed.then_some(document)
}

fn path(condition: &Value) -> PathMatch {
    serde_json::from_value(condition["path"].clone()).unwrap_or_default()
}

/// Whether a condition with this path might go before that of the claim for a request of the claim.
fn may_take(path: &PathMatch, claim: &Claim) -> bool {
    let (mine, theirs) = (place(path), place(&claim.path));
    overlaps(path, &claim.path) && (mine == theirs || claim.may_lead && mine < theirs)
}

/// The place of a path among others in the precedence of the Gateway API: what is less goes first.
fn place(path: &PathMatch) -> (u8, Reverse<usize>) {
    match path.kind {
        PathMatchType::Exact => (0, Reverse(0)),
        PathMatchType::RegularExpression => (1, Reverse(path.value.len())),
        PathMatchType::PathPrefix => (2, Reverse(prefix(path).len())),
    }
}

/// Whether there may be a path that both match.
fn overlaps(a: &PathMatch, b: &PathMatch) -> bool {
    let begins =
        |path: &str, with: &str| path.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match (a.kind, b.kind) {
        (PathMatchType::RegularExpression, _) | (_, PathMatchType::RegularExpression) => true,
        (PathMatchType::Exact, PathMatchType::Exact) => a.value == b.value,
        (PathMatchType::Exact, PathMatchType::PathPrefix) => begins(&a.value, prefix(b)),
        (PathMatchType::PathPrefix, PathMatchType::Exact) => begins(&b.value, prefix(a)),
        (PathMatchType::PathPrefix, PathMatchType::PathPrefix) => {
            begins(prefix(a), prefix(b)) || begins(prefix(b), prefix(a))
        }
    }
}

/// The elements of a prefix, without a slash at the end.
fn prefix(path: &PathMatch) -> &str {
    path.value.strip_suffix('/').unwrap_or(&path.value)
}

/// A rule without a backend to go to.
fn nowhere(name: &str) -> Value {
    json!({"backendRefs": [{"name": name, "weight": 0}]})
}
