//! A ValidatingAdmissionPolicy that refuses a pod that should have a sidecar and has none, in plain words. Where the mesh is
//! not ready, [`mutating`] has put these into the pod.

use serde_json::{Value, json};

use crate::{
    cel::literal,
    policy::{bindings, mutating, object, pods},
    setting::{self, KIND, NAMESPACE},
    switch::{CONDITIONS, NOT_INJECTED},
    table::STATUS,
};

/// Name of the policy, and what the names of its bindings begin with.
pub const NAME: &str = mutating::NAME;

/// The policy and its two bindings.
pub fn objects() -> Vec<Value> {
    let policy = object("ValidatingAdmissionPolicy", NAME, &spec());
    let binding = json!({ "policyName": NAME, "validationActions": ["Deny"] });
    [policy].into_iter().chain(bindings("ValidatingAdmissionPolicyBinding", &binding)).collect()
}

fn spec() -> Value {
    let others = CONDITIONS.iter().filter(|condition| condition.name != NOT_INJECTED.name);
    let conditions = others.map(|condition| json!({ "name": condition.name, "expression": condition.cel }));
    json!({
        "failurePolicy": "Fail",
        "matchConstraints": pods(),
        "matchConditions": conditions.collect::<Vec<_>>(),
        "validations": [validation()],
    })
}

/// That a pod has a sidecar.
pub fn validation() -> Value {
    let nobody = format!(
        "mesh not ready: nothing has put a sidecar into this pod; see whether the control plane runs, which writes the {KIND} \
         {NAMESPACE}/{}, and whether the MutatingAdmissionPolicy {} is there, or install Selvedge again",
        setting::NAME,
        mutating::NAME
    );
    let status = format!("object.metadata[?'annotations'][?{}].orValue('')", literal(STATUS));
    json!({
        "expression": format!("!({})", NOT_INJECTED.cel),
        "messageExpression":
            format!("[{status}].map(why, why.startsWith('mesh not ready: ') ? why : {})[0]", literal(&nobody)),
        "reason": "Forbidden",
    })
}
