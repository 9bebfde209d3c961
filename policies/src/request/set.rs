//! The policies of one port or destination: the only place where they are compiled and asked.
//!
//! Guarantees:
//! - Phases follow one another, and within one the kinds by name; the first policy that does not continue decides.
//! - A kind whose documents are the same as before stays the same policy, with its live state; one whose documents have
//!   changed is handed the policy before, so that the parts that are the same keep theirs.
//! - A document that cannot be enforced here is an error that names it; what is in force instead its reader says, by
//!   [`PolicySet::refusing`] where it may not be left out.

use std::{any::Any, sync::Arc};

use http::HeaderMap;
use serde_json::Value;

use crate::{
    context::Context,
    facts::{AttemptFacts, ConnectionFacts, Moment, RequestFacts, ResponseFacts, Section},
    kind::{Attached, Problem},
    names,
    policy::{Compile, Needs, Phase, PolicyKind, Posture, RequestPolicy, Role},
    verdict::{Answer, Verdict},
};

use super::unenforceable::Unenforceable;

/// Policies in the order in which they decide.
///
/// ```
/// use selvedge_policies::{
///     kind::Attached,
///     policy::{Place, Posture},
///     registry,
///     request::PolicySet,
///     testing::{Clock, Request},
///     verdict::Verdict,
/// };
/// use serde_json::json;
///
/// let document = |kind: &str, spec| (kind.to_owned(), Attached { name: "shop/web".into(), spec });
/// let documents = [
///     document("RateLimit", json!({ "limits": [{ "requests": 1, "per": "1h" }] })),
///     document("AuthorizationPolicy", json!({ "action": "ALLOW", "expires": "2030-01-01T00:00:00Z", "rules": [{}] })),
/// ];
/// let set = registry::compile(Place::Called, &documents, Posture::Deny, &PolicySet::new()).unwrap();
/// assert_eq!(set.kinds().collect::<Vec<_>>(), ["AuthorizationPolicy", "RateLimit"]);
/// let (request, clock) = (Request::new("GET", "/"), Clock::default());
/// let passes = |set: &PolicySet| set.on_request(&request.facts(), &mut clock.context()) == Verdict::Continue;
/// assert_eq!([passes(&set), passes(&set), passes(&set.afresh())], [true, false, true], "a limit counts");
/// assert_eq!(set.next_expiry(clock.now()), Some(1_893_456_000));
/// assert_eq!(set.on_open_request(&request.facts(), &mut clock.context()), None);
/// assert_eq!(set.on_open_connection(&request.connection(), &mut clock.context()), None, "what is open was counted");
/// assert!(!passes(&PolicySet::new().refusing(["shop/unknown".into()])) && PolicySet::new().is_empty());
/// ```
///
/// Tries and responses are decided on, and sections made clean, only where a policy [needs](Self::needs) it:
///
/// ```
/// use http::{HeaderMap, Method, StatusCode};
/// use selvedge_policies::{
///     facts::{AttemptFacts, ResponseFacts, Section},
///     request::PolicySet,
///     testing::{Clock, Request},
///     verdict::Verdict,
/// };
///
/// let set = PolicySet::of([]).and([]);
/// let (request, mut context) = (Request::new("GET", "/"), Clock::default().context());
/// assert!(!set.needs().attempts && !set.needs().responses);
/// let attempt = AttemptFacts { number: 0, service: "shop/web", workload: "web-1" };
/// assert_eq!(set.on_attempt(&request.facts(), &attempt, &mut context), Verdict::Continue);
/// let mut headers = HeaderMap::new();
/// set.sanitize(Section::Header(request.facts().peer), &mut headers);
/// let (status, method) = (StatusCode::OK, &Method::GET);
/// let response = ResponseFacts { status, headers: &headers, reason: None, method, route: "" };
/// assert_eq!(set.on_response(&response, &mut context), Verdict::Continue);
/// assert_eq!(set.on_connection(&request.connection(), &mut context), Verdict::Continue);
/// assert!(!set.replaced(&PolicySet::new(), &mut context), "nobody waits who would have to know");
/// ```
#[derive(Clone, Default)]
pub struct PolicySet {
    members: Vec<Member>,
    needs: Needs,
}

#[derive(Clone)]
struct Member {
    kind: &'static str,
    /// The posture and documents it was made of.
    source: String,
    policy: Arc<dyn RequestPolicy>,
}

/// Why documents cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsound {
    /// The kind of the documents.
    pub kind: String,
    /// What is wrong, each with the name of its object.
    pub problems: Vec<Problem>,
}

impl PolicySet {
    /// A set without policies: everything passes.
    pub const fn new() -> Self {
        let needs = Needs {
            requests: false,
            paths: false,
            server_name: false,
            body: 0,
            attempts: false,
            responses: false,
            sanitizes: false,
        };
        Self { members: Vec::new(), needs }
    }

    /// Compiles documents, given with the name of their kind, by `kinds`. Each kind is compiled, also one without
    /// documents: that may be what the posture is about. `before` is the set that was in force for the same target.
    ///
    /// # Errors
    /// Every kind of which a document is not sound, and every document whose kind is not among `kinds`.
    pub(crate) fn compile<'a>(
        kinds: impl Iterator<Item = &'a PolicyKind>,
        documents: &[(String, Attached<Value>)],
        posture: Posture,
        before: &Self,
    ) -> Result<Self, Vec<Unsound>> {
        let mut deciding: Vec<_> = kinds.filter_map(deciding).collect();
        deciding.sort_by_key(|(phase, name, _)| (*phase, *name));
        let mut unsound = unknown(documents, |kind| deciding.iter().any(|(_, name, _)| *name == kind));
        let mut members = Vec::new();
        for (_, kind, compile) in deciding {
            let of_kind = documents.iter().filter(|(name, _)| name == kind);
            let mut mine: Vec<Attached<Value>> = of_kind.map(|(_, document)| document.clone()).collect();
            mine.sort_by(|a, b| name_parts(&a.name).cmp(&name_parts(&b.name)));
            let source = format!("{posture:?} {mine:?}");
            let known = before.members.iter().find(|member| member.kind == kind);
            if let Some(same) = known.filter(|known| known.source == source) {
                members.push(same.clone());
                continue;
            }
            match compile(&mine, posture, known.map(|known| &*known.policy)) {
                Ok(policy) => members.extend(policy.map(|policy| Member { kind, source, policy: policy.into() })),
                Err(problems) => unsound.push(Unsound { kind: kind.to_owned(), problems }),
            }
        }
        if unsound.is_empty() { Ok(Self::with(members)) } else { Err(unsound) }
    }

    /// Policies that no document made, in their order: of settings, and doubles.
    pub fn of(policies: impl IntoIterator<Item = Arc<dyn RequestPolicy>>) -> Self {
        let member = |policy| Member { kind: "", source: String::new(), policy };
        Self::with(policies.into_iter().map(member).collect())
    }

    /// This set, after a refusal of everything in the name of each of `objects`, `namespace/name`, which cannot be enforced
    /// here.
    #[must_use]
    pub fn refusing(self, objects: impl IntoIterator<Item = Arc<str>>) -> Self {
        let refusal =
            |object: Arc<str>| Member { kind: "", source: object.to_string(), policy: Arc::new(Unenforceable(object)) };
        Self::with(objects.into_iter().map(refusal).chain(self.members).collect())
    }

    /// This set with more policies, which are asked after all others.
    #[must_use]
    pub fn and(mut self, policies: impl IntoIterator<Item = Arc<dyn RequestPolicy>>) -> Self {
        self.members.extend(Self::of(policies).members);
        Self::with(self.members)
    }

    /// These policies with nothing counted yet, so that the next request is the first that they see.
    #[must_use]
    pub fn afresh(&self) -> Self {
        let anew = |member: &Member| Member {
            policy: member.policy.afresh().unwrap_or_else(|| member.policy.clone()),
            ..member.clone()
        };
        Self { members: self.members.iter().map(anew).collect(), needs: self.needs }
    }

    fn with(members: Vec<Member>) -> Self {
        let needs = members.iter().fold(Needs::default(), |needs, member| needs.and(member.policy.needs()));
        Self { members, needs }
    }

    /// True when everything passes.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The kinds that decide, in their order.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.members.iter().map(|member| member.kind)
    }

    /// What has to be known before they are asked.
    pub const fn needs(&self) -> Needs {
        self.needs
    }

    /// The Unix second after `now` from which one of them may refuse what passes before, though nothing else changes.
    pub fn next_expiry(&self, now: Moment) -> Option<u64> {
        self.members.iter().filter_map(|member| member.policy.next_expiry(now)).min()
    }

    /// Takes out of a section what its caller may not say. Whoever [needs](Needs::sanitizes) it has it done before anything
    /// is decided, so that every policy sees what the application will.
    pub fn sanitize(&self, section: Section<'_>, fields: &mut HeaderMap) {
        self.members.iter().for_each(|member| member.policy.sanitize(section, fields));
    }

    /// Decides one request. After [`Verdict::Wait`] and [`Verdict::Ask`] it is asked again with the same context, once that
    /// was told to [resume](Context::resume).
    pub fn on_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        context.ask_each(&self.members, |member, context| member.policy.on_request(request, context))
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Asks the policy in this place; where there is none, nothing is in the way.
    pub(super) fn ask(&self, place: usize, request: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        self.members.get(place).map_or(Verdict::Continue, |member| member.policy.on_request(request, context))
    }

    /// Tells the policy that waits in this decision what is in force in its place, where `newer` is the set for its target
    /// now. True when it is to be asked at once: its documents are not the ones that are in force any more.
    pub fn replaced(&self, newer: &Self, context: &mut Context) -> bool {
        let Some(member) = self.members.get(context.turn()).filter(|member| !member.kind.is_empty()) else {
            return false;
        };
        let successor = newer.members.iter().find(|other| other.kind == member.kind).map(|other| &other.policy);
        if successor.is_some_and(|successor| Arc::ptr_eq(successor, &member.policy)) {
            return false;
        }
        context.replace(successor.map(|policy| Arc::clone(policy) as Arc<dyn Any + Send + Sync>))
    }

    /// Decides one opaque connection, as [`Self::on_request`] does a request.
    pub fn on_connection(&self, connection: &ConnectionFacts<'_>, context: &mut Context) -> Verdict {
        context.ask_each(&self.members, |member, context| member.policy.on_connection(connection, context))
    }

    /// Decides one try of a request, after its endpoint was chosen and before anything is sent to it.
    pub fn on_attempt(&self, request: &RequestFacts<'_>, attempt: &AttemptFacts<'_>, context: &mut Context) -> Verdict {
        context.ask_each(&self.members, |member, context| member.policy.on_attempt(request, attempt, context))
    }

    /// Decides one response, before its header section goes back to the caller.
    pub fn on_response(&self, response: &ResponseFacts<'_>, context: &mut Context) -> Verdict {
        context.ask_each(&self.members, |member, context| member.policy.on_response(response, context))
    }

    /// Why a tunnel that was made of this request may not stay.
    pub fn on_open_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Option<Answer> {
        self.members.iter().find_map(|member| member.policy.on_open_request(request, context))
    }

    /// Why an opaque connection may not stay, or a request may not become one.
    pub fn on_open_connection(&self, connection: &ConnectionFacts<'_>, context: &mut Context) -> Option<Answer> {
        self.members.iter().find_map(|member| member.policy.on_open_connection(connection, context))
    }
}

impl std::fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.kinds()).finish()
    }
}

/// Phase, name and compiler of a kind that decides.
fn deciding(kind: &PolicyKind) -> Option<(Phase, &'static str, Compile)> {
    match kind.role {
        Role::Decides(phase, compile) => Some((phase, kind.kind.name, compile)),
        Role::Routes(_) | Role::Tries => None,
    }
}

/// Objects come by namespace, then name: `a/z` before `a-b/c`.
fn name_parts(name: &str) -> (&str, &str) {
    names::parts(name).unwrap_or(("", name))
}

/// A policy that cannot be enforced must not be left out in silence: the control plane may be newer than this sidecar.
fn unknown(documents: &[(String, Attached<Value>)], known: impl Fn(&str) -> bool) -> Vec<Unsound> {
    let unknown = documents.iter().filter(|(kind, _)| !known(kind));
    let told = |(kind, document): &(String, Attached<Value>)| {
        let why = format!("{}: this version of the sidecar cannot enforce policies of this kind here", document.name);
        Unsound { kind: kind.clone(), problems: vec![Problem::new("", why)] }
    };
    unknown.map(told).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{context::Resumed, reason::Reason, testing::Clock};

    /// Waits so often before it lets pass.
    struct Waits(usize);

    /// Looks on, or refuses.
    struct Says(Option<Reason>);

    impl RequestPolicy for Waits {
        fn on_request(&self, _: &RequestFacts<'_>, context: &mut Context) -> Verdict {
            let times = context.claims.get("waited").and_then(Value::as_u64).unwrap_or_default();
            let times = times + u64::from(context.resumed() == Some(Resumed::Waited));
            context.claims.insert("waited", times.into());
            if times == self.0 as u64 { Verdict::Continue } else { Verdict::Wait(Duration::from_millis(times)) }
        }

        fn on_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Verdict {
            Verdict::Continue
        }

        fn on_open_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Option<Answer> {
            None
        }

        fn on_open_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Option<Answer> {
            None
        }
    }

    impl RequestPolicy for Says {
        fn on_request(&self, _: &RequestFacts<'_>, context: &mut Context) -> Verdict {
            context.audit(&"shop/looks-on".into(), None, Reason::PolicyDenied);
            assert_eq!(context.resumed(), None, "what another has waited for is not this one's");
            self.0.map_or(Verdict::Continue, |reason| Verdict::Answer(Answer::refuse(reason, "shop/says".into())))
        }

        fn on_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Verdict {
            Verdict::Continue
        }

        fn on_open_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Option<Answer> {
            None
        }

        fn on_open_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Option<Answer> {
            None
        }
    }

    /// Lets time pass as often as it is asked to; the number of times and what came of it.
    fn decide(set: &PolicySet, context: &mut Context) -> (usize, Verdict) {
        let request = crate::testing::Request::new("GET", "/");
        for pauses in 0.. {
            match set.on_request(&request.facts(), context) {
                Verdict::Wait(_) => context.resume(Resumed::Waited),
                verdict => return (pauses, verdict),
            }
        }
        unreachable!("a decision comes to an end")
    }

    #[test]
    fn the_policy_that_waits_is_asked_again_and_no_other() {
        let set = PolicySet::of([Arc::new(Waits(2)) as Arc<dyn RequestPolicy>, Arc::new(Says(None))]);
        let mut context = Clock::default().context();
        assert_eq!(decide(&set, &mut context), (2, Verdict::Continue));
        assert_eq!(&*context.audited.take().unwrap().policy, "shop/looks-on");
        assert_eq!(decide(&set, &mut context), (0, Verdict::Continue), "a new decision begins with the first");
    }

    #[test]
    fn a_policy_that_waits_for_ever_refuses() {
        let set = PolicySet::of([Arc::new(Waits(usize::MAX)) as Arc<dyn RequestPolicy>]);
        let (pauses, verdict) = decide(&set, &mut Clock::default().context());
        let Verdict::Answer(answer) = verdict else { panic!("{verdict:?}") };
        assert_eq!((pauses, answer.reason), (16, Some(Reason::Internal)));
    }

    #[test]
    fn who_looks_on_says_nothing_of_what_another_refuses() {
        let says = Says(Some(Reason::RateLimited));
        let set = PolicySet::of([Arc::new(Says(None)) as Arc<dyn RequestPolicy>, Arc::new(says)]);
        let mut context = Clock::default().context();
        let (_, verdict) = decide(&set, &mut context);
        assert!(matches!(verdict, Verdict::Answer(answer) if answer.reason == Some(Reason::RateLimited)));
        assert_eq!(context.audited, None);
    }

    #[test]
    fn a_set_needs_what_any_of_it_needs() {
        let body = Needs { body: 10, attempts: true, ..Needs::default() };
        let name = Needs { server_name: true, body: 7, ..Needs::default() };
        let both = Needs { server_name: true, body: 10, attempts: true, ..Needs::default() };
        assert_eq!((body.and(name), name.and(body)), (both, both));
        assert_eq!(PolicySet::new().needs(), Needs::default());
    }
}
