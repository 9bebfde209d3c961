//! What the rules of a document come to for one request. For people, never on a request's way: one condition at a time is
//! asked of what decides, so nothing said here differs from what is decided.

use serde_json::Value;

use crate::{
    facts::{Moment, RequestFacts},
    kind::Attached,
};

/// Looks at each rule of a document, for one request at one time. A document that is not sound has none.
pub type Explain = fn(&Attached<Value>, &RequestFacts<'_>, Moment) -> Vec<Looked>;

/// One rule of a document, looked at for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Where it is written, as a field of `spec`: `rules[1]`.
    pub at: String,
    /// The first condition that fails, as a field of `spec`: `rules[1].from[0].namespaces`. `None` when the rule applies.
    pub fails: Option<String>,
}

/// [`Explain`] of kinds that have no rules to look at.
///
/// ```
/// use selvedge_policies::{
///     kind::Attached,
///     policy::no_rules,
///     testing::{Clock, Request},
/// };
///
/// let document = Attached { name: "shop/web".into(), spec: serde_json::json!({}) };
/// assert!(no_rules(&document, &Request::new("GET", "/").facts(), Clock::default().now()).is_empty());
/// ```
pub fn no_rules(_: &Attached<Value>, _: &RequestFacts<'_>, _: Moment) -> Vec<Looked> {
    Vec::new()
}
