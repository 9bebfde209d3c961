//! What a change of a document opens and closes. For people, never on a request's way.

use serde_json::Value;

/// Says what one version of a document lets pass that the one before did not, and what not any more; either may be missing.
/// Only the document is looked at, not what others say of the same target.
pub type Weigh = fn(before: Option<&Value>, after: Option<&Value>) -> Weighed;

/// What a change does, as parts of a sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weighed {
    /// What may pass that could not before.
    pub opens: Vec<String>,
    /// What may not pass any more.
    pub closes: Vec<String>,
}

/// [`Weigh`] of kinds by which nobody is let in or kept out.
///
/// ```
/// use selvedge_policies::policy::{Weighed, no_weight};
///
/// assert_eq!(no_weight(None, None), Weighed::default());
/// ```
pub fn no_weight(_: Option<&Value>, _: Option<&Value>) -> Weighed {
    Weighed::default()
}
