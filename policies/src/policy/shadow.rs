//! Rules that make no difference, because another one matches all that they match. For people, never on a request's way.
//!
//! What is found is certain: taken away, the rule would be missed by no request and no connection. What is not found may
//! still be so.

use std::sync::Arc;

use serde_json::Value;

use crate::kind::Attached;

/// Finds the rules that make no difference among documents of a kind that hold for one target. Documents that are not sound
/// have none.
pub type Shadows = fn(&[Attached<Value>]) -> Vec<Shadowed>;

/// A rule that makes no difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// `namespace/name` of its object.
    pub object: Arc<str>,
    /// Where it is written, as a field of `spec`: `rules[1]`.
    pub at: String,
    /// `namespace/name` of the object that has the other rule.
    pub by: Arc<str>,
    /// Where the other rule is written, as a field of the `spec` of that object.
    pub by_at: String,
    /// What the other rule does, in words that follow its name: `matches all that this matches`.
    pub how: &'static str,
}

/// [`Shadows`] of kinds that have no rules, or whose rules all count.
///
/// ```
/// assert!(selvedge_policies::policy::no_shadows(&[]).is_empty());
/// ```
pub fn no_shadows(_: &[Attached<Value>]) -> Vec<Shadowed> {
    Vec::new()
}
