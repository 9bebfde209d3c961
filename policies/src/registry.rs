//! The list of kinds: what the control plane checks documents with and the sidecar compiles them with.
//!
//! Whoever adds a kind adds its constant here and nothing anywhere else by hand: `registry/words.txt` is made from it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    attempt,
    kind::{Attached, Kind},
    policy::{Place, PolicyKind, Posture},
    request::{PolicySet, Unsound, authorize, fault_injection, rate_limit},
    route,
};

/// Every kind that is attached to something.
pub const KINDS: &[&PolicyKind] =
    &[&authorize::KIND, &rate_limit::KIND, &fault_injection::KIND, &attempt::KIND, &route::KIND];

/// What every kind says of itself.
///
/// ```
/// assert!(selvedge_policies::registry::kinds().any(|kind| kind.name == "RateLimit"));
/// ```
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().map(|policy| &policy.kind)
}

/// The kind of this name, if it is attached to something.
///
/// ```
/// use selvedge_policies::registry;
/// use serde_json::json;
///
/// let kind = registry::find("RateLimit").unwrap().kind;
/// let problems = (kind.check)(&json!({ "limits": [{ "requests": 0, "per": "1s" }] }));
/// assert_eq!(problems[0].path, "limits[0].requests");
/// assert!(registry::find("RateLimits").is_none());
/// ```
pub fn find(name: &str) -> Option<&'static PolicyKind> {
    KINDS.iter().copied().find(|policy| policy.kind.name == name)
}

/// The words of each kind, and of settings, a line each: the kind and the word.
///
/// Kept as text, because every sidecar lists them when it starts, and making them from the schemas runs code that a
/// sidecar needs for nothing else: it costs memory for as long as the process lives.
const WORDS: &str = include_str!("registry/words.txt");

/// What documents of each kind, and settings, can say in this version, as [`kind::vocabulary`](mod@crate::kind::vocabulary) has it.
///
/// ```
/// let words = selvedge_policies::registry::vocabulary();
/// assert!(words["AuthorizationPolicy"].contains("action=AUDIT"));
/// ```
pub fn vocabulary() -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for (kind, word) in WORDS.lines().filter_map(|line| line.split_once(' ')) {
        all.entry(kind.to_owned()).or_default().insert(word.to_owned());
    }
    all
}

/// Compiles what decides at one end of a call, [`Place::Caller`] or [`Place::Called`], given as kind name and document.
/// `before` is the set that was in force there.
///
/// # Errors
/// What is not sound, and what cannot be enforced at this end.
///
/// ```
/// use selvedge_policies::{
///     kind::Attached,
///     policy::{Place, Posture},
///     reason::Reason,
///     registry,
///     request::PolicySet,
///     testing::{Clock, Request},
///     verdict::Verdict,
/// };
/// use serde_json::json;
///
/// let spec = json!({ "action": "ALLOW", "rules": [{ "from": [{ "serviceAccounts": ["shop/ui"] }] }] });
/// let document = ("AuthorizationPolicy".to_owned(), Attached { name: "shop/web".into(), spec });
/// let set = registry::compile(Place::Called, &[document], Posture::Deny, &PolicySet::new()).unwrap();
///
/// let mut context = Clock::default().context();
/// let request = Request::new("GET", "/cart").from("shop/ui");
/// assert!(matches!(set.on_request(&request.facts(), &mut context), Verdict::Continue));
///
/// let stranger = Request::new("GET", "/cart").from("shop/reports");
/// let Verdict::Answer(answer) = set.on_request(&stranger.facts(), &mut context) else { panic!("it passes") };
/// assert_eq!(answer.reason, Some(Reason::PolicyDefaultDeny));
/// ```
pub fn compile(
    end: Place,
    documents: &[(String, Attached<Value>)],
    posture: Posture,
    before: &PolicySet,
) -> Result<PolicySet, Vec<Unsound>> {
    let acts = |policy: &&&PolicyKind| policy.place == end || policy.place == Place::Both;
    PolicySet::compile(KINDS.iter().filter(acts).copied(), documents, posture, before)
}
