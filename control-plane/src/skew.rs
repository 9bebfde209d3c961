//! What a sidecar of another release is told: a pure function of a resource and of what that sidecar knows.
//!
//! Sidecars and control plane are upgraded at different times, and the control plane may go first. A sidecar says at
//! connect which kinds of documents it knows, and which fields and words of each ([`Capabilities`]); one that says
//! nothing knows those of the last release that did not ask ([`silent`]). A document that says more than that would be
//! refused, and the sidecar would go on with all of the old resource for ever. Instead the resource is translated, one
//! document at a time:
//!
//! - What keeps somebody out stays closed: a DENY, or the authentication of callers, refuses all that it is attached to.
//!   An ALLOW lets nobody pass by itself; others go on.
//! - What lets pass anyway is left out: an AUDIT, a limit, a transformation, a fault.
//! - `onUnsupported: close` refuses where the above would be too little, `keep` keeps the last form the sidecar knew.
//! - Routes and settings keep the last form that the sidecar knew. Where there is none, rules it does not know answer with
//!   an error, as do rules that would take their requests, and settings it does not know are left out. Those of a
//!   `MeshPolicy` have no last form.
//! - A service whose calls are to stay on their node is called on every node.
//! - An endpoint without a sidecar is left out where it would be called in plaintext whatever the outbound mode says.
//!
//! All of it stands in the resource too ([`Unenforceable`]), so that what a sidecar acknowledges says what it does not
//! enforce. A sidecar that knows everything is told everything, byte for byte.
//!
//! [`Unenforceable`]: selvedge_xds::proto::mesh::Unenforceable

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use selvedge_decide::capabilities::capabilities;
use selvedge_xds::{
    capability::Capabilities,
    kinds::{self, DESTINATION, ENDPOINTS, INBOUND},
    proto::discovery::Node,
    resource::Encoded,
};
use serde::{Deserialize, Serialize};

mod closed;
mod document;
mod endpoints;
mod message;

/// Documents as a sidecar took them last, by the object they came from: what holds there while it does not know the newest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forms(BTreeMap<String, Form>);

/// A generation of an object, and its document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Form {
    generation: u64,
    document: String,
}

impl Forms {
    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets objects that are not attached to `resource` any more. True when there were some.
    pub fn forget_detached(&mut self, resource: &Encoded) -> bool {
        let attached = kinds::parts(resource).attached.into_iter().filter_map(|attachment| attachment.origin);
        let attached: BTreeSet<String> = attached.map(|object| kinds::object(&object)).collect();
        let before = self.0.len();
        self.0.retain(|object, _| attached.contains(object));
        self.0.len() < before
    }
}

/// A resource as it is for some sidecars.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// What they are told; `None` when that is the resource as it is.
    pub resource: Option<Encoded>,
    /// The last forms of what is attached to it, for the next time.
    pub forms: Forms,
    /// What they cannot enforce, in words.
    pub complaints: Vec<String>,
}

/// What this control plane can say.
static EVERYTHING: LazyLock<Capabilities> = LazyLock::new(capabilities);

/// Every word that can make a difference: those of this control plane and of the last release that was not asked.
static LANGUAGE: LazyLock<Capabilities> = LazyLock::new(|| {
    let mut all = EVERYTHING.clone();
    for (kind, words) in &OLDEST.enforces {
        all.0.entry(kind.clone()).or_default().extend(words.iter().cloned());
    }
    all
});

/// What of `claimed` makes a difference to what can be said here. Whoever takes any text in a field takes each word of it.
pub fn understood(claimed: &Capabilities) -> Capabilities {
    let known = LANGUAGE.0.iter().filter_map(|(kind, words)| {
        let claimed = claimed.0.get(kind)?;
        let any = |word: &str| word.split_once('=').is_some_and(|(field, _)| claimed.contains(&format!("{field}=*")));
        let of_kind = words.iter().filter(|word| claimed.contains(*word) || any(word));
        Some((kind.clone(), of_kind.cloned().collect()))
    });
    Capabilities(known.collect())
}

/// Whether sidecars that know this can be told everything as it is.
pub fn is_everything(knows: &Capabilities) -> bool {
    knows.include(&EVERYTHING)
}

/// Whether `node` says exactly what a sidecar of this release does. Nearly all of thousands do, and to take apart what each
/// says costs as much as half its handshake.
pub fn says_everything(node: &Node) -> bool {
    EVERYTHING.are_said_by(node)
}

/// What a sidecar knows that can be told everything as it is.
pub fn everything() -> Capabilities {
    EVERYTHING.clone()
}

/// What a sidecar knows that says nothing of it: the documents of the last release that was not asked.
pub fn silent() -> Capabilities {
    Capabilities(OLDEST.enforces.clone())
}

/// The last release that was not asked.
static OLDEST: LazyLock<Oldest> =
    LazyLock::new(|| serde_json::from_str(include_str!("skew/8c95c85.json")).unwrap_or_default());

#[derive(Default, Deserialize)]
struct Oldest {
    /// The kind it refuses calls by.
    authorizes: String,
    /// The kind it routes by.
    routes: String,
    /// The words it knows, by kind of document.
    enforces: BTreeMap<String, BTreeSet<String>>,
}

/// `resource` for sidecars that know this, after `before`.
pub fn tell(resource: &Encoded, knows: &Capabilities, before: &Forms) -> Told {
    let mut translation = message::Translation::new(knows, before);
    let told = match resource.kind {
        DESTINATION => translation.destination(resource),
        INBOUND => translation.inbound(resource),
        ENDPOINTS if knows.0 == OLDEST.enforces => return endpoints::told(resource),
        _ => None,
    };
    translation.end(told)
}
