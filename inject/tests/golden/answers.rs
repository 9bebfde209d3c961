//! What a real API server answered to each shape, in `answers.json`, and whether the injector says the same.
//!
//! Of an answer those parts are kept that an injection touches. The server also fills in defaults, which are known here
//! by their names and may be in its answer alone.

use selvedge_inject::{
    injection::inject,
    pod::Namespace,
    setting::Settings,
    switch::{WhyNot, decide},
    warning::{misspelt, warnings},
};
use serde_json::{Value, json};

use super::shapes::Shape;

/// Parts of a pod that an injection touches: where they are, and what they are when absent.
const PARTS: [(&str, &str, &str); 3] = [
    ("annotations", "/metadata/annotations", "{}"),
    ("initContainers", "/spec/initContainers", "[]"),
    ("volumes", "/spec/volumes", "[]"),
];

/// Fields that an API server fills in.
const DEFAULTS: [&str; 13] = [
    "apiVersion",
    "defaultMode",
    "failureThreshold",
    "imagePullPolicy",
    "path",
    "periodSeconds",
    "protocol",
    "resources",
    "scheme",
    "successThreshold",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "timeoutSeconds",
];

/// What is kept of a pod.
pub(crate) fn parts(pod: &Value) -> Value {
    let part = |(name, pointer, absent): &(&str, &str, &str)| {
        let value = pod.pointer(pointer).filter(|value| !value.is_null()).cloned();
        ((*name).to_owned(), value.unwrap_or_else(|| serde_json::from_str(absent).unwrap()))
    };
    PARTS.iter().map(part).collect()
}

/// The namespace of a shape, as an injector has it.
fn namespace(shape: &Shape) -> Namespace {
    let labels = shape.namespace["metadata"]["labels"].as_object().unwrap().clone();
    Namespace { name: shape.namespace["metadata"]["name"].as_str().unwrap().to_owned(), labels }
}

/// What the injector makes of a shape, in the form of the answers.
pub(crate) fn injector(shape: &Shape) -> Value {
    let mut pod = shape.pod.clone();
    match inject(&pod, &namespace(shape), &Settings::of(&shape.settings)) {
        Ok(patch) => {
            json_patch::patch(&mut pod, &serde_json::from_value::<json_patch::Patch>(json!(patch)).unwrap()).unwrap()
        }
        Err(WhyNot::NotReady(why)) => return json!({ "refused": why }),
        Err(_) => {}
    }
    parts(&pod)
}

/// Whether an answer says the same: of a refusal the server has words of its own around it, of a pod it has defaults.
pub(crate) fn is_same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) if ours.contains_key("refused") => {
            let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
            text(theirs.get("refused")).contains(&text(ours.get("refused")))
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            let is_known = |key: &String| ours.contains_key(key) || DEFAULTS.contains(&key.as_str());
            theirs.keys().all(is_known)
                && ours.iter().all(|(key, value)| match theirs.get(key) {
                    Some(theirs) => is_same(value, theirs),
                    // A server leaves out what is empty.
                    None => *value == json!({}),
                })
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| is_same(ours, theirs))
        }
        _ => ours == theirs,
    }
}

/// All that the injector says of a shape, but for the words about keys that there are none of: those the policy has in its
/// own way, which the page says.
pub(crate) fn said(shape: &Shape, pod: &Value) -> Vec<String> {
    let around = namespace(shape);
    let misspelt: Vec<_> = misspelt(pod).collect();
    let said = warnings(pod, &around, &Settings::of(&shape.settings));
    let said = said.into_iter().filter(|warning| !misspelt.contains(warning)).map(|warning| warning.text);
    let left = match decide(pod, &around) {
        Err(WhyNot::LeftAlone(why)) => Some(format!("no sidecar is put into this pod: {why}")),
        _ => None,
    };
    // A kubelet that mirrors a pod reads nothing.
    said.chain(left.filter(|left| !left.contains("mirrors"))).collect()
}
