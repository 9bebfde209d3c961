//! Reading a raw pod. What is absent, null or of another type than it should be counts as empty.

use serde_json::{Map, Value};

use crate::setting::Settings;

/// What an injector is asked about: a pod, where it is created, and the settings of the administrator.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The pod, or the template of one, as it is written.
    pub pod: &'a Value,
    /// Where it is, or is to be.
    pub namespace: &'a Namespace,
    /// What the administrator has set.
    pub settings: &'a Settings,
}

/// The namespace of a pod.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Its name in the cluster, such as `shop`.
    pub name: String,
    /// Its labels, as far as they are known.
    pub labels: Map<String, Value>,
}

/// The annotations of a pod, if it has any.
pub fn annotations(pod: &Value) -> Option<&Map<String, Value>> {
    pod.pointer("/metadata/annotations")?.as_object()
}

/// The value of an annotation; empty when absent.
pub fn annotation<'a>(pod: &'a Value, key: &str) -> &'a str {
    annotations(pod).and_then(|annotations| annotations.get(key)?.as_str()).unwrap_or_default()
}

/// The value of a label.
pub fn label<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod.pointer("/metadata/labels")?.get(key)?.as_str()
}

/// The elements of the list at a JSON pointer.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text at a JSON pointer; empty when absent.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The containers of a pod, then its init containers.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "/spec/containers").iter().chain(list(pod, "/spec/initContainers"))
}

/// The containers that run as long as the pod: all but the init containers that end.
pub fn running(pod: &Value) -> impl Iterator<Item = &Value> {
    let sidecars = list(pod, "/spec/initContainers").iter();
    list(pod, "/spec/containers")
        .iter()
        .chain(sidecars.filter(|container| text(container, "/restartPolicy") == "Always"))
}

/// Whether something called `name` is in the list at a JSON pointer.
pub fn has_named(pod: &Value, pointer: &str, name: &str) -> bool {
    list(pod, pointer).iter().any(|entry| text(entry, "/name") == name)
}

/// Whether there is something at a JSON pointer.
pub fn has(pod: &Value, pointer: &str) -> bool {
    pod.pointer(pointer).is_some_and(|value| !value.is_null())
}
