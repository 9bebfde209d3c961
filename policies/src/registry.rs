//! Every policy kind by name: what the control plane checks documents with and the sidecar compiles them with.

use serde_json::Value;

use crate::{
    attempt,
    kind::{Attached, Kind, Problem},
    request::{Posture, REQUEST_POLICIES, RequestPolicy},
    route,
};

/// The kinds that are no request policies.
const OTHERS: &[&Kind] = &[&attempt::KIND, &route::KIND];

/// Every kind.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    REQUEST_POLICIES.iter().map(|policy| &policy.kind).chain(OTHERS.iter().copied())
}

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static Kind> {
    kinds().find(|kind| kind.name == name)
}

/// Compiles the request policies attached to one target, given as kind name and document, into the policies that decide,
/// in the order in which they do. Documents of kinds of other families are passed over.
pub fn compile_request(
    attached: &[(String, Attached<Value>)],
    posture: Posture,
) -> Result<Vec<Box<dyn RequestPolicy>>, Vec<Problem>> {
    let (mut compiled, mut problems) = (Vec::new(), Vec::new());
    for policy in REQUEST_POLICIES {
        let of_kind = attached.iter().filter(|(kind, _)| kind == policy.kind.name);
        let mut documents: Vec<Attached<Value>> = of_kind.map(|(_, document)| document.clone()).collect();
        documents.sort_by(|a, b| a.name.cmp(&b.name));
        match (policy.compile)(&documents, posture, None) {
            Ok(decides) => compiled.extend(decides),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(compiled) } else { Err(problems) }
}
