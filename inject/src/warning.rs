//! What is said to whoever writes a pod: of annotations that nobody reads, of values that are ignored, and of what has no
//! effect.

use serde_json::Value;

use crate::{
    annotation::{
        ANNOTATIONS, Annotation, CAPTURE, EXCLUDE_CIDRS, EXCLUDE_INBOUND_PORTS, EXCLUDE_OUTBOUND_PORTS, INBOUND,
        METRICS, OUTBOUND, PREFIX, SCRAPERS, UID,
    },
    expression::{metrics, probes},
    pod::{self, Request},
    setting::Settings,
    switch::{DISABLED, ENABLED, LABEL, SIDECAR},
    table,
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
    let of_pod = [by_tls(&request), same_user(&request)].into_iter().flatten();
    warnings.extend(of_pod.map(|text| Warning { key: String::new(), text }));
    warnings
}

fn by_tls(request: &Request<'_>) -> Option<String> {
    let tls = probes::by_tls(request);
    let text = format!(
        "{} is probed by HTTPS, which the sidecar cannot tell from other calls: where only the mesh may call (STRICT), such \
         a probe is refused; probe by HTTP, or another port",
        tls.join(", ")
    );
    (!tls.is_empty()).then_some(text)
}

/// By its user the sidecar is told apart where connections are captured.
fn same_user(request: &Request<'_>) -> Option<String> {
    let sidecar = UID.of(request).parse::<i64>().ok().filter(|_| CAPTURE.of(request) != "none")?;
    let user = |of: &Value| of.pointer("/securityContext/runAsUser").and_then(Value::as_i64);
    let of_all = request.pod.get("spec").and_then(user);
    let is_same = |container: &&Value| user(container).or(of_all) == Some(sidecar);
    let is_ours = |container: &&Value| [SIDECAR, table::CAPTURE].contains(&pod::text(container, "/name"));
    let same = pod::containers(request.pod).find(|container| !is_ours(container) && is_same(container))?;
    Some(format!(
        "container {} runs as user {sidecar}, as the sidecar does: its connections go past the sidecar; give it another \
         user, or the sidecar by config.selvedge.dev/uid",
        pod::text(same, "/name")
    ))
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
    if is(&[&METRICS, &SCRAPERS]) && (metrics::SCRAPE_TARGET.text)(request).is_empty() {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(annotations: &Value, spec: &Value) -> Vec<String> {
        let pod = json!({ "metadata": { "annotations": annotations }, "spec": spec });
        warnings(&pod, &Settings::default()).into_iter().map(|warning| warning.text).collect()
    }

    #[test]
    fn mistakes_are_named_with_what_to_do() {
        for (annotations, spec, expected) in [
            (json!({ "config.selvedge.dev/cpu-requst": "1" }), json!({}), "did you mean 'cpu-request'?"),
            (json!({ "config.selvedge.dev/sidecar-size": "1" }), json!({}), "expected one of capture, inbound"),
            (
                json!({ "config.selvedge.dev/uid": "root" }),
                json!({}),
                "is 'root', which is ignored: expected a user id",
            ),
            (json!({ "config.selvedge.dev/inbound": "1=2" }), json!({}), "has no effect: connections are captured"),
            (json!({ "config.selvedge.dev/metrics": "merge" }), json!({}), "do not say where"),
            (json!({ "config.selvedge.dev/scrapers": "10.3.0.0/16" }), json!({}), "do not say where"),
            (
                json!({ "config.selvedge.dev/capture": "none", "config.selvedge.dev/exclude-cidrs": "10.0.0.0/8" }),
                json!({}),
                "has no effect: nothing is captured",
            ),
            (
                json!({}),
                json!({ "containers": [{ "name": "web", "livenessProbe": { "httpGet": { "port": 1, "scheme": "HTTPS" } } }] }),
                "port 1 of container web is probed by HTTPS",
            ),
            (
                json!({}),
                json!({ "securityContext": { "runAsUser": 1337 }, "containers": [{ "name": "web" }] }),
                "container web runs as user 1337, as the sidecar does",
            ),
        ] {
            let said = said(&annotations, &spec);
            assert!(said.len() == 1 && said[0].contains(expected), "{expected}: {said:?}");
        }
    }

    #[test]
    fn what_is_meant_as_written_is_not_warned_of() {
        let none = json!({ "config.selvedge.dev/capture": "none", "config.selvedge.dev/inbound": "8443=8080" });
        let own = json!({ "securityContext": { "runAsUser": 1337 }, "containers": [
            { "name": "web", "securityContext": { "runAsUser": 1000 } },
            { "name": "selvedge-proxy", "securityContext": { "runAsUser": 1337 } },
        ] });
        assert_eq!(said(&none, &json!({ "containers": [{ "securityContext": { "runAsUser": 1337 } }] })), [""; 0]);
        assert_eq!(said(&json!({ "team": "shop" }), &own), [""; 0]);
    }
}
