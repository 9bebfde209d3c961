//! What a decision is handed beside the facts, and what it leaves behind: time and chance in; claims, header changes
//! and what was audited out.
//!
//! A policy reads no clock and draws no chance of its own, so a decision can be repeated: in a test, or where somebody
//! asks why. What it wants to do to the request it notes here, and whoever carries the decision out does it.
//!
//! A policy may also want to wait, or to ask a service of the mesh, and cannot do either. It then says so
//! ([`Verdict::Wait`], [`Verdict::Ask`]), whoever asked does it and [resumes](Context::resume), and asks the same set
//! again with the same context. The policies that have continued are not asked twice, so nothing is counted twice, and
//! pauses are bounded. This is a coroutine by hand: the policy stays a plain function, and the caller keeps the
//! runtime.
//!
//! What waits may meanwhile have been replaced: there are new documents of its kind, or none. It is then asked at once, and
//! told what has come into force in its place ([`Resumed::Replaced`]); the decision itself stays with the policies it began
//! with.
//!
//! A policy that only looks on (AUDIT, what others call shadow or dry run) leaves its refusal in [`Context::audited`].
//! An answer takes it away again: what was refused anyway would not have passed without it.

use std::{any::Any, collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    changes::HeaderChanges,
    facts::Moment,
    reason::Reason,
    verdict::{Answer, Reply, Unanswered, Verdict},
};

/// What was proven of a caller beside its identity, by name, such as the claims of a token. Policies that come later
/// decide by them.
///
/// ```
/// use selvedge_policies::context::Claims;
///
/// let mut claims = Claims::default();
/// assert!(claims.is_empty());
/// claims.insert("sub", "ada".into());
/// assert_eq!(claims.get("sub"), Some(&"ada".into()));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims(BTreeMap<Box<str>, Value>);

impl Claims {
    /// Takes a claim in; one of the same name is replaced.
    pub fn insert(&mut self, name: &str, value: Value) {
        self.0.insert(name.into(), value);
    }

    /// The claim of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// True when nothing was claimed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A policy that only looks on and would have refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// The user's object, `namespace/name`.
    pub policy: Arc<str>,
    /// Which rule of it, from 0; `None` where no single rule would have.
    pub rule: Option<u32>,
    /// The reason it would have refused with.
    pub reason: Reason,
}

/// How what a policy has waited for came out.
#[derive(Clone, Debug, PartialEq)]
pub enum Resumed {
    /// The time has passed.
    Waited,
    /// The service has replied, or has not.
    Told(Result<Reply, Unanswered>),
    /// Before the time has passed other documents of its kind have come into force, or none: [`Context::replacement`].
    Replaced,
}

/// Changes of both header sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of the request, before it goes on.
    pub request: HeaderChanges,
    /// Of the response, before it goes back.
    pub response: HeaderChanges,
}

/// How often the policies of one decision may wait or ask, all together. One that never comes to an end is a defect, and
/// refuses.
const MOST_PAUSES: u8 = 16;

/// Handed through one decision. It allocates nothing until a policy leaves something behind.
///
/// ```
/// use selvedge_policies::{
///     context::{Claims, Context, Resumed},
///     facts::Moment,
///     reason::Reason,
/// };
///
/// let now = Moment { nanos: 0, unix: 1_800_000_000 };
/// let mut context = Context::new(now, fastrand::Rng::with_seed(7)).with_claims(Claims::default());
/// context.audit(&"shop/first".into(), Some(0), Reason::PolicyDenied);
/// context.audit(&"shop/second".into(), None, Reason::PolicyDenied);
/// assert_eq!(&*context.audited.as_ref().unwrap().policy, "shop/first");
/// context.changes().request.remove(http::header::REFERER);
/// assert!(!context.take_changes().unwrap().request.is_empty());
/// context.resume(Resumed::Waited);
/// assert_eq!((context.resumed(), context.resumed()), (Some(Resumed::Waited), None), "told once");
/// assert_eq!((context.waited().as_secs(), context.replacement::<u8>()), (0, None), "no policy of a set has asked to wait");
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    /// The time of the decision.
    pub now: Moment,
    /// Where all chance of the decision comes from; seeded, so that a test can repeat it.
    pub chance: fastrand::Rng,
    /// What was proven of the caller so far.
    pub claims: Claims,
    /// The first policy that only looked on and would have refused.
    pub audited: Option<Audited>,
    changes: Option<Box<Changes>>,
    resumed: Option<Resumed>,
    /// The policy whose turn it is.
    turn: usize,
    /// When it first wanted to wait.
    since: Option<Moment>,
    /// What has come into force in its place.
    replacement: Option<Replacement>,
    pauses: u8,
}

/// What is in force in place of a policy, if anything.
pub(crate) type Replacement = Option<Arc<dyn Any + Send + Sync>>;

impl Context {
    /// For a decision that begins.
    pub fn new(now: Moment, chance: fastrand::Rng) -> Self {
        Self {
            now,
            chance,
            claims: Claims::default(),
            audited: None,
            changes: None,
            resumed: None,
            turn: 0,
            since: None,
            replacement: None,
            pauses: 0,
        }
    }

    /// This context, knowing what an earlier decision about the same caller has proven.
    #[must_use]
    pub fn with_claims(self, claims: Claims) -> Self {
        Self { claims, ..self }
    }

    /// Notes that `policy`, by this rule of it, would have refused. The first one counts.
    pub fn audit(&mut self, policy: &Arc<str>, rule: Option<u32>, reason: Reason) {
        if self.audited.is_none() {
            self.audited = Some(Audited { policy: policy.clone(), rule, reason });
        }
    }

    /// The header changes, to be added to.
    pub fn changes(&mut self) -> &mut Changes {
        self.changes.get_or_insert_default()
    }

    /// The header changes that were asked for, if any.
    pub fn take_changes(&mut self) -> Option<Box<Changes>> {
        self.changes.take()
    }

    /// What the policy that is asked has waited for; nothing when it is asked for the first time.
    pub fn resumed(&mut self) -> Option<Resumed> {
        self.resumed.take()
    }

    /// Goes on with the policy that waits or asks; the same decision is then asked of the same set again.
    pub fn resume(&mut self, resumed: Resumed) {
        self.resumed = Some(resumed);
    }

    /// How long the policy that is asked has waited so far, all its pauses together.
    pub fn waited(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| Duration::from_nanos(self.now.nanos.saturating_sub(since.nanos)))
    }

    /// What has come into force in place of the policy that is asked, since it began to wait: `None` when it still is in
    /// force itself, `Some(None)` when there is nothing of its kind any more.
    pub fn replacement<P: 'static>(&self) -> Option<Option<&P>> {
        self.replacement.as_ref().map(|replacement| replacement.as_ref().and_then(|policy| policy.downcast_ref()))
    }

    /// The place of the policy that is asked, among those of its set.
    pub(crate) const fn turn(&self) -> usize {
        self.turn
    }

    /// Goes on with the policy that waits, in whose place `replacement` is in force. False when it knows that already. The
    /// pause it is in goes on; it is no other one.
    pub(crate) fn replace(&mut self, replacement: Replacement) -> bool {
        let place = |policy: &Replacement| policy.as_ref().map(|policy| Arc::as_ptr(policy).cast::<()>());
        if self.replacement.as_ref().is_some_and(|known| place(known) == place(&replacement)) {
            return false;
        }
        self.replacement = Some(replacement);
        self.resumed = Some(Resumed::Replaced);
        self.pauses = self.pauses.saturating_sub(1);
        true
    }

    /// Asks one after the other, beginning with the one that was waited for, until one does not continue.
    pub(crate) fn ask_each<P>(&mut self, policies: &[P], decide: impl Fn(&P, &mut Self) -> Verdict) -> Verdict {
        let ask = |turn: usize, context: &mut Self| {
            policies.get(turn).map_or(Verdict::Continue, |policy| decide(policy, context))
        };
        self.ask_in_turn(policies.len(), ask)
    }

    /// Asks as many as `count`, each by its place, as [`Self::ask_each`] does.
    pub(crate) fn ask_in_turn(&mut self, count: usize, ask: impl Fn(usize, &mut Self) -> Verdict) -> Verdict {
        while self.turn < count {
            match ask(self.turn, self) {
                Verdict::Continue => {
                    self.turn += 1;
                    (self.resumed, self.since, self.replacement) = (None, None, None);
                }
                Verdict::Answer(answer) => {
                    self.audited = None;
                    return Verdict::Answer(answer);
                }
                Verdict::Wait(_) | Verdict::Ask(_) if self.pauses == MOST_PAUSES => {
                    return Verdict::Answer(Answer::refuse(Reason::Internal, Arc::default()));
                }
                pause => {
                    self.pauses += 1;
                    self.since.get_or_insert(self.now);
                    return pause;
                }
            }
        }
        self.turn = 0;
        Verdict::Continue
    }
}
