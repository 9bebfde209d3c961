//! The injector as a function: of a raw pod, its namespace and the settings, to a JSON patch or the reason why not.
//!
//! The patch only adds. What it makes of a pod gets an empty patch when asked again.

use serde_json::{Value, json};

use crate::{
    pod::{Namespace, Request},
    readiness,
    setting::Settings,
    switch::{self, WhyNot},
    table::ADDITIONS,
};

/// The JSON patch (RFC 6902) that puts the sidecar into a pod, a list of `add` operations; empty where it has one.
///
/// ```
/// use selvedge_inject::{injection::inject, pod::Namespace, setting::Settings, switch::WhyNot};
/// use serde_json::json;
///
/// let pod = json!({ "metadata": {}, "spec": { "containers": [{ "name": "web" }] } });
/// assert_eq!(inject(&pod, &Namespace::default(), &Settings::default()), Err(WhyNot::NotEnabled));
/// ```
///
/// # Errors
/// Why the pod gets no sidecar; some of them [refuse](WhyNot::is_refusal) the pod.
pub fn inject(pod: &Value, namespace: &Namespace, settings: &Settings) -> Result<Vec<Value>, WhyNot> {
    if !switch::decide(pod, namespace)? {
        return Ok(Vec::new());
    }
    let request = Request { pod, namespace, settings };
    if let Some(why) = readiness::why_not(&request) {
        return Err(WhyNot::NotReady(why));
    }
    let needed = ADDITIONS.iter().filter(|addition| !(addition.when.text)(&request).is_empty());
    let added = needed.filter_map(|addition| Some((addition.pointer(), addition.value.value(&request)?)));
    Ok(added.map(|(path, value)| json!({ "op": "add", "path": path, "value": value })).collect())
}
