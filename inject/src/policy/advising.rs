//! A ValidatingAdmissionPolicy that warns wherever a pod or its template is written: of annotations that nobody reads, of
//! values that are ignored, and of what the [`crate::advice`] is about; and of a label of a pod or namespace that says
//! nothing. It refuses nothing.

use serde_json::{Value, json};

use crate::{
    advice::{self, ADVICE},
    annotation::{ANNOTATIONS, Annotation, PREFIX},
    cel::literal,
    expression::{self, Expression, listeners, metrics, resources},
    form::shown_in_cel,
    policy::{kind_of_settings, object, settings, settings_and_annotations, variable},
    switch::{CONDITIONS, Condition, DISABLED, ENABLED, LABEL, SIDECAR, SYSTEM_NAMESPACES},
    table,
};

/// Name of the policy and of its binding.
pub const NAME: &str = "selvedge-annotations";

/// A pod, the template of one, or a namespace.
const POD: &str = "object.kind in ['Pod', 'Namespace'] ? dyn(object) \
    : object.kind == 'CronJob' ? dyn(object).spec.jobTemplate.spec.template : dyn(object).spec.template";
/// The annotations are looked at of pods alone: those of a namespace are nobody's business here.
const METADATA_WITH_ANNOTATIONS: &str = "(object.kind == 'Namespace' ? dyn({}) : variables.metadata)";
/// The labels of the namespace that a pod is in.
const AROUND: &str = "object.kind != 'Namespace' && has(namespaceObject.metadata.labels) \
    ? dyn(namespaceObject.metadata.labels) : dyn({})";
/// What counts as the label where there is none; no label can have this value.
const UNLABELLED: &str = "-";

/// Expressions that the advice is made with.
const USED: [&Expression; 4] =
    [&expression::CAPTURE_REQUIRED, &resources::LIMIT_IN_FORCE, &listeners::PORT_TAKEN, &metrics::SCRAPE_TARGET];

/// The policy and its binding. Without the settings nothing is said: no pod gets a sidecar then.
pub fn objects() -> Vec<Value> {
    let binding = json!({ "policyName": NAME, "paramRef": settings(), "validationActions": ["Warn"] });
    vec![object("ValidatingAdmissionPolicy", NAME, &spec()), object("ValidatingAdmissionPolicyBinding", NAME, &binding)]
}

fn spec() -> Value {
    let rule = |group: &str, resources: &[&str]| {
        json!({
            "apiGroups": [group],
            "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"],
            "resources": resources,
        })
    };
    json!({
        "failurePolicy": "Ignore",
        "paramKind": kind_of_settings(),
        "matchConstraints": { "resourceRules": [
            rule("", &["pods", "namespaces"]),
            rule("apps", &["deployments", "statefulsets", "daemonsets", "replicasets"]),
            rule("batch", &["jobs", "cronjobs"]),
        ] },
        "variables": variables().iter().map(|(name, cel)| variable(name, cel)).collect::<Vec<_>>(),
        "validations": validations(),
    })
}

/// The variables of the policy with their expressions, each after those that it uses.
pub fn variables() -> Vec<(String, String)> {
    let named = |name: &str, cel: String| (name.to_owned(), cel);
    let ours = [SIDECAR, table::CAPTURE].map(literal).join(", ");
    let list = |of: &str| format!("variables.spec[?'{of}'].orValue(dyn([]))");
    let (containers, init) = (list("containers"), list("initContainers"));
    let of_pod = [
        named("pod", POD.to_owned()),
        named("metadata", "variables.pod[?'metadata'].orValue(dyn({}))".to_owned()),
        named("spec", "variables.pod[?'spec'].orValue(dyn({}))".to_owned()),
        named("containers", format!("({containers} + {init}).filter(c, !(c.name in [{ours}]))")),
        named("around", AROUND.to_owned()),
        named("label", format!("variables.metadata[?'labels'][?{}].orValue({})", literal(LABEL), literal(UNLABELLED))),
    ];
    let expressions = USED.into_iter().chain(advice::EXPRESSIONS).map(|known| named(known.name, known.cel.to_owned()));
    let told = conditions().map(of_pod_in_variables).collect::<Vec<_>>().join(" && ");
    of_pod
        .into_iter()
        .chain(settings_and_annotations(METADATA_WITH_ANNOTATIONS))
        .chain(expressions)
        .chain([named("unknown", unknown()), named("asks", asks()), named("gets", format!("variables.asks && {told}"))])
        .collect()
}

/// The keys of annotations that there are none of.
fn unknown() -> String {
    let known: Vec<String> = ANNOTATIONS.iter().map(|annotation| literal(&annotation.name())).collect();
    format!(
        "variables.annotations.map(key, key).filter(key, key.startsWith({}) && !(key in [{}]))",
        literal(PREFIX),
        known.join(", ")
    )
}

/// Whether a pod should have a sidecar by the labels, as the bindings of the policy that injects have it.
fn asks() -> String {
    let (label, enabled, disabled) = (literal(LABEL), literal(ENABLED), literal(DISABLED));
    let outside: Vec<String> = SYSTEM_NAMESPACES.iter().map(|name| literal(name)).collect();
    format!(
        "object.kind != 'Namespace' && !(request.namespace in [{}]) && (variables.label == {enabled} \
         || variables.label != {disabled} && variables.around[?{label}].orValue('') == {enabled})",
        outside.join(", ")
    )
}

/// The conditions that are told of where they leave a pod alone.
fn conditions() -> impl Iterator<Item = &'static Condition> {
    CONDITIONS.into_iter().filter(|condition| condition.is_told)
}

/// A condition, of the pod in an object.
fn of_pod_in_variables(condition: &Condition) -> String {
    condition.cel.replace("object.spec", "variables.spec")
}

/// The validations: one for the label, one for keys, one for the value of each, and one for each advice.
pub fn validations() -> Vec<Value> {
    let names: Vec<&str> = ANNOTATIONS.iter().map(|annotation| annotation.key).collect();
    let known = format!(" (known after {PREFIX}: {})", names.join(", "));
    let unknown = json!({
        "expression": "variables.unknown.size() == 0",
        "messageExpression":
            format!("'there is no annotation ' + variables.unknown.join(', ') + {}", literal(&known)),
    });
    let label = json!({
        "expression": format!("variables.label in [{}, {}, {}]", literal(UNLABELLED), literal(ENABLED), literal(DISABLED)),
        "messageExpression": format!(
            "{} + variables.label + {}",
            literal(&format!("the label {LABEL} is '")),
            literal(&format!("', which says nothing: expected {ENABLED} or {DISABLED}")),
        ),
    });
    let values = ANNOTATIONS.iter().map(|annotation| of_value(annotation));
    let advice = ADVICE.iter().map(|advice| {
        let (holds, said) = advice.cel();
        json!({ "expression": format!("!variables.gets || !({holds})"), "messageExpression": said })
    });
    let conditions = conditions().map(|condition| {
        json!({
            "expression": format!("!variables.asks || ({})", of_pod_in_variables(condition)),
            "messageExpression": literal(&format!("no sidecar is put into this pod: {}", condition.why)),
        })
    });
    [label, unknown].into_iter().chain(values).chain(conditions).chain(advice).collect()
}

/// A message on one line: an API server has no other.
fn of_value(annotation: &Annotation) -> Value {
    let key = literal(&annotation.name());
    let value = format!("variables.annotations[{key}]");
    let (before, behind) = annotation.ignored();
    json!({
        "expression": format!("!({key} in variables.annotations) || {}", annotation.form.cel(&value)),
        "messageExpression": format!("{} + {} + {}", literal(&before), shown_in_cel(&value), literal(&behind)),
    })
}
