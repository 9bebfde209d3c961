//! Decisions made once per request: the contract, and the list.

use std::{any::Any, sync::Arc};

use serde_json::Value;

use crate::{
    facts::{ConnectionFacts, Moment, RequestFacts},
    kind::{Attached, Kind, Problem},
    verdict::Verdict,
};

pub mod authorize;
pub mod rate_limit;

/// A compiled policy. Shared by all workers, so its state must be lock-free.
pub trait RequestPolicy: Any + Send + Sync {
    /// The kind, for metrics and logs.
    fn kind(&self) -> &'static str;

    /// Decides one HTTP request.
    fn on_request(&self, request: &RequestFacts<'_>, now: Moment) -> Verdict;

    /// Decides one opaque connection. HTTP-only policies let it pass.
    fn on_connection(&self, _connection: &ConnectionFacts<'_>, _now: Moment) -> Verdict {
        Verdict::Continue
    }

    /// The policy that only looks on and would have refused this request.
    fn would_refuse(&self, _request: &RequestFacts<'_>, _now: Moment) -> Option<&Arc<str>> {
        None
    }

    /// The same for an opaque connection.
    fn would_refuse_connection(&self, _connection: &ConnectionFacts<'_>, _now: Moment) -> Option<&Arc<str>> {
        None
    }

    /// Whether the server name of application TLS makes a difference to its decisions on connections.
    fn reads_server_name(&self) -> bool {
        false
    }

    /// The Unix second after `now` from which it may refuse what it lets pass before, though nothing else changes.
    fn next_expiry(&self, _now: Moment) -> Option<u64> {
        None
    }

    /// Decides whether a tunnel that was made of this request may stay, when the policies have changed or expired. It
    /// counts nothing: it is no new request.
    fn on_open_request(&self, _request: &RequestFacts<'_>, _now: Moment) -> Verdict {
        Verdict::Continue
    }

    /// Decides whether an opaque connection that was let pass may stay, when the policies have changed or expired. It
    /// counts nothing: it is no new connection.
    fn on_open_connection(&self, _connection: &ConnectionFacts<'_>, _now: Moment) -> Verdict {
        Verdict::Continue
    }
}

/// What happens to a request that no ALLOW rule names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Posture {
    /// Refuse it.
    Deny,
    /// Let it pass where no ALLOW policy covers the target.
    #[default]
    Allow,
}

/// A kind of request policy: how its documents become one compiled policy.
#[derive(Clone, Copy)]
pub struct RequestKind {
    /// Name, schema and check.
    pub kind: Kind,
    /// Compiles all documents of this kind that are attached to one target, in order of name.
    /// `Ok(None)` when there is nothing to decide. The posture is the target's default posture. What the documents before
    /// were compiled to, if anything, hands its live state over: by object, and only where that very part of it is still
    /// there.
    pub compile: Compile,
}

/// See [`RequestKind::compile`].
pub type Compile =
    fn(&[Attached<Value>], Posture, Option<&Before>) -> Result<Option<Box<dyn RequestPolicy>>, Vec<Problem>>;

/// The policy of the same kind for the same target that was in force before.
pub type Before = dyn RequestPolicy;

/// The list: every kind of request policy, in the order in which they decide.
pub const REQUEST_POLICIES: &[RequestKind] = &[authorize::KIND, rate_limit::KIND];
