//! What this release can enforce, as a sidecar lists it when it connects: the words of documents, and what resources say of
//! services beside documents.

use selvedge_policies::registry;
use selvedge_xds::capability::Capabilities;

/// The kind and the word of a service whose calls stay on their node.
pub const STAYS_ON_NODE: (&str, &str) = ("Service", "internalTrafficPolicy=Local");

/// Everything that this release can enforce.
///
/// ```
/// use selvedge_decide::capabilities::{STAYS_ON_NODE, capabilities};
///
/// let (kind, word) = STAYS_ON_NODE;
/// assert!(capabilities().0[kind].contains(word) && capabilities().0["RateLimit"].contains("limits"));
/// ```
pub fn capabilities() -> Capabilities {
    let mut words = registry::vocabulary();
    let (kind, word) = STAYS_ON_NODE;
    words.entry(kind.to_owned()).or_default().insert(word.to_owned());
    Capabilities(words)
}
