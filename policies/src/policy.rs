//! The contract of what is attached to services and workloads: what a kind says of itself, and what its policies are
//! asked.
//!
//! A kind is one constant of type [`PolicyKind`]. The control plane checks documents by it and sends them where it acts;
//! the sidecar compiles them by it and asks what they were compiled to. Nobody else knows the kind by name, so a new one is
//! its own file and its entry in the [registry](crate::registry).

use std::{any::Any, sync::Arc};

use http::HeaderMap;
use serde_json::Value;

use crate::{
    advice::Advise,
    context::Context,
    facts::{AttemptFacts, ConnectionFacts, Moment, RequestFacts, ResponseFacts, Section},
    kind::{Attached, Kind, Problem},
    verdict::{Answer, Verdict},
};

mod explain;
mod reference;
mod shadow;
mod weigh;

pub use explain::{Explain, Looked, no_rules};
pub use reference::{Bound, Reference, Relation, Resolve, Resolved, Target, bind_target};
pub use shadow::{Shadowed, Shadows, no_shadows};
pub use weigh::{Weigh, Weighed, no_weight};

/// A kind of document that is attached to what it is about.
#[derive(Clone, Copy)]
pub struct PolicyKind {
    /// Name, schema and checks.
    pub kind: Kind,
    /// At which end of a call its documents are put in force.
    pub place: Place,
    /// What it does there.
    pub role: Role,
    /// Reads what a document, which its check found sound, is attached to and refers to. It is written in the namespace
    /// given; the problems are those that only the namespace tells.
    pub bind: fn(&Value, &str) -> Result<Bound, Vec<Problem>>,
    /// Says which of a document's rules apply to a request, and of the others which condition fails.
    pub explain: Explain,
    /// Says which rules make no difference beside the others.
    pub shadows: Shadows,
    /// Says what is odd in a document.
    pub advise: Advise,
    /// Says what a change of a document opens and closes.
    pub weigh: Weigh,
}

impl PolicyKind {
    /// When its policies decide; `None` for kinds that decide nothing.
    ///
    /// ```
    /// use selvedge_policies::{policy::Phase, registry};
    ///
    /// let phase = |kind| registry::find(kind).unwrap().phase();
    /// assert_eq!((phase("RateLimit"), phase("HTTPRoute")), (Some(Phase::Limit), None));
    /// ```
    pub const fn phase(&self) -> Option<Phase> {
        match self.role {
            Role::Decides(phase, _) => Some(phase),
            Role::Routes(_) | Role::Tries => None,
        }
    }
}

/// Where documents of a kind act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the sidecars of callers.
    Caller,
    /// At the sidecar of the workload that is called.
    Called,
    /// At the sidecars of callers and at that of the workload that is called.
    Both,
}

/// What documents of a kind do. Whoever puts documents in force has to say what becomes of each role.
#[derive(Clone, Copy)]
pub enum Role {
    /// They decide on requests and connections.
    Decides(Phase, Compile),
    /// They choose where requests go, and name them.
    Routes(Resolve),
    /// They say how a destination is tried.
    Tries,
}

/// When policies decide, one phase after the other; within a phase in order of the kinds' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Who calls: gives claims.
    Authenticate,
    /// Whether the caller may make this request (RBAC).
    Authorize,
    /// How many requests the caller may make.
    Limit,
    /// What is changed on the way.
    Transform,
    /// What goes wrong on purpose.
    Fault,
}

/// Compiles all documents of a kind that are attached to one target, in order of their names, into what decides.
/// `Ok(None)` when there is nothing to decide. What the documents before were compiled to, if anything, hands its live state
/// over: by object, and only where that very part of it is still there.
pub type Compile =
    fn(&[Attached<Value>], Posture, Option<&Before>) -> Result<Option<Box<dyn RequestPolicy>>, Vec<Problem>>;

/// The policy of the same kind for the same target that was in force before.
pub type Before = dyn RequestPolicy;

/// What a user wants of a sidecar that is too old to enforce an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnUnsupported {
    /// It refuses what the object covers.
    Close,
    /// The last form of the object that it could enforce stays in force there.
    Keep,
}

/// What happens to a request that no ALLOW rule names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Posture {
    /// It is refused, with `policy_default_deny`.
    Deny,
    /// Let it pass where no ALLOW policy covers the target.
    #[default]
    Allow,
    /// As `allow`, and what `deny` would refuse is noted.
    Audit,
}

impl Posture {
    /// The word that users write.
    ///
    /// ```
    /// use selvedge_policies::policy::Posture;
    ///
    /// assert_eq!(Posture::Audit.name(), "audit");
    /// ```
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::Audit => "audit",
        }
    }
}

/// What a policy, or a set of them, has to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// It looks into requests, at what opaque bytes do not have.
    pub requests: bool,
    /// The path of a request makes a difference to its decisions on it, so one that services read in different ways is refused.
    pub paths: bool,
    /// The server name of application TLS makes a difference to its decisions on connections.
    pub server_name: bool,
    /// So many bytes of the content of a request, from its start; [`Needs::MOST_BODY`] at most. They are waited for, a moment
    /// long, before it is asked.
    pub body: usize,
    /// It is asked before each try.
    pub attempts: bool,
    /// It is asked about each response.
    pub responses: bool,
    /// It takes out of sections what their callers may not say.
    pub sanitizes: bool,
}

impl Needs {
    /// The most bytes of content that policies can be told: those that a sidecar keeps for a retry.
    pub const MOST_BODY: usize = 64 * 1024;

    /// The union of two needs: what each of them has to be told.
    ///
    /// ```
    /// use selvedge_policies::policy::Needs;
    ///
    /// let (one, other) = (Needs { body: 10, ..Needs::default() }, Needs { body: 7, attempts: true, ..Needs::default() });
    /// assert_eq!(one.and(other), Needs { body: 10, attempts: true, ..Needs::default() });
    /// ```
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests || other.requests,
            paths: self.paths || other.paths,
            server_name: self.server_name || other.server_name,
            body: if self.body > other.body { self.body } else { other.body },
            attempts: self.attempts || other.attempts,
            responses: self.responses || other.responses,
            sanitizes: self.sanitizes || other.sanitizes,
        }
    }
}

/// A compiled policy. Shared by all workers, so its state must be lock-free.
///
/// What lets somebody pass is written by every policy: requests, connections, and both again while they are open. Only
/// what is asked for by [`Needs`] has a default.
pub trait RequestPolicy: Any + Send + Sync {
    /// Decides one HTTP request.
    fn on_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Verdict;

    /// Decides one opaque connection.
    fn on_connection(&self, connection: &ConnectionFacts<'_>, context: &mut Context) -> Verdict;

    /// Why a tunnel that was made of this request may not stay, when policies have changed or expired. It counts nothing:
    /// it is no new request.
    fn on_open_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Option<Answer>;

    /// Why an opaque connection that was let pass may not stay, when policies have changed or expired. It counts nothing: it
    /// is no new connection.
    fn on_open_connection(&self, connection: &ConnectionFacts<'_>, context: &mut Context) -> Option<Answer>;

    /// Takes out of a section what its caller may not say, before any policy sees it.
    fn sanitize(&self, _section: Section<'_>, _fields: &mut HeaderMap) {}

    /// Decides one try of a request that was let pass.
    fn on_attempt(&self, _request: &RequestFacts<'_>, _attempt: &AttemptFacts<'_>, _context: &mut Context) -> Verdict {
        Verdict::Continue
    }

    /// Decides the response that goes back.
    fn on_response(&self, _response: &ResponseFacts<'_>, _context: &mut Context) -> Verdict {
        Verdict::Continue
    }

    /// What it has to be told.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// The Unix second after `now` from which it may refuse what it lets pass before, though nothing else changes.
    fn next_expiry(&self, _now: Moment) -> Option<u64> {
        None
    }

    /// This policy with nothing counted yet; `None` when it counts nothing, so that nobody can tell the two apart.
    fn afresh(&self) -> Option<Arc<dyn RequestPolicy>> {
        None
    }
}
