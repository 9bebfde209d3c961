//! What a sidecar writes into the audit log: whom it has not let through, and whom a policy that only looks on would not have.
//!
//! Guarantees: what is told is what was decided here, not what a peer or the application says; who has proven an identity is
//! not kept out of the log by whoever has none; nothing waits for the writer.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

use selvedge_identity::audit::{Bounds, Call, Event, Happening, Trail};
use selvedge_policies::{context::Audited, reason::Reason};
use tokio::time::Instant;

use super::{ConnectionRecord, Direction, Party, RequestRecord, timestamp::Timestamp};

/// Kinds of events that are told apart at once: caller, reason and rule.
const KINDS: usize = 256;

/// What has become of events; the values of the label `result`.
pub(super) const RESULTS: [&str; 3] = ["written", "left_out", "lost"];

/// The audit log as one worker writes it.
#[derive(Debug)]
pub(super) struct AuditLog {
    trail: Trail,
    reporter: Arc<str>,
    /// What callers with an identity have caused, and others.
    bounds: [RefCell<Bounds>; 2],
    began: Instant,
    timestamp: RefCell<Timestamp>,
    written: Cell<u64>,
    left_out: Cell<u64>,
}

/// What a request or connection was refused by, or would have been.
#[derive(Clone, Copy)]
struct Verdict<'a> {
    happening: Happening,
    reason: Reason,
    policy: &'a str,
    rule: Option<u32>,
    detail: &'a str,
}

/// Opens the file of an audit log, or standard output.
///
/// # Errors
/// The file cannot be opened, or no thread can be started.
pub(crate) fn open(path: Option<&Path>) -> io::Result<Trail> {
    Trail::open(path, |error| tracing::warn!(%error, "a line of the audit log could not be written"))
}

impl AuditLog {
    /// The log of `reporter`, `namespace/name` of the workload.
    pub(super) fn new(trail: Trail, reporter: Arc<str>) -> Self {
        let bounds = || RefCell::new(Bounds::new(KINDS));
        Self {
            trail,
            reporter,
            bounds: [bounds(), bounds()],
            began: Instant::now(),
            timestamp: RefCell::default(),
            written: Cell::new(0),
            left_out: Cell::new(0),
        }
    }

    /// How many events there were since the last call, as [`RESULTS`] has them. Lines that were lost are those of all workers.
    pub(super) fn take(&self) -> [u64; 3] {
        [self.written.take(), self.left_out.take(), self.trail.take_lost()]
    }

    pub(super) fn request(&self, record: &RequestRecord<'_>) {
        let was_answered = record.upstream.is_some() && record.policy.is_empty();
        let denied = record.reason.filter(|reason| match record.direction {
            // The application can say of its answer whatever it likes.
            Direction::Inbound => !was_answered && is_denial(*reason),
            Direction::Outbound => is_denial_of_call(*reason, record.policy),
        });
        let denied = denied.map(|reason| Verdict::denied(reason, (record.policy, record.rule), record.detail));
        let Some(verdict) = denied.or_else(|| record.audited.map(Verdict::from)) else { return };
        let call = Call {
            direction: record.direction.as_str(),
            port: record.port,
            method: record.method,
            path: record.path,
            request_id: record.request_id,
        };
        self.write(verdict, (&record.source, record.peer), called(record.service, &record.destination), call);
    }

    pub(super) fn connection(&self, record: &ConnectionRecord<'_>) {
        let ends = &record.ends;
        let denied = record.reason.filter(|reason| match ends.direction {
            Direction::Inbound => is_denial(*reason),
            Direction::Outbound => is_denial_of_call(*reason, record.policy),
        });
        let denied = denied.map(|reason| Verdict::denied(reason, (record.policy, record.rule), record.detail));
        let Some(verdict) = denied.or_else(|| record.audited.map(Verdict::from)) else { return };
        let call = Call { direction: ends.direction.as_str(), port: record.port, ..Call::default() };
        self.write(verdict, (&ends.source, record.peer), called(ends.service, &ends.destination), call);
    }

    fn write(&self, verdict: Verdict<'_>, (source, peer): (&Party<'_>, SocketAddr), object: &str, call: Call<'_>) {
        let is_stranger = source.identity.is_empty();
        let caller = (source.identity, is_stranger.then_some(peer.ip()));
        let kind = (verdict.happening, caller, verdict.reason, verdict.policy, verdict.rule);
        let mut bounds = self.bounds[usize::from(is_stranger)].borrow_mut();
        let Some(left_out) = bounds.take(kind, self.began.elapsed()) else {
            self.left_out.update(|events| events + 1);
            return;
        };
        let mut timestamp = self.timestamp.borrow_mut();
        let event = Event {
            subject: source.identity.into(),
            address: Some(peer.ip()),
            object: object.into(),
            reason: Some(verdict.reason),
            policy: verdict.policy,
            rule: verdict.rule,
            detail: verdict.detail,
            call,
            ..Event::new(timestamp.now(), &self.reporter, verdict.happening)
        };
        if self.trail.record(event.line(left_out)) {
            self.written.update(|events| events + 1);
        }
    }
}

impl<'a> Verdict<'a> {
    const fn denied(reason: Reason, (policy, rule): (&'a str, Option<u32>), detail: &'a str) -> Self {
        Self { happening: Happening::Denied, reason, policy, rule, detail }
    }
}

impl<'a> From<&'a Audited> for Verdict<'a> {
    fn from(audited: &'a Audited) -> Self {
        Self {
            happening: Happening::WouldBeDenied,
            reason: audited.reason,
            policy: &audited.policy,
            rule: audited.rule,
            detail: "",
        }
    }
}

/// Whether a caller was refused for who it is or what it may not do.
const fn is_denial(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PolicyDenied
            | Reason::PolicyDefaultDeny
            | Reason::PolicyUnenforceable
            | Reason::PlaintextRefused
            | Reason::TlsHandshakeFailed
    )
}

/// Whether the sidecar of the caller has refused a call: by a policy of its own, or since somebody else was there.
const fn is_denial_of_call(reason: Reason, policy: &str) -> bool {
    match reason {
        Reason::UpstreamIdentityMismatch => true,
        Reason::PolicyDenied | Reason::PolicyUnenforceable => !policy.is_empty(),
        _ => false,
    }
}

/// The service that was called, or else the workload.
fn called<'a>(service: &'a str, destination: &Party<'a>) -> &'a str {
    if service.is_empty() { destination.identity } else { service }
}
