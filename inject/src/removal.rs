//! The opposite of an injection: a patch that takes away what was put into a pod, and nothing else.

use serde_json::{Value, json};

use crate::{
    expression::SAFE_TO_EVICT,
    pod,
    switch::SIDECAR,
    table::{ASKED, CAPTURE, STATE, STATUS, TOKEN},
};

/// The JSON patch (RFC 6902) that takes the sidecar out of a pod or the template of one; empty where it has none.
///
/// A list or map that has nothing else goes too, whether an injection or somebody else has made it.
///
/// ```
/// use selvedge_inject::removal::remove;
/// use serde_json::json;
///
/// let pod = json!({ "spec": { "initContainers": [{ "name": "selvedge-proxy" }], "containers": [{ "name": "web" }] } });
/// assert_eq!(remove(&pod), [json!({ "op": "remove", "path": "/spec/initContainers" })]);
/// ```
pub fn remove(pod: &Value) -> Vec<Value> {
    let mut patch = named(pod, "/spec/initContainers", &[SIDECAR, CAPTURE]);
    if patch.is_empty() && pod::annotation(pod, STATUS).is_empty() {
        return patch;
    }
    patch.extend(named(pod, "/spec/volumes", &[TOKEN, STATE]));
    patch.extend(annotations(pod));
    patch
}

fn removed(path: &str) -> Value {
    json!({ "op": "remove", "path": path })
}

/// Removes the elements of a list with these names, the last first; or the list, if it has no others.
fn named(pod: &Value, list: &str, names: &[&str]) -> Vec<Value> {
    let elements = pod::list(pod, list);
    let is_ours = |element: &Value| names.contains(&pod::text(element, "/name"));
    if !elements.is_empty() && elements.iter().all(is_ours) {
        return vec![removed(list)];
    }
    let ours = elements.iter().enumerate().rev().filter(|(_, element)| is_ours(element));
    ours.map(|(at, _)| removed(&format!("{list}/{at}"))).collect()
}

fn annotations(pod: &Value) -> Vec<Value> {
    let Some(annotations) = pod::annotations(pod) else { return Vec::new() };
    let volumes = pod::annotation(pod, SAFE_TO_EVICT);
    let rest: Vec<&str> = volumes.split(',').filter(|volume| *volume != STATE && !volume.is_empty()).collect();
    let goes = |key: &str| [STATUS, ASKED].contains(&key) || key == SAFE_TO_EVICT && rest.is_empty();
    if annotations.keys().all(|key| goes(key)) {
        return vec![removed("/metadata/annotations")];
    }
    let path = |key: &str| format!("/metadata/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
    let mut patch: Vec<Value> = annotations.keys().filter(|key| goes(key)).map(|key| removed(&path(key))).collect();
    if !rest.is_empty() && rest.len() < volumes.split(',').count() {
        patch.push(json!({ "op": "replace", "path": path(SAFE_TO_EVICT), "value": rest.join(",") }));
    }
    patch
}
