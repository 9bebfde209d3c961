//! A ValidatingAdmissionPolicy that warns of annotations that nobody reads and of values that are ignored, wherever a pod
//! or its template is written, and of a label of a pod or namespace that says nothing. It refuses nothing.

use serde_json::{Value, json};

use crate::{
    annotation::{ANNOTATIONS, Annotation, PREFIX},
    field::literal,
    policy::{object, variable},
    switch::{DISABLED, ENABLED, LABEL},
};

/// Name of the policy and of its binding.
pub const NAME: &str = "selvedge-annotations";

/// The metadata of a pod, of the template of one, or of a namespace.
const METADATA: &str = "object.kind in ['Pod', 'Namespace'] ? dyn(object).metadata \
    : object.kind == 'CronJob' ? dyn(object).spec.jobTemplate.spec.template[?'metadata'].orValue(dyn({})) \
    : dyn(object).spec.template[?'metadata'].orValue(dyn({}))";
/// The annotations, of which those of a namespace are nobody's business here.
const WRITTEN: &str = "object.kind == 'Namespace' ? dyn({}) : variables.metadata[?'annotations'].orValue(dyn({}))";

/// The policy and its binding.
pub fn objects() -> Vec<Value> {
    let binding = json!({ "policyName": NAME, "validationActions": ["Warn"] });
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
pub fn variables() -> [(&'static str, String); 4] {
    let known: Vec<String> = ANNOTATIONS.iter().map(|annotation| literal(&annotation.name())).collect();
    let unknown = format!(
        "variables.annotations.map(key, key).filter(key, key.startsWith({}) && !(key in [{}]))",
        literal(PREFIX),
        known.join(", ")
    );
    // An absent label says nothing wrong, as `disabled` does.
    let label = format!("variables.metadata[?'labels'][?{}].orValue({})", literal(LABEL), literal(DISABLED));
    [("metadata", METADATA.to_owned()), ("annotations", WRITTEN.to_owned()), ("unknown", unknown), ("label", label)]
}

/// The validations: one for the label, one for keys, and one for the value of each.
pub fn validations() -> Vec<Value> {
    let names: Vec<&str> = ANNOTATIONS.iter().map(|annotation| annotation.key).collect();
    let known = format!(" (known after {PREFIX}: {})", names.join(", "));
    let unknown = json!({
        "expression": "variables.unknown.size() == 0",
        "messageExpression":
            format!("'there is no annotation ' + variables.unknown.join(', ') + {}", literal(&known)),
    });
    let label = json!({
        "expression": format!("variables.label in [{}, {}]", literal(ENABLED), literal(DISABLED)),
        "messageExpression": format!(
            "{} + variables.label + {}",
            literal(&format!("the label {LABEL} is '")),
            literal(&format!("', which says nothing: expected {ENABLED} or {DISABLED}")),
        ),
    });
    [label, unknown].into_iter().chain(ANNOTATIONS.iter().map(|annotation| of_value(annotation))).collect()
}

/// A message on one line: an API server has no other.
fn of_value(annotation: &Annotation) -> Value {
    let (name, pattern) = (annotation.name(), annotation.form.pattern());
    let key = literal(&name);
    let ignored = format!("', which is ignored: expected {}", annotation.form.expects);
    json!({
        "expression": format!("!({key} in variables.annotations) || variables.annotations[{key}].matches({})", literal(&pattern)),
        "messageExpression": format!("{} + variables.annotations[{key}].replace('\\n', ' ') + {}", literal(&format!("{name} is '")), literal(&ignored)),
    })
}
