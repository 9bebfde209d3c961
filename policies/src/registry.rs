//! The list of kinds: what the control plane checks documents with and the sidecar compiles them with.
//!
//! Whoever adds a kind adds its constant here and nothing anywhere else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    attempt,
    kind::{Attached, Kind, vocabulary},
    policy::{Place, PolicyKind, Posture},
    request::{PolicySet, Unsound, authorize, rate_limit},
    route,
};

/// Every kind that is attached to something.
pub const KINDS: &[&PolicyKind] = &[&authorize::KIND, &rate_limit::KIND, &attempt::KIND, &route::KIND];

/// What every kind says of itself.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().map(|policy| &policy.kind)
}

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static PolicyKind> {
    KINDS.iter().copied().find(|policy| policy.kind.name == name)
}

/// What documents of each kind can say in this version, as [`vocabulary`] has it.
pub fn vocabulary() -> BTreeMap<String, BTreeSet<String>> {
    kinds().map(|kind| (kind.name.to_owned(), vocabulary::of((kind.schema)().as_value()))).collect()
}

/// Compiles what decides at one end of a call, [`Place::Caller`] or [`Place::Called`], given as kind name and document.
/// `before` is the set that was in force there.
///
/// # Errors
/// What is not sound, and what cannot be enforced at this end.
pub fn compile(
    end: Place,
    documents: &[(String, Attached<Value>)],
    posture: Posture,
    before: &PolicySet,
) -> Result<PolicySet, Vec<Unsound>> {
    let acts = |policy: &&&PolicyKind| policy.place == end || policy.place == Place::Both;
    PolicySet::compile(KINDS.iter().filter(acts).copied(), documents, posture, before)
}
