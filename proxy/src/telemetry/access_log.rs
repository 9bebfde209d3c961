//! The access log: one JSON object a line, written by hand into a buffer of the worker.
//!
//! Keys are OpenTelemetry attribute names, `selvedge.*` for what has none. Every value is escaped so that no byte a
//! caller sends can end a line, a string or reach a terminal as a control sequence, and is cut at a fixed length.
//! A slow reader of the log never slows a request: what it cannot take is dropped and counted.

use std::{
    cell::{Cell, RefCell},
    hash::Hash,
    net::SocketAddr,
    time::Duration,
};

use selvedge_decide::config::AccessLogMode;
use selvedge_identity::line::Object;
use selvedge_policies::{context::Audited, reason::Reason};
use tokio::{sync::Notify, time::sleep};

use super::{ConnectionRecord, Hop, Party, Protocol, RequestRecord, metrics, outcome, timestamp::Timestamp};

mod kinds;
mod sink;

use kinds::Kinds;
pub(super) use sink::{FINISH_LIMIT, Sink};

/// A buffer this full is handed over at once.
const BATCH: usize = 16 * 1024;
/// How long a line may wait for others to be written with.
const DELAY: Duration = Duration::from_secs(1);

/// The access log of one worker.
#[derive(Debug)]
pub(super) struct AccessLog {
    sink: Sink,
    mode: Cell<AccessLogMode>,
    buffer: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    /// The first line of a buffer is in it. Nothing looks at the clock before.
    begun: Notify,
    lost: Cell<u64>,
    errors: Kinds,
    timestamp: RefCell<Timestamp>,
}

impl AccessLog {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink,
            mode: Cell::default(),
            buffer: RefCell::default(),
            lines: Cell::new(0),
            begun: Notify::new(),
            lost: Cell::new(0),
            errors: Kinds::new(),
            timestamp: RefCell::default(),
        }
    }

    pub(super) fn set_mode(&self, mode: AccessLogMode) {
        self.mode.set(mode);
    }

    /// Lines that were dropped since the last call.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.take()
    }

    /// Lines about refusals and errors that were not written since the last call, because there were too many alike.
    pub(super) fn take_suppressed(&self) -> u64 {
        self.errors.take_suppressed()
    }

    pub(super) fn request(&self, record: &RequestRecord<'_>) {
        let failed = record.code >= 500 || outcome::is_server_error(metrics::grpc_status(record.grpc_status));
        // Whoever has had an answer and leaves before its end, as those who listen for events do, had nothing refused.
        let left = record.reason == Some(Reason::DownstreamClosed) && (200..400).contains(&record.code);
        let kind = kind(&record.source, record.peer, record.reason, record.audited);
        let worth_it = failed || worth_it(record.reason.filter(|_| !left), record.audited);
        let Some(suppressed) = self.admit(worth_it, kind) else { return };
        self.line(suppressed, |line| {
            let http = matches!(record.protocol, Protocol::Http1 | Protocol::Http2 | Protocol::Grpc);
            line.text("selvedge.direction", record.direction.as_str())
                .text("http.request.method", record.method)
                .text("server.address", record.host)
                .plain("server.port", record.port)
                .text("url.path", record.path)
                .text("selvedge.path_sent", record.path_sent)
                .text("http.route", record.route)
                .text("network.protocol.name", if http { "http" } else { record.protocol.as_str() })
                .text("network.protocol.version", record.protocol.version());
            if record.code > 0 {
                line.plain("http.response.status_code", record.code);
            }
            if let Some(status) = record.grpc_status {
                line.plain("rpc.grpc.status_code", status);
            }
            line.plain("duration_s", format_args!("{:.6}", record.duration.as_secs_f64()))
                .plain("http.request.body.size", record.bytes_received)
                .plain("http.response.body.size", record.bytes_sent);
            who(line, (&record.source, record.peer), (&record.destination, record.upstream), record.service);
            let policy = if record.policy.is_empty() { record.policy_there } else { record.policy };
            verdict(line, record.hop, record.reason, (policy, record.rule), record.detail);
            looked_on(line, record.audited);
            line.plain("selvedge.retries", record.retries).text("request_id", record.request_id);
            trace(line, record.traceparent);
        });
    }

    /// Logs a connection of opaque bytes, or one that was refused; requests speak for the others.
    pub(super) fn connection(&self, record: &ConnectionRecord<'_>) {
        let ends = &record.ends;
        let opaque = matches!(ends.protocol, Protocol::Tcp | Protocol::Tls);
        if !opaque && record.reason.is_none() {
            return;
        }
        let kind = kind(&ends.source, record.peer, record.reason, record.audited);
        let Some(suppressed) = self.admit(worth_it(record.reason, record.audited), kind) else { return };
        self.line(suppressed, |line| {
            line.text("selvedge.direction", ends.direction.as_str())
                .plain("server.port", record.port)
                .text("network.protocol.name", ends.protocol.as_str())
                .text("tls.client.server_name", record.server_name)
                .plain("duration_s", format_args!("{:.6}", record.duration.as_secs_f64()))
                .plain("selvedge.bytes_received", record.bytes_received)
                .plain("selvedge.bytes_sent", record.bytes_sent);
            who(line, (&ends.source, record.peer), (&ends.destination, record.upstream), ends.service);
            verdict(line, ends.hop, record.reason, (record.policy, record.rule), record.detail);
            looked_on(line, record.audited);
        });
    }

    /// Whether a line may be written now, and how many were suppressed before it.
    fn admit(&self, error: bool, kind: impl Hash) -> Option<u64> {
        match self.mode.get() {
            AccessLogMode::Off => None,
            AccessLogMode::Errors if error => self.errors.take(kind),
            AccessLogMode::Errors => None,
            AccessLogMode::All => Some(0),
        }
    }

    fn line(&self, suppressed: u64, fill: impl FnOnce(&mut Object<'_>)) {
        let mut buffer = self.buffer.borrow_mut();
        let mut line = Object::open(&mut buffer);
        line.text("time", self.timestamp.borrow_mut().now());
        fill(&mut line);
        if suppressed > 0 {
            line.plain("selvedge.suppressed_lines", suppressed);
        }
        line.close();
        if self.lines.replace(self.lines.get() + 1) == 0 {
            self.begun.notify_one();
        }
        let full = buffer.len() >= BATCH;
        drop(buffer);
        if full {
            self.flush();
        }
    }

    /// Returns when a line has waited for as long as it may.
    pub(super) async fn due(&self) {
        while self.lines.get() == 0 {
            self.begun.notified().await;
        }
        sleep(DELAY).await;
    }

    /// Hands the buffer to the writer.
    pub(super) fn flush(&self) {
        let lines = self.lines.take();
        if lines > 0 && !self.sink.send(self.buffer.take()) {
            self.lost.set(self.lost.get() + lines);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Who called and who was called.
fn who(
    line: &mut Object<'_>,
    (source, peer): (&Party<'_>, SocketAddr),
    (destination, upstream): (&Party<'_>, Option<SocketAddr>),
    service: &str,
) {
    line.text("source.workload", source.workload)
        .text("source.namespace", source.namespace)
        .text("source.identity", source.identity)
        .address("source.address", peer.ip())
        .plain("source.port", peer.port())
        .text("destination.workload", destination.workload)
        .text("destination.namespace", destination.namespace)
        .text("destination.identity", destination.identity)
        .text("selvedge.service", service);
    if let Some(upstream) = upstream {
        line.address("destination.address", upstream.ip()).plain("destination.port", upstream.port());
    }
}

/// What lines about refusals and errors have in common that are counted together: the caller, by its identity or else its
/// address, and the reason.
fn kind<'a>(
    source: &Party<'a>,
    peer: SocketAddr,
    reason: Option<Reason>,
    audited: Option<&'a Audited>,
) -> impl Hash + use<'a> {
    (source.identity, source.identity.is_empty().then_some(peer.ip()), reason, audited.map(|audited| &*audited.policy))
}

/// Whether the mesh had anything to say.
const fn worth_it(reason: Option<Reason>, audited: Option<&Audited>) -> bool {
    reason.is_some() || audited.is_some()
}

/// What the mesh had to say.
fn verdict(line: &mut Object<'_>, hop: Hop, reason: Option<Reason>, by: (&str, Option<u32>), detail: &str) {
    line.text("selvedge.tls", hop.as_str());
    if let Some(reason) = reason {
        line.text("selvedge.reason", reason.code()).text("selvedge.response_flag", reason.flag());
        line.text("selvedge.page", reason.page());
    }
    line.text("selvedge.policy", by.0);
    if let Some(rule) = by.1 {
        line.plain("selvedge.rule", format_args!("\"rules[{rule}]\""));
    }
    line.text("selvedge.detail", detail);
}

/// What a policy that only looks on had to say.
fn looked_on(line: &mut Object<'_>, audited: Option<&Audited>) {
    let Some(Audited { policy, rule, .. }) = audited else { return };
    line.text("selvedge.audited", policy);
    if let Some(rule) = rule {
        line.plain("selvedge.audited_rule", format_args!("\"rules[{rule}]\""));
    }
}

/// Trace and span id out of a `traceparent` (W3C Trace Context section 3.2); nothing when it is malformed.
fn trace(line: &mut Object<'_>, traceparent: &str) {
    let mut parts = traceparent.splitn(4, '-');
    let (Some(_), Some(trace), Some(span)) = (parts.next(), parts.next(), parts.next()) else { return };
    let hex = |id: &str, len: usize| id.len() == len && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex(trace, 32) && hex(span, 16) {
        line.text("trace_id", trace).text("span_id", span);
    }
}
