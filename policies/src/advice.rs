//! What is to be said of a document that is sound, and hardly means what its author meant. For people, never on a request's
//! way, and nothing is refused for it.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

use crate::{finding::Code, kind::Attached};

/// Says what is odd in a document, given what is around it. A document that is not sound has nothing odd.
pub type Advise = fn(&Attached<Value>, &Surroundings<'_>) -> Vec<Advice>;

/// What is around a document, as far as that is known.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The trust domain of the mesh.
    pub trust_domain: &'a str,
    /// The service accounts of all workloads, each with its namespace first; none when no workload is known.
    pub accounts: &'a BTreeSet<(Arc<str>, Arc<str>)>,
    /// What the document is attached to, in words, when no port of it carries requests.
    pub opaque: Option<&'a str>,
    /// The ports, in words, of workloads that the document covers in part: no document of its kind covers these, and the
    /// default posture lets everyone call them.
    pub open_ports: Option<&'a str>,
    /// The time, in seconds since the Unix epoch.
    pub now: u64,
}

/// Something odd in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What kind of finding it is.
    pub code: Code,
    /// Where it is, as a field of `spec`: `rules[1].from[0].namespaces[2]`.
    pub at: String,
    /// What is odd, and what was expected or probably meant.
    pub message: String,
    /// True for what only tells how something is read.
    pub is_note: bool,
    /// True when what was meant is certain: what the message says to write instead means the same.
    pub is_certain: bool,
}

impl Advice {
    /// Something odd at `at`.
    ///
    /// ```
    /// use selvedge_policies::{advice::Advice, finding::Code};
    ///
    /// let advice = Advice::new(Code::Expired, "expires", "this has expired: expected a later moment");
    /// assert!(!advice.is_note && !advice.is_certain);
    /// ```
    pub fn new(code: Code, at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, at: at.into(), message: message.into(), is_note: false, is_certain: false }
    }
}

/// [`Advise`] of kinds in which nothing is odd.
///
/// ```
/// use selvedge_policies::{
///     advice::{Surroundings, no_advice},
///     kind::Attached,
/// };
///
/// let document = Attached { name: "shop/web".into(), spec: serde_json::json!({}) };
/// let around = Surroundings { trust_domain: "mesh.local", accounts: &Default::default(), opaque: None, open_ports: None, now: 0 };
/// assert!(no_advice(&document, &around).is_empty());
/// ```
pub fn no_advice(_: &Attached<Value>, _: &Surroundings<'_>) -> Vec<Advice> {
    Vec::new()
}
