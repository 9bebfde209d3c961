//! What is odd in an `AuthorizationPolicy` that is sound.

use serde_json::Value;

use super::{Action, AuthorizationPolicySpec, close};
use crate::{
    advice::{Advice, Surroundings},
    finding::Code,
    kind::{self, Attached},
    matching::{advise, operation::Operation},
    timestamp::{is_soon, unix_seconds},
};

/// Everything odd in one document.
pub(super) fn advise(document: &Attached<Value>, around: &Surroundings<'_>) -> Vec<Advice> {
    let policies = kind::parse_all::<AuthorizationPolicySpec>(std::slice::from_ref(document), close);
    policies.into_iter().flatten().flat_map(|policy| of(&policy, around)).collect()
}

fn of(policy: &Attached<AuthorizationPolicySpec>, around: &Surroundings<'_>) -> Vec<Advice> {
    let allows = policy.spec.action == Action::Allow;
    let at_opaque = if allows { "this rule lets nobody pass" } else { "this rule matches every connection" };
    let mut advice: Vec<Advice> = expiry(&policy.spec, around.now).into_iter().collect();
    if let (true, Some(ports)) = (allows, around.open_ports) {
        let message = format!(
            "this closes the ports of the Service alone, and {ports} stays open to everyone: expected a policy for them too, \
             for the namespace or the Workload, or a default posture of deny"
        );
        advice.push(Advice::new(Code::OpenPort, "targetRef", message));
    }
    for (n, rule) in policy.spec.rules.iter().enumerate() {
        let at = format!("rules[{n}]");
        advice.extend(advise::of_rule(rule, &policy.name, &at, at_opaque, around));
        for operation in rule.to.iter().filter(|_| allows && rule.from.is_empty()) {
            advice.extend(all_but(operation).map(|but| {
                let message = format!(
                    "this lets everyone call everything but {but}, callers without an identity too: expected who may call in \
                     'from', or what in 'paths' and 'methods'"
                );
                Advice::new(Code::AllowAll, at.clone(), message)
            }));
        }
        if allows && rule.from.is_empty() && rule.to.is_empty() {
            let message = "this lets everyone call everything, callers without an identity too: expected who may call in \
                           'from', or from: [{ipBlocks: [0.0.0.0/0, '::/0']}] where everyone is meant";
            advice.push(Advice::new(Code::AllowAll, at, message));
        }
    }
    advice
}

/// What an operation leaves out, in words, when that is all that it says.
fn all_but(operation: &Operation) -> Option<String> {
    let left_out = Operation {
        not_methods: operation.not_methods.clone(),
        not_paths: operation.not_paths.clone(),
        not_hosts: operation.not_hosts.clone(),
        not_ports: operation.not_ports.clone(),
        absent_headers: operation.absent_headers.clone(),
        ..Operation::default()
    };
    let ports = left_out.not_ports.iter().map(|port| format!("port {port}"));
    let headers = left_out.absent_headers.iter().map(|name| format!("requests with {name}"));
    let texts = [&left_out.not_methods, &left_out.not_paths, &left_out.not_hosts].into_iter().flatten().cloned();
    (left_out == *operation).then(|| texts.chain(ports).chain(headers).collect::<Vec<_>>().join(", "))
}

/// What is to be said of the moment from which the rules match nothing.
fn expiry(spec: &AuthorizationPolicySpec, now: u64) -> Option<Advice> {
    let written = spec.expires.as_deref()?;
    let expires = unix_seconds(written).ok()?;
    let (then, since) = match spec.action {
        Action::Allow => ("lets nobody pass and what it covers stays closed", "lets nobody pass any more"),
        Action::Deny => ("refuses nothing any more: what it closed opens", "refuses nothing any more"),
        Action::Audit => ("notes nothing any more", "notes nothing any more"),
    };
    let (code, message) = if expires <= now {
        let message =
            format!("this has expired, so the policy {since}: expected a later moment, or the policy removed");
        (Code::Expired, message)
    } else if is_soon(expires, now) {
        (Code::ExpiresSoon, format!("from then on the policy {then}: expected a later moment, or none"))
    } else {
        return None;
    };
    Some(Advice::new(code, "expires", message))
}
