//! What one worker counts, in plain cells of its own thread.

use std::{cell::RefCell, rc::Rc, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::{
    AccessLogMode, ConnectionRecord, Direction, EndpointSeen, Ends, Flow, Hop, Party, ProbeOutcome, Protocol,
    RequestRecord, RetryOutcome, WorkerSeen,
    access_log::{AccessLog, Sink},
    audit_log::{AuditLog, RESULTS},
    cardinality::Table,
    cells::{DETECTION_BOUNDS, Example, Histogram, RequestCell},
    delta::{Delta, Series},
    flow::Flows,
    metrics::{self, Metric},
    span::{Sampling, Spans},
    store::Link,
};

/// The recorder of one worker thread; clones share its cells. Nothing here takes a lock, and counting allocates nothing
/// once a series exists.
#[derive(Clone, Debug)]
pub(crate) struct WorkerTelemetry {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    counts: RefCell<Counts>,
    log: AccessLog,
    audit: AuditLog,
    /// Where spans go; `None` where none are made.
    spans: Option<Spans>,
    flushes: RefCell<Option<Flushes>>,
}

#[derive(Debug)]
struct Flushes {
    asked: mpsc::Receiver<Instant>,
    answers: mpsc::Sender<Delta>,
}

#[derive(Debug)]
struct Counts {
    requests: Table<RequestCell>,
    connections: Table<u64>,
    flows: Flows,
    counted: Own<u64>,
    timed: Own<Histogram>,
    open: [u64; 2],
}

/// A table for each metric that has labels of its own.
#[derive(Debug)]
struct Own<V> {
    tables: Vec<(&'static Metric, Table<V>)>,
    limit: usize,
}

impl<V: Default + PartialEq> Own<V> {
    const fn new(limit: usize) -> Self {
        Self { tables: Vec::new(), limit }
    }

    /// The value of the series of `metric` with these labels. Such metrics are few, so the table is sought one by one.
    fn series(&mut self, metric: &'static Metric, labels: &[&str]) -> &mut V {
        let known = self.tables.iter().position(|(of, _)| std::ptr::eq(*of, metric));
        let at = known.unwrap_or_else(|| {
            self.tables.push((metric, Table::new(metric.labels.len(), self.limit)));
            self.tables.len() - 1
        });
        self.tables[at].1.series(labels)
    }

    fn drain(&mut self) -> Vec<(&'static Metric, Series<V>)> {
        self.tables.iter_mut().map(|(metric, table)| (*metric, table.drain())).collect()
    }
}

impl WorkerTelemetry {
    pub(super) fn new(sink: Sink, audit: AuditLog, spans: Option<Spans>, limit: usize) -> (Self, Link) {
        let (ask, asked) = mpsc::channel(1);
        let (answers, answered) = mpsc::channel(1);
        let inner = Inner {
            counts: RefCell::new(Counts::new(limit)),
            log: AccessLog::new(sink),
            audit,
            spans,
            flushes: RefCell::new(Some(Flushes { asked, answers })),
        };
        (Self { inner: Rc::new(inner) }, Link::new(ask, answered))
    }

    /// Sets which requests and connections this worker writes to the access log.
    pub(crate) fn set_access_log(&self, mode: AccessLogMode) {
        self.inner.log.set_mode(mode);
    }

    /// Which of the traces that begin here are recorded; `None` where no spans are made.
    pub(crate) fn sampling(&self) -> Option<Sampling> {
        self.inner.spans.as_ref().map(Spans::sampling)
    }

    /// Counts and logs one finished request, and hands its span over. Denials and rate limits are told by its reason.
    pub(crate) fn request(&self, record: &RequestRecord<'_>) {
        self.inner.counts.borrow_mut().request(record);
        self.inner.log.request(record);
        self.inner.audit.request(record);
        self.span(record);
    }

    /// Hands over the span of a request, or of a try that is counted by other means.
    pub(crate) fn span(&self, record: &RequestRecord<'_>) {
        if let (Some(span), Some(spans)) = (&record.span, &self.inner.spans) {
            spans.give(record, span);
        }
    }

    /// Counts a connection that was accepted (inbound and outbound alike are accepted by the sidecar).
    pub(crate) fn connection_opened(&self, direction: Direction, hop: Hop) {
        let mut counts = self.inner.counts.borrow_mut();
        counts.open[direction as usize] += 1;
        *counts.counted.series(&metrics::TCP_OPENED, &[direction.as_str(), hop.as_str()]) += 1;
    }

    /// Where the bytes of an open connection are counted.
    pub(crate) fn flow(&self, ends: &Ends<'_>) -> Rc<Flow> {
        self.inner.counts.borrow_mut().flow(ends)
    }

    /// Counts, and for opaque or refused ones logs, the end of a connection that was counted as opened.
    pub(crate) fn connection_closed(&self, record: &ConnectionRecord<'_>) {
        self.inner.counts.borrow_mut().connection(record);
        self.inner.log.connection(record);
        self.inner.audit.connection(record);
    }

    /// Counts one retry, or one that was refused, towards `destination` (`namespace/name`).
    pub(crate) fn retry(&self, destination: &str, outcome: RetryOutcome) {
        *self.inner.counts.borrow_mut().counted.series(&metrics::RETRIES, &[destination, outcome.as_str()]) += 1;
    }

    /// Counts one probe of the application.
    pub(crate) fn probe(&self, protocol: Protocol, outcome: ProbeOutcome) {
        *self.inner.counts.borrow_mut().counted.series(&metrics::PROBES, &[protocol.as_str(), outcome.as_str()]) += 1;
    }

    /// Counts a request whose host was not asked for, because too many new ones came.
    pub(crate) fn host_not_asked(&self) {
        *self.inner.counts.borrow_mut().counted.series(&metrics::HOSTS_NOT_ASKED, &[]) += 1;
    }

    /// Counts what was tried since the last look at an endpoint that nobody looks at any more.
    pub(crate) fn endpoint_left(&self, seen: &EndpointSeen) {
        self.inner.counts.borrow_mut().endpoint(seen);
    }

    /// Counts how long it took to tell what a connection speaks.
    pub(crate) fn detection(&self, duration: Duration, protocol: Protocol) {
        let mut counts = self.inner.counts.borrow_mut();
        counts.timed.series(&metrics::DETECTION, &[protocol.as_str()]).observe(&DETECTION_BOUNDS, duration);
    }

    /// Answers the scrapes of the control thread, with what `look` says at that moment, and writes the access log out
    /// in time. Spawn it once on the worker; it ends when [`super::Telemetry`] is gone, and further calls end at once.
    pub(crate) async fn serve_flushes(self, look: impl Fn() -> WorkerSeen) {
        let Some(mut flushes) = self.inner.flushes.take() else { return };
        loop {
            tokio::select! {
                asked = flushes.asked.recv() => {
                    let Some(asked) = asked else { return };
                    let lag = asked.elapsed();
                    let seen = look();
                    seen.endpoints.iter().for_each(|endpoint| self.inner.counts.borrow_mut().endpoint(endpoint));
                    let delta = Delta { seen, lag, ..self.inner.drain() };
                    if flushes.answers.send(delta).await.is_err() {
                        return;
                    }
                }
                () = self.inner.log.due() => self.inner.log.flush(),
            }
        }
    }
}

impl Inner {
    fn drain(&self) -> Delta {
        self.log.flush();
        let mut counts = self.counts.borrow_mut();
        for (result, events) in RESULTS.into_iter().zip(self.audit.take()).filter(|(_, events)| *events > 0) {
            *counts.counted.series(&metrics::AUDIT_EVENTS, &[result]) += events;
        }
        let mut delta = counts.drain();
        delta.log_lines_lost = self.log.take_lost();
        delta.log_lines_suppressed = self.log.take_suppressed();
        delta
    }
}

impl Counts {
    fn new(limit: usize) -> Self {
        Self {
            requests: Table::new(metrics::REQUEST.len(), limit),
            connections: Table::new(metrics::CONNECTION.len(), limit),
            flows: Flows::new(limit),
            counted: Own::new(limit),
            timed: Own::new(limit),
            open: [0; 2],
        }
    }

    fn request(&mut self, record: &RequestRecord<'_>) {
        let ends = ends(record.direction, &record.source, &record.destination, record.service);
        if let Some(audited) = record.audited {
            self.audited(ends, record.route, &audited.policy);
        }
        let mut digits = [0; 5];
        let labels: [&str; metrics::REQUEST.len()] = metrics::behind(
            ends,
            [
                record.route,
                metrics::code(record.code, &mut digits),
                metrics::class(record.code),
                metrics::grpc_status(record.grpc_status),
                record.reason.map_or("", |reason| reason.code()),
                record.protocol.as_str(),
                record.hop.as_str(),
                record.policy,
            ],
        );
        let cell = self.requests.series(&labels);
        cell.add(record.duration, record.bytes_received, record.bytes_sent);
        if !record.traceparent.is_empty() {
            cell.example = Example::of(record.traceparent, record.duration).or(cell.example);
        }
    }

    fn connection(&mut self, record: &ConnectionRecord<'_>) {
        let ConnectionRecord { ends: of, reason, policy, audited, .. } = record;
        let open = &mut self.open[of.direction as usize];
        *open = open.saturating_sub(1);
        let ends = ends(of.direction, &of.source, &of.destination, of.service);
        if let Some(audited) = audited {
            self.audited(ends, "", &audited.policy);
        }
        let reason = reason.map_or("", |reason| reason.code());
        let labels: [&str; metrics::CONNECTION.len()] =
            metrics::behind(ends, [reason, of.protocol.as_str(), of.hop.as_str(), policy]);
        *self.connections.series(&labels) += 1;
    }

    fn flow(&mut self, of: &Ends<'_>) -> Rc<Flow> {
        let ends = ends(of.direction, &of.source, &of.destination, of.service);
        self.flows.flow(&metrics::behind(ends, [of.protocol.as_str(), of.hop.as_str()]))
    }

    fn audited(&mut self, ends: [&str; 8], route: &str, policy: &str) {
        let labels: [&str; 10] = metrics::behind(ends, [route, policy]);
        *self.counted.series(&metrics::AUDITED, &labels) += 1;
        *self.counted.series(&metrics::POLICY_ACTIONS, &[ends[0], policy, "audited"]) += 1;
    }

    /// Adds what an endpoint has counted by itself since the last look.
    fn endpoint(&mut self, endpoint: &EndpointSeen) {
        let tried = (&metrics::TRIES, ["success", "failure"].into_iter().zip(endpoint.tries));
        let switched = (&metrics::BREAKER_SWITCHES, ["open", "closed"].into_iter().zip(endpoint.switched));
        for (metric, counts) in [tried, switched] {
            for (last, count) in counts.filter(|(_, count)| *count > 0) {
                let address = endpoint.endpoint.to_string();
                *self.counted.series(metric, &[&endpoint.service, &address, last]) += count;
            }
        }
    }

    fn drain(&mut self) -> Delta {
        Delta {
            requests: self.requests.drain(),
            connections: self.connections.drain(),
            flows: self.flows.drain(),
            counted: self.counted.drain(),
            timed: self.timed.drain(),
            open: self.open,
            ..Delta::default()
        }
    }
}

/// Values of the labels that whatever passes the sidecar has.
const fn ends<'a>(direction: Direction, source: &Party<'a>, destination: &Party<'a>, service: &'a str) -> [&'a str; 8] {
    [
        direction.as_str(),
        source.workload,
        source.namespace,
        source.identity,
        destination.workload,
        destination.namespace,
        destination.identity,
        service,
    ]
}
