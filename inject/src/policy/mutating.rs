//! The injector as a MutatingAdmissionPolicy: no server stands on the way of a pod, and nothing has to run for one to start.
//!
//! Every part of the table is a variable. What an addition is becomes an entry of `variables.patch`, a list of plain
//! objects; the mutation only gives them their type, so that all the rest can be evaluated anywhere.

use serde_json::{Value, json};

use crate::{
    annotation::ANNOTATIONS,
    expression::EXPRESSIONS,
    field::{annotation_in_cel, literal, setting_in_cel, variable_of_annotation, variable_of_setting},
    policy::{object, variable},
    setting::{CONFIG_MAP, NAMESPACE, SETTINGS},
    switch::{SYSTEM_NAMESPACES, match_conditions, selectors},
    table::{ADDITIONS, Addition},
};

/// Name of the policy, and what the names of its bindings begin with.
pub const NAME: &str = "selvedge-inject";

/// Gives the entries of `variables.patch` their type.
const MUTATION: &str = "variables.patch.map(p, JSONPatch{op: 'add', path: string(p.path), value: p.value})";

/// The policy and its two bindings. The settings are their parameter: without them a pod that should have a sidecar is
/// refused.
pub fn objects() -> Vec<Value> {
    let policy = object("MutatingAdmissionPolicy", NAME, &spec());
    let bindings = selectors().map(|selectors| {
        let spec = json!({
            "policyName": NAME,
            "paramRef": { "name": CONFIG_MAP, "namespace": NAMESPACE, "parameterNotFoundAction": "Deny" },
            "matchResources": { "namespaceSelector": selectors.namespaces, "objectSelector": selectors.pods },
        });
        object("MutatingAdmissionPolicyBinding", &format!("{NAME}-{}", selectors.suffix), &spec)
    });
    [policy].into_iter().chain(bindings).collect()
}

fn spec() -> Value {
    let outside = json!({ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": SYSTEM_NAMESPACES });
    json!({
        "failurePolicy": "Fail",
        // Containers that others add afterwards have probes too, and must not come before the sidecar.
        "reinvocationPolicy": "IfNeeded",
        "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
        "matchConstraints": {
            "resourceRules": [
                { "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] },
            ],
            "namespaceSelector": { "matchExpressions": [outside] },
        },
        "matchConditions": match_conditions(),
        "variables": variables().iter().map(|(name, cel)| variable(name, cel)).collect::<Vec<_>>(),
        "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": MUTATION } }],
    })
}

/// Every variable of the policy with its expression, each after those that it uses; the last is `patch`.
pub fn variables() -> Vec<(String, String)> {
    let mut variables = vec![
        ("settings".to_owned(), "params[?'data'].orValue(dyn({}))".to_owned()),
        ("annotations".to_owned(), "object[?'metadata'][?'annotations'].orValue(dyn({}))".to_owned()),
    ];
    variables.extend(SETTINGS.iter().map(|setting| (variable_of_setting(setting), setting_in_cel(setting))));
    variables.extend(ANNOTATIONS.iter().map(|known| (variable_of_annotation(known), annotation_in_cel(known))));
    variables.extend(EXPRESSIONS.iter().map(|known| (known.name.to_owned(), known.cel.to_owned())));
    variables.extend(ADDITIONS.iter().map(|addition| (addition.name.to_owned(), addition.value.cel())));
    variables.push(("patch".to_owned(), ADDITIONS.iter().map(entry).collect::<Vec<_>>().join("\n+ ")));
    variables
}

/// A list with the operation of an addition, or an empty one.
fn entry(addition: &Addition) -> String {
    let (when, path, name) = (addition.when.name, literal(&addition.pointer()), addition.name);
    format!("(variables.{when} == '' ? [] : [{{'path': dyn({path}), 'value': dyn(variables.{name})}}])")
}
