//! What is said to whoever writes a pod: of annotations that nobody reads, of values that are ignored, and of what has no
//! effect.

use serde_json::Value;

use crate::{
    annotation::{
        ANNOTATIONS, Annotation, CAPTURE, EXCLUDE_CIDRS, EXCLUDE_INBOUND_PORTS, EXCLUDE_OUTBOUND_PORTS, INBOUND,
        METRICS, OUTBOUND, PREFIX,
    },
    expression::{metrics, probes},
    pod::{self, Request},
    setting::Settings,
    switch::{DISABLED, ENABLED, LABEL},
};

/// A warning and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key of an annotation or a label; empty where it is about the pod.
    pub key: String,
    /// What is the matter, and what to do.
    pub text: String,
}

/// The warnings about a pod or the template of one.
///
/// ```
/// use selvedge_inject::{setting::Settings, warning::warnings};
/// use serde_json::json;
///
/// let pod = json!({ "metadata": { "annotations": { "config.selvedge.dev/worker": "2" } } });
/// let said = warnings(&pod, &Settings::default());
/// assert_eq!(said[0].text, "there is no annotation config.selvedge.dev/worker: did you mean 'workers'?");
/// ```
pub fn warnings(pod: &Value, settings: &Settings) -> Vec<Warning> {
    let request = Request { pod, settings };
    let mut warnings = Vec::new();
    warnings.extend(label(pod));
    for (key, value) in pod::annotations(pod).into_iter().flatten() {
        warnings.extend(key.strip_prefix(PREFIX).and_then(|name| annotation(name, value, &request)));
    }
    let tls = probes::by_tls(&request);
    if !tls.is_empty() {
        let text = format!(
            "{} is probed by HTTPS, which the sidecar cannot tell from other calls: where only the mesh may call \
             (STRICT), such a probe is refused; probe by HTTP, or another port",
            tls.join(", ")
        );
        warnings.push(Warning { key: String::new(), text });
    }
    warnings
}

fn label(pod: &Value) -> Option<Warning> {
    let value = pod::label(pod, LABEL).filter(|value| ![ENABLED, DISABLED].contains(value))?;
    let text = format!("the label {LABEL} is '{value}', which says nothing: expected {ENABLED} or {DISABLED}");
    Some(Warning { key: LABEL.to_owned(), text })
}

fn annotation(name: &str, value: &Value, request: &Request<'_>) -> Option<Warning> {
    let warning = |text: String| Some(Warning { key: format!("{PREFIX}{name}"), text });
    let Some(known) = ANNOTATIONS.iter().find(|known| known.key == name) else {
        return warning(format!("there is no annotation {PREFIX}{name}{}", suggestion(name)));
    };
    let written = value.as_str().unwrap_or_default();
    if !known.form.takes(written) {
        let expects = known.form.expects;
        return warning(format!("{} is '{written}', which is ignored: expected {expects}", known.name()));
    }
    without_effect(known, request).and_then(|why| warning(format!("{} has no effect: {why}", known.name())))
}

/// Why a valid annotation changes nothing.
fn without_effect(known: &Annotation, request: &Request<'_>) -> Option<&'static str> {
    let is = |others: &[&Annotation]| others.iter().any(|other| other.key == known.key);
    let is_none = CAPTURE.of(request) == "none";
    if is(&[&INBOUND, &OUTBOUND]) && !is_none {
        return Some("connections are captured; it is for config.selvedge.dev/capture: none");
    }
    if is(&[&EXCLUDE_INBOUND_PORTS, &EXCLUDE_OUTBOUND_PORTS, &EXCLUDE_CIDRS]) && is_none {
        return Some("nothing is captured (config.selvedge.dev/capture: none)");
    }
    if is(&[&METRICS]) && !metrics::are_found(request.pod) {
        return Some(
            "the annotations prometheus.io/port and prometheus.io/path do not say where the application's metrics are",
        );
    }
    None
}

/// The nearest name there is, or all of them.
fn suggestion(given: &str) -> String {
    let names = ANNOTATIONS.iter().map(|annotation| annotation.key);
    let nearest = names.clone().map(|name| (strsim::damerau_levenshtein(given, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= 1 + name.len() / 4 => format!(": did you mean '{name}'?"),
        _ => format!(": expected one of {}", names.collect::<Vec<_>>().join(", ")),
    }
}
