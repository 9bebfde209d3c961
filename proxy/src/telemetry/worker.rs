//! What one worker counts, in plain cells of its own thread.

use std::{cell::RefCell, rc::Rc, time::Duration};

use tokio::{sync::mpsc, time::interval};

use super::{
    AccessLogMode, BreakerSeen, ConnectionRecord, Direction, Ends, Flow, Party, Protocol, RequestRecord, RetryOutcome,
    access_log::{AccessLog, Sink},
    cardinality::Table,
    delta::{Delta, RequestCell},
    flow::Flows,
    metrics::{self, Histogram},
    store::Link,
};

/// How long an access log line may wait for others to be written with.
const LOG_DELAY: Duration = Duration::from_secs(1);

/// The recorder of one worker thread; clones share its cells. Nothing here takes a lock, and counting allocates nothing
/// once a series exists.
#[derive(Clone, Debug)]
pub struct WorkerTelemetry {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    counts: RefCell<Counts>,
    log: AccessLog,
    flushes: RefCell<Option<Flushes>>,
}

#[derive(Debug)]
struct Flushes {
    asked: mpsc::Receiver<()>,
    answers: mpsc::Sender<Delta>,
}

#[derive(Debug)]
struct Counts {
    requests: Table<{ metrics::REQUEST.len() }, RequestCell>,
    connections: Table<{ metrics::CONNECTION.len() }, u64>,
    flows: Flows,
    audited: Table<{ metrics::DECISION.len() }, u64>,
    opened: Table<2, u64>,
    retries: Table<2, u64>,
    detections: [Histogram; Protocol::ALL.len()],
    open: [u64; 2],
}

impl WorkerTelemetry {
    pub(super) fn new(sink: Sink, limit: usize) -> (Self, Link) {
        let (ask, asked) = mpsc::channel(1);
        let (answers, answered) = mpsc::channel(1);
        let inner = Inner {
            counts: RefCell::new(Counts::new(limit)),
            log: AccessLog::new(sink),
            flushes: RefCell::new(Some(Flushes { asked, answers })),
        };
        (Self { inner: Rc::new(inner) }, Link::new(ask, answered))
    }

    /// Sets which requests and connections this worker writes to the access log.
    pub fn set_access_log(&self, mode: AccessLogMode) {
        self.inner.log.set_mode(mode);
    }

    /// Counts and logs one finished request. Denials and rate limits are told by its reason.
    pub fn request(&self, record: &RequestRecord<'_>) {
        self.inner.counts.borrow_mut().request(record);
        self.inner.log.request(record);
    }

    /// Counts a connection that was accepted (inbound and outbound alike are accepted by the sidecar).
    pub fn connection_opened(&self, direction: Direction, tls: bool) {
        let mut counts = self.inner.counts.borrow_mut();
        counts.open[direction as usize] += 1;
        *counts.opened.series(&[direction.as_str(), metrics::tls(tls)]) += 1;
    }

    /// Where the bytes of an open connection are counted.
    pub fn flow(&self, ends: &Ends<'_>) -> Rc<Flow> {
        self.inner.counts.borrow_mut().flow(ends)
    }

    /// Counts, and for opaque or refused ones logs, the end of a connection that was counted as opened.
    pub fn connection_closed(&self, record: &ConnectionRecord<'_>) {
        self.inner.counts.borrow_mut().connection(record);
        self.inner.log.connection(record);
    }

    /// Counts one retry, or one that was refused, towards `destination` (`namespace/name`).
    pub fn retry(&self, destination: &str, outcome: RetryOutcome) {
        *self.inner.counts.borrow_mut().retries.series(&[destination, outcome.as_str()]) += 1;
    }

    /// Counts how long it took to tell what a connection speaks.
    pub fn detection(&self, duration: Duration, protocol: Protocol) {
        self.inner.counts.borrow_mut().detections[protocol as usize].observe(&metrics::DETECTION_BOUNDS, duration);
    }

    /// Answers the scrapes of the control thread, with what `breakers` says at that moment, and writes the access log out
    /// in time. Spawn it once on the worker; it ends when [`super::Telemetry`] is gone, and further calls end at once.
    pub async fn serve_flushes(self, breakers: impl Fn() -> Vec<BreakerSeen>) {
        let Some(mut flushes) = self.inner.flushes.take() else { return };
        let mut log_due = interval(LOG_DELAY);
        loop {
            tokio::select! {
                asked = flushes.asked.recv() => {
                    let delta = Delta { breakers: breakers(), ..self.inner.drain() };
                    if asked.is_none() || flushes.answers.send(delta).await.is_err() {
                        return;
                    }
                }
                _ = log_due.tick() => self.inner.log.flush(),
            }
        }
    }
}

impl Inner {
    fn drain(&self) -> Delta {
        self.log.flush();
        let mut delta = self.counts.borrow_mut().drain();
        delta.log_lines_lost = self.log.take_lost();
        delta
    }
}

impl Counts {
    fn new(limit: usize) -> Self {
        Self {
            requests: Table::new(limit),
            connections: Table::new(limit),
            flows: Flows::new(limit),
            audited: Table::new(limit),
            opened: Table::new(limit),
            retries: Table::new(limit),
            detections: Default::default(),
            open: [0; 2],
        }
    }

    fn request(&mut self, record: &RequestRecord<'_>) {
        if !record.audited.is_empty() {
            let parties = (&record.source, &record.destination);
            self.audited(record.direction, parties, record.service, record.route, record.audited);
        }
        let mut digits = [0; 5];
        let [source, destination] = [&record.source, &record.destination];
        let cell = self.requests.series(&[
            record.direction.as_str(),
            source.workload,
            source.namespace,
            source.identity,
            destination.workload,
            destination.namespace,
            destination.identity,
            record.service,
            record.route,
            metrics::decimal(record.code, &mut digits),
            metrics::class(record.code),
            metrics::grpc_status(record.grpc_status),
            record.reason.map_or("", |reason| reason.code()),
            record.protocol.as_str(),
            metrics::tls(record.tls),
            record.policy,
        ]);
        cell.count += 1;
        cell.duration.observe(&metrics::DURATION_BOUNDS, record.duration);
        cell.bytes_received += record.bytes_received;
        cell.bytes_sent += record.bytes_sent;
    }

    fn connection(&mut self, record: &ConnectionRecord<'_>) {
        let ConnectionRecord { ends, reason, policy, audited, .. } = record;
        let open = &mut self.open[ends.direction as usize];
        *open = open.saturating_sub(1);
        if !audited.is_empty() {
            self.audited(ends.direction, (&ends.source, &ends.destination), ends.service, "", audited);
        }
        let Party { workload, namespace, identity } = ends.source;
        *self.connections.series(&[
            ends.direction.as_str(),
            workload,
            namespace,
            identity,
            ends.destination.workload,
            ends.destination.namespace,
            ends.destination.identity,
            ends.service,
            reason.map_or("", |reason| reason.code()),
            ends.protocol.as_str(),
            metrics::tls(ends.tls),
            policy,
        ]) += 1;
    }

    fn flow(&mut self, ends: &Ends<'_>) -> Rc<Flow> {
        self.flows.flow(&[
            ends.direction.as_str(),
            ends.source.workload,
            ends.source.namespace,
            ends.source.identity,
            ends.destination.workload,
            ends.destination.namespace,
            ends.destination.identity,
            ends.service,
            ends.protocol.as_str(),
            metrics::tls(ends.tls),
        ])
    }

    fn audited(
        &mut self,
        direction: Direction,
        (source, destination): (&Party<'_>, &Party<'_>),
        service: &str,
        route: &str,
        policy: &str,
    ) {
        *self.audited.series(&[
            direction.as_str(),
            source.workload,
            source.namespace,
            source.identity,
            destination.workload,
            destination.namespace,
            destination.identity,
            service,
            route,
            policy,
        ]) += 1;
    }

    fn drain(&mut self) -> Delta {
        Delta {
            requests: self.requests.drain(),
            connections: self.connections.drain(),
            flows: self.flows.drain(),
            audited: self.audited.drain(),
            opened: self.opened.drain(),
            retries: self.retries.drain(),
            detections: std::mem::take(&mut self.detections),
            open: self.open,
            breakers: Vec::new(),
            log_lines_lost: 0,
        }
    }
}
