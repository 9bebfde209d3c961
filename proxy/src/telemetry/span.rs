//! Spans that are over, on their way from the workers to whoever hands them to a collector.
//!
//! [`WAITING`] of them wait at most, each of a bounded size; one that finds no place is dropped and counted. A worker waits for
//! nobody and wakes nobody but when many wait.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prometheus::IntCounter;
use selvedge_policies::reason::Reason;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep},
};

use super::record::{Direction, Hop, Ids, Party, Protocol, RequestRecord, SpanRecord};
use crate::clock;

/// Spans that wait at most.
pub(crate) const WAITING: usize = 2048;
/// So many are handed on at once.
pub(crate) const BATCH: usize = 512;
/// How long a span waits for others to go with.
const DELAY: Duration = Duration::from_secs(1);
/// The longest text of a span, in bytes.
const TEXT: usize = 1024;

/// Which share of the traces that begin here is recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampling(f64);

impl Sampling {
    /// From 0 for none to 1 for all.
    pub(crate) const fn of(share: f64) -> Self {
        Self(share)
    }

    /// Whether this trace is. Sidecars with the same share agree: its id, which is by chance, decides.
    pub(crate) fn takes(self, trace: u128) -> bool {
        const CHANCES: u64 = 1 << 53; // as many as an f64 counts exactly
        let chance = trace as u64 & (CHANCES - 1);
        (chance as f64) < self.0 * CHANCES as f64
    }
}

/// What became of spans.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    /// A collector took them.
    pub exported: IntCounter,
    /// There was no place for them.
    pub dropped: IntCounter,
    /// No collector took them, for as long as that was tried.
    pub failed: IntCounter,
    /// A collector took others with them, and not these.
    pub rejected: IntCounter,
}

/// A worker's end of the queue.
#[derive(Clone, Debug)]
pub(super) struct Spans {
    sampling: Sampling,
    queue: mpsc::Sender<Box<Finished>>,
    many: Arc<Notify>,
    dropped: IntCounter,
}

/// The other end of the queue.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: mpsc::Receiver<Box<Finished>>,
    many: Arc<Notify>,
    /// What becomes of spans.
    pub counted: Counted,
}

/// Both ends of a queue.
pub(super) fn queue(sampling: Sampling, counted: Counted) -> (Spans, Queue) {
    let (queue, waiting) = mpsc::channel(WAITING);
    let many = Arc::new(Notify::new());
    let spans = Spans { sampling, queue, many: many.clone(), dropped: counted.dropped.clone() };
    (spans, Queue { waiting, many, counted })
}

impl Spans {
    pub(super) const fn sampling(&self) -> Sampling {
        self.sampling
    }

    pub(super) fn give(&self, record: &RequestRecord<'_>, span: &SpanRecord<'_>) {
        match self.queue.try_reserve() {
            Ok(place) => place.send(Box::new(Finished::of(record, span))),
            Err(_) => self.dropped.inc(),
        }
        if self.queue.capacity() <= WAITING - BATCH {
            self.many.notify_one();
        }
    }
}

impl Queue {
    /// Waits for as long as a span may wait, or until there are many.
    pub(crate) async fn due(&self) {
        tokio::select! {
            () = sleep(DELAY) => {}
            () = self.many.notified() => {}
        }
    }

    /// Takes what waits, [`BATCH`] at most.
    pub(crate) fn take(&mut self) -> Vec<Finished> {
        let waiting = std::iter::from_fn(|| self.waiting.try_recv().ok());
        waiting.take(BATCH).map(|waiting| *waiting).collect()
    }
}

/// One end of the request of a span.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Name of the workload, without its namespace.
    pub workload: Box<str>,
    /// Namespace of the workload.
    pub namespace: Box<str>,
    /// SPIFFE ID proven by mTLS.
    pub identity: Box<str>,
}

impl From<&Party<'_>> for Peer {
    fn from(party: &Party<'_>) -> Self {
        let Party { workload, namespace, identity } = party;
        Self { workload: cut(workload), namespace: cut(namespace), identity: cut(identity) }
    }
}

/// A span that is over, as it waits. What is said of its request is what [`RequestRecord`] says.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The names of the trace, of the span and of its parent.
    pub ids: Ids,
    /// `tracestate` (W3C Trace Context).
    pub state: Box<str>,
    /// When it began, since the Unix epoch.
    pub began: Duration,
    /// How long it lasted.
    pub lasted: Duration,
    /// Tries of the request before this one.
    pub resent: u32,
    /// Side of the workload: that of a server or of a client.
    pub direction: Direction,
    /// The workload that called.
    pub source: Peer,
    /// The workload that was called.
    pub destination: Peer,
    /// The service that was called, `namespace/name`.
    pub service: Box<str>,
    /// The route rule that matched, `namespace/route/rule`.
    pub route: Box<str>,
    /// HTTP status; 0 when there was none.
    pub code: u16,
    /// `grpc-status` of a gRPC call.
    pub grpc_status: Option<u16>,
    /// Why it ended without the service's own answer.
    pub reason: Option<Reason>,
    /// The policy that decided, here or at the called side, `namespace/name`.
    pub policy: Box<str>,
    /// The policy that only looks on and would have refused it.
    pub audited: Box<str>,
    /// What exactly went wrong.
    pub detail: Box<str>,
    /// What the caller spoke.
    pub protocol: Protocol,
    /// How it went from one sidecar to the other.
    pub hop: Hop,
    /// Method of the request.
    pub method: Box<str>,
    /// Host of the authority.
    pub host: Box<str>,
    /// The port that was called.
    pub port: u16,
    /// Canonical path without query.
    pub path: Box<str>,
    /// Address of the caller.
    pub peer: SocketAddr,
    /// Address it went to.
    pub upstream: Option<SocketAddr>,
    /// Whether it went on over TLS towards a service outside the mesh.
    pub secure: bool,
    /// The value of `x-request-id`.
    pub request_id: Box<str>,
}

impl Finished {
    fn of(record: &RequestRecord<'_>, span: &SpanRecord<'_>) -> Self {
        let now = Instant::now();
        let ended = span.ended.unwrap_or(now);
        let lasted = ended - span.since;
        let policy = if record.policy.is_empty() { record.policy_there } else { record.policy };
        Self {
            ids: span.ids,
            state: span.state.into(),
            began: clock::since_epoch().saturating_sub(now - span.since),
            lasted,
            resent: span.resent,
            direction: record.direction,
            source: (&record.source).into(),
            destination: (&record.destination).into(),
            service: cut(record.service),
            route: cut(record.route),
            code: record.code,
            grpc_status: record.grpc_status,
            reason: record.reason,
            policy: cut(policy),
            audited: cut(record.audited.map_or("", |audited| &audited.policy)),
            detail: cut(record.detail),
            protocol: record.protocol,
            hop: record.hop,
            method: cut(record.method),
            host: cut(record.host),
            port: record.port,
            path: cut(record.path),
            peer: record.peer,
            upstream: record.upstream,
            secure: record.secure,
            request_id: cut(record.request_id),
        }
    }
}

/// As much of a text as is kept.
fn cut(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(TEXT)].into()
}

#[cfg(test)]
pub(crate) mod tests {
    use prometheus::IntCounter;

    use super::*;
    use crate::telemetry::tests::request;

    fn counted() -> Counted {
        let [exported, dropped, failed, rejected] =
            ["exported", "dropped", "failed", "rejected"].map(|name| IntCounter::new(name, name).unwrap());
        Counted { exported, dropped, failed, rejected }
    }

    /// A span that waits, of a request received that went well.
    pub(crate) fn finished() -> Finished {
        Finished::of(&request(), &span())
    }

    /// A span that is recorded.
    pub(crate) fn span<'a>() -> SpanRecord<'a> {
        let ids = Ids { trace: 1, span: 2, parent: None, flags: 1, remote: true };
        SpanRecord { ids, state: "", since: Instant::now(), ended: None, resent: 0 }
    }

    #[tokio::test]
    async fn what_finds_no_place_is_dropped_and_counted_and_texts_are_cut() {
        let (spans, mut queue) = queue(Sampling::of(1.0), counted());
        let path = "\u{e9}".repeat(40_000);
        for _ in 0..WAITING + 7 {
            spans.give(&RequestRecord { path: &path, ..request() }, &span());
        }
        assert_eq!(queue.counted.dropped.get(), 7);
        queue.due().await;
        let batches: Vec<_> = std::iter::from_fn(|| Some(queue.take()).filter(|batch| !batch.is_empty())).collect();
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH; WAITING / BATCH]);
        assert!(batches.iter().flatten().all(|span| span.path.len() == TEXT));
        spans.give(&request(), &span());
        assert_eq!(queue.take().len(), 1, "there is room again");
    }

    #[test]
    fn a_share_takes_as_many_and_whoever_has_the_same_takes_the_same() {
        let traces: Vec<u128> = std::iter::repeat_with(|| fastrand::u128(..)).take(10_000).collect();
        let taken = |share| traces.iter().filter(|trace| Sampling::of(share).takes(**trace)).count();
        assert_eq!((taken(0.0), taken(1.0)), (0, 10_000));
        assert!((1_500..3_500).contains(&taken(0.25)), "{}", taken(0.25));
        let smaller = traces.iter().filter(|trace| Sampling::of(0.1).takes(**trace));
        assert!(smaller.into_iter().all(|trace| Sampling::of(0.25).takes(*trace)));
    }
}
