//! What is said to whoever writes a pod: of annotations that nobody reads, of values that are ignored, and what there is of
//! [`advice`](crate::advice).

use serde_json::Value;

use crate::{
    advice::ADVICE,
    annotation::{ANNOTATIONS, Annotation, PREFIX},
    form::shown,
    pod::{self, Namespace, Request},
    setting::Settings,
    switch::{self, DISABLED, ENABLED, LABEL},
};

/// A warning and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key of an annotation or a label; empty where it is about the pod.
    pub key: String,
    /// What is the matter, and what to do.
    pub text: String,
}

/// The warnings about a pod or the template of one, which is in this namespace or to be created there.
///
/// ```
/// use selvedge_inject::{pod::Namespace, setting::Settings, warning::warnings};
/// use serde_json::json;
///
/// let pod = json!({ "metadata": { "annotations": { "config.selvedge.dev/worker": "2" } } });
/// let said = warnings(&pod, &Namespace::default(), &Settings::default());
/// assert_eq!(said[0].text, "there is no annotation config.selvedge.dev/worker: did you mean 'workers'?");
/// ```
pub fn warnings(pod: &Value, namespace: &Namespace, settings: &Settings) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = label(pod).into_iter().chain(misspelt(pod)).collect();
    let written = ANNOTATIONS.iter().filter_map(|known| Some((known, pod::annotations(pod)?.get(&known.name())?)));
    warnings.extend(written.filter_map(|(known, value)| ignored(known, value)));
    if switch::decide(pod, namespace).is_ok() {
        let request = Request { pod, namespace, settings };
        let key = |about: &Annotation| about.name();
        let advice = ADVICE.iter().filter_map(|advice| Some((advice.about.map(key), advice.text(&request)?)));
        warnings.extend(advice.map(|(key, text)| Warning { key: key.unwrap_or_default(), text }));
    }
    warnings
}

/// The warnings about annotations that there are none of, each with the one that is meant. Of all that there is to say only
/// this cannot be said in CEL.
pub fn misspelt(pod: &Value) -> impl Iterator<Item = Warning> {
    let keys = pod::annotations(pod).into_iter().flatten().map(|(key, _)| key);
    let unknown = keys.filter_map(|key| Some((key, key.strip_prefix(PREFIX)?)));
    let unknown = unknown.filter(|(_, name)| ANNOTATIONS.iter().all(|known| known.key != *name));
    unknown.map(|(key, name)| Warning {
        key: key.clone(),
        text: format!("there is no annotation {PREFIX}{}{}", shown(name), suggestion(name)),
    })
}

fn label(pod: &Value) -> Option<Warning> {
    let value = pod::label(pod, LABEL).filter(|value| ![ENABLED, DISABLED].contains(value))?;
    let text = format!("the label {LABEL} is '{value}', which says nothing: expected {ENABLED} or {DISABLED}");
    Some(Warning { key: LABEL.to_owned(), text })
}

fn ignored(known: &Annotation, value: &Value) -> Option<Warning> {
    let written = value.as_str().unwrap_or_default();
    let (before, behind) = known.ignored();
    (!known.form.takes(written)).then(|| Warning { key: known.name(), text: before + &shown(written) + &behind })
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
        let labels = json!({ LABEL: ENABLED, "pod-security.kubernetes.io/enforce": "privileged" });
        let namespace = Namespace { name: "shop".to_owned(), labels: labels.as_object().unwrap().clone() };
        warnings(&pod, &namespace, &Settings::default()).into_iter().map(|warning| warning.text).collect()
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
