//! A ValidatingAdmissionPolicy that warns of annotations that nobody reads and of values that are ignored, wherever a pod
//! or its template is written. It refuses nothing.

use serde_json::{Value, json};

use crate::{
    annotation::{ANNOTATIONS, Annotation, PREFIX},
    field::literal,
    policy::{object, variable},
};

/// Name of the policy and of its binding.
pub const NAME: &str = "selvedge-annotations";

/// The annotations of a pod, or of the template of one.
const WRITTEN: &str = "object.kind == 'Pod' ? dyn(object).metadata[?'annotations'].orValue(dyn({})) \
    : object.kind == 'CronJob' ? dyn(object).spec.jobTemplate.spec.template[?'metadata'][?'annotations'].orValue(dyn({})) \
    : dyn(object).spec.template[?'metadata'][?'annotations'].orValue(dyn({}))";

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
            rule("", &["pods"]),
            rule("apps", &["deployments", "statefulsets", "daemonsets", "replicasets"]),
            rule("batch", &["jobs", "cronjobs"]),
        ] },
        "variables": variables().iter().map(|(name, cel)| variable(name, cel)).collect::<Vec<_>>(),
        "validations": validations(),
    })
}

/// The variables of the policy with their expressions, each after those that it uses.
pub fn variables() -> [(&'static str, String); 2] {
    let known: Vec<String> = ANNOTATIONS.iter().map(|annotation| literal(&annotation.name())).collect();
    let unknown = format!(
        "variables.annotations.map(key, key).filter(key, key.startsWith({}) && !(key in [{}]))",
        literal(PREFIX),
        known.join(", ")
    );
    [("annotations", WRITTEN.to_owned()), ("unknown", unknown)]
}

/// The validations: one for keys, and one for the value of each.
pub fn validations() -> Vec<Value> {
    let names: Vec<&str> = ANNOTATIONS.iter().map(|annotation| annotation.key).collect();
    let known = format!(" (known after {PREFIX}: {})", names.join(", "));
    let unknown = json!({
        "expression": "variables.unknown.size() == 0",
        "messageExpression":
            format!("'there is no annotation ' + variables.unknown.join(', ') + {}", literal(&known)),
    });
    [unknown].into_iter().chain(ANNOTATIONS.iter().map(|annotation| of_value(annotation))).collect()
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
