//! The injector as a MutatingAdmissionPolicy: no server stands on the way of a pod, and nothing has to run for one to start.
//!
//! Every part of the table is a variable. What an addition is becomes an entry of `variables.patch`, a list of plain
//! objects; the mutation only gives them their type, so that all the rest can be evaluated anywhere.
//!
//! What is refused by an expression is told of with the expression before it. So where the mesh is not ready, nothing is put
//! in but why, and [`requiring`](crate::policy::requiring) refuses the pod with these words.

use serde_json::{Value, json};

use crate::{
    cel::literal,
    expression::EXPRESSIONS,
    policy::{bindings, kind_of_settings, object, pods, settings, settings_and_annotations, variable},
    readiness::{self, NOT_READY},
    switch::match_conditions,
    table::{ADDITIONS, Addition, ROOM_FOR_ANNOTATIONS, STATUS},
};

/// Name of the policy, and what the names of its bindings begin with.
pub const NAME: &str = "selvedge-inject";

/// Gives the entries of `variables.patch` their type.
const MUTATION: &str = "variables.patch.map(p, JSONPatch{op: 'add', path: string(p.path), value: p.value})";

/// The policy and its two bindings. The settings are their parameter; where there are none, nothing is put in.
pub fn objects() -> Vec<Value> {
    let policy = object("MutatingAdmissionPolicy", NAME, &spec());
    let bindings = bindings("MutatingAdmissionPolicyBinding", &json!({ "policyName": NAME, "paramRef": settings() }));
    [policy].into_iter().chain(bindings).collect()
}

fn spec() -> Value {
    json!({
        // What cannot be evaluated puts nothing in, and the policy that requires a sidecar refuses the pod. With `Fail`, an API
        // server that does not know the kind of the settings yet would refuse every pod there is.
        "failurePolicy": "Ignore",
        // Containers that others add afterwards have probes too, and must not come before the sidecar.
        "reinvocationPolicy": "IfNeeded",
        "paramKind": kind_of_settings(),
        "matchConstraints": pods(),
        "matchConditions": match_conditions(),
        "variables": variables().iter().map(|(name, cel)| variable(name, cel)).collect::<Vec<_>>(),
        "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": MUTATION } }],
    })
}

/// Every variable of the policy with its expression, each after those that it uses; the last is `patch`.
pub fn variables() -> Vec<(String, String)> {
    let mut variables = settings_and_annotations("object[?'metadata']");
    variables.extend(EXPRESSIONS.iter().map(|known| (known.name.to_owned(), known.cel.to_owned())));
    variables.push((NOT_READY.to_owned(), readiness::cel()));
    variables.extend(ADDITIONS.iter().map(|addition| (addition.name.to_owned(), addition.value.cel())));
    variables.push(("patch".to_owned(), patch()));
    variables
}

/// Everything that is added; where the mesh is not ready, only the status, which then says why.
fn patch() -> String {
    let sum = |parts: Vec<String>| parts.join("\n+ ");
    let status = ADDITIONS.iter().filter(|addition| addition.key == STATUS);
    let why = status.map(|status| operation(status, NOT_READY));
    let told = ADDITIONS[..ROOM_FOR_ANNOTATIONS].iter().map(entry).chain(why.map(|why| format!("[{why}]")));
    format!("variables.{NOT_READY} != '' ? {}\n: {}", sum(told.collect()), sum(ADDITIONS.iter().map(entry).collect()))
}

/// A list with the operation of an addition, or an empty one.
fn entry(addition: &Addition) -> String {
    format!("(variables.{} == '' ? [] : [{}])", addition.when.name, operation(addition, addition.name))
}

/// The operation of an addition, with the value of a variable.
fn operation(addition: &Addition, variable: &str) -> String {
    format!("{{'path': dyn({}), 'value': dyn(variables.{variable})}}", literal(&addition.pointer()))
}
