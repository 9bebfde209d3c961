//! The injector as a function: of a raw pod, its namespace and the settings, to a JSON patch or the reason why not.
//!
//! The patch only adds. What it makes of a pod gets an empty patch when asked again.

use serde_json::{Value, json};

use crate::{
    field::Missing,
    pod::Request,
    setting::Settings,
    switch::{self, Namespace, WhyNot},
    table::ADDITIONS,
};

/// The JSON patch (RFC 6902) that puts the sidecar into a pod, a list of `add` operations; empty where it has one.
///
/// ```
/// use selvedge_inject::{injection::inject, setting::Settings, switch::{Namespace, WhyNot}};
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
    let request = Request { pod, settings };
    let mut patch = Vec::new();
    for addition in &ADDITIONS {
        if (addition.when.text)(&request).is_empty() {
            continue;
        }
        let value = addition.value.value(&request).map_err(|Missing(setting)| WhyNot::not_ready(setting))?;
        patch.extend(value.map(|value| json!({ "op": "add", "path": addition.pointer(), "value": value })));
    }
    Ok(patch)
}
