//! The list of every metric: name, labels, meaning. `docs/metrics.md` is generated from it.
//!
//! Labels never hold what a caller chooses freely (method, path, host): their values come from configuration, from
//! certificates and from fixed lists.

use std::{fmt::Write, time::Duration};

use prometheus::proto::MetricFamily;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size; has `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Name, `selvedge_` first, base unit and `_total` last.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// One sentence, shown as `# HELP`.
    pub help: &'static str,
}

/// Upper bounds of the request duration in seconds: those of OpenTelemetry's `http.server.request.duration`, and
/// three finer ones, because a neighbour in the mesh often answers within a millisecond.
pub const DURATION_BOUNDS: [f64; BOUNDS] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Upper bounds of the detection time in seconds.
pub const DETECTION_BOUNDS: [f64; BOUNDS] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5,
];

const BOUNDS: usize = 17;

/// Labels by which a worker tells requests apart; each metric shows some of them.
pub(super) const REQUEST: [&str; 16] = [
    "direction",
    "source_workload",
    "source_namespace",
    "source_identity",
    "destination_workload",
    "destination_namespace",
    "destination_identity",
    "destination_service",
    "route",
    "response_code",
    "response_class",
    "grpc_status",
    "reason",
    "protocol",
    "tls",
    "policy",
];

/// Labels by which a worker tells closed connections apart.
pub(super) const CONNECTION: [&str; 12] = [
    "direction",
    "source_workload",
    "source_namespace",
    "source_identity",
    "destination_workload",
    "destination_namespace",
    "destination_identity",
    "destination_service",
    "reason",
    "protocol",
    "tls",
    "policy",
];

/// Labels of bytes that pass over connections, known when a connection opens.
pub(super) const FLOW: [&str; 10] = [
    "direction",
    "source_workload",
    "source_namespace",
    "source_identity",
    "destination_workload",
    "destination_namespace",
    "destination_identity",
    "destination_service",
    "protocol",
    "tls",
];

/// All of [`REQUEST`] but the policy.
const REQUEST_OUTCOME: &[&str] = REQUEST.split_at(15).0;

/// What is worth a histogram: one for each peer, route and class, not one for each code.
const REQUEST_SIZE: &[&str] = &[
    "direction",
    "source_workload",
    "source_namespace",
    "source_identity",
    "destination_workload",
    "destination_namespace",
    "destination_identity",
    "destination_service",
    "route",
    "response_class",
    "protocol",
    "tls",
];

/// All of [`CONNECTION`] but the policy.
const CONNECTION_OUTCOME: &[&str] = CONNECTION.split_at(11).0;

/// What a refusal says; shared by requests and connections.
const DENIAL: &[&str] = &CONNECTION;

/// Labels of what a policy decided about requests, or would have.
pub(super) const DECISION: [&str; 10] = [
    "direction",
    "source_workload",
    "source_namespace",
    "source_identity",
    "destination_workload",
    "destination_namespace",
    "destination_identity",
    "destination_service",
    "route",
    "policy",
];

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(pub(super) static $constant: Metric =
            Metric { name: $name, kind: MetricKind::$kind, labels: $labels, help: $help };)*

        /// Every metric, in the order of the documentation.
        pub static ALL: &[&Metric] = &[$(&$constant,)*];
    };
}

metrics! {
    REQUESTS Counter "selvedge_requests_total" REQUEST_OUTCOME,
        "Requests that ended, by how they ended.";
    REQUEST_DURATION Histogram "selvedge_request_duration_seconds" REQUEST_SIZE,
        "Time from the first byte of a request to the last byte of its response.";
    REQUEST_BYTES Counter "selvedge_request_bytes_total" REQUEST_SIZE,
        "Bytes of request bodies received from callers.";
    RESPONSE_BYTES Counter "selvedge_response_bytes_total" REQUEST_SIZE,
        "Bytes of response bodies sent to callers.";
    DENIALS Counter "selvedge_denials_total" DENIAL,
        "Requests and connections refused by policy.";
    AUDITED Counter "selvedge_audited_total" &DECISION,
        "Requests and connections that an AUDIT policy would have refused, and that were let pass.";
    RATE_LIMITED Counter "selvedge_rate_limited_total" &DECISION,
        "Requests refused because the caller is over a rate limit.";
    RETRIES Counter "selvedge_retries_total" &["destination_service", "outcome"],
        "Retries made (success, failure) and not made (over_budget, not_replayable).";
    BREAKER_STATE Gauge "selvedge_breaker_state" &["destination_service", "endpoint"],
        "Circuit breaker of an endpoint: 0 closed, 1 half open, 2 open; the worst of all workers.";
    TCP_OPENED Counter "selvedge_tcp_connections_opened_total" &["direction", "tls"],
        "Connections accepted, whatever they carry, and tunnels through them.";
    TCP_CLOSED Counter "selvedge_tcp_connections_closed_total" CONNECTION_OUTCOME,
        "The same, when they end.";
    TCP_OPEN Gauge "selvedge_tcp_connections_open" &["direction"],
        "Connections and tunnels open now.";
    TCP_RECEIVED Counter "selvedge_tcp_received_bytes_total" &FLOW,
        "Bytes of opaque connections and tunnels received from callers, counted as they pass.";
    TCP_SENT Counter "selvedge_tcp_sent_bytes_total" &FLOW,
        "Bytes of opaque connections and tunnels sent to callers, counted as they pass.";
    DETECTION Histogram "selvedge_detection_duration_seconds" &["protocol"],
        "Time from accept to knowing what a connection speaks.";
    CERTIFICATE_EXPIRATION Gauge "selvedge_certificate_expiration_timestamp_seconds" &[],
        "When the workload's certificate expires, in seconds since the Unix epoch.";
    CONFIG_GENERATION Gauge "selvedge_config_generation" &[],
        "Number of the configuration in force.";
    CONFIG_REFUSED Counter "selvedge_config_refused_total" &[],
        "Configurations refused; the one before stayed in force.";
    CONFIG_LAST_ERROR Gauge "selvedge_config_last_error_info" &["error"],
        "Present with value 1 while the newest configuration is one that was refused.";
    XDS_CONNECTED Gauge "selvedge_xds_connected" &[],
        "1 while the stream to the control plane is up, else 0.";
    BUILD_INFO Gauge "selvedge_build_info" &["version", "workload", "namespace"],
        "Always 1; says what runs here.";
    MEMORY Gauge "selvedge_process_resident_memory_bytes" &[],
        "Resident memory of the sidecar.";
    CPU Counter "selvedge_process_cpu_seconds_total" &[],
        "User and system CPU time of the sidecar.";
    LOG_LOST Counter "selvedge_access_log_lost_lines_total" &[],
        "Access log lines dropped because their reader is too slow.";
    OVERFLOW Counter "selvedge_metrics_overflow_total" &["metric"],
        "Records counted under the overflow series of a metric because it has too many series.";
}

/// Observations by size, and their sum in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// One more than there are bounds: the last holds what is above them all. Not cumulative.
    pub(super) counts: [u64; BOUNDS + 1],
    pub(super) sum: f64,
}

impl Histogram {
    pub(super) fn observe(&mut self, bounds: &[f64; BOUNDS], value: Duration) {
        let seconds = value.as_secs_f64();
        self.counts[bounds.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The label of a hop: `mtls` or `none`.
pub(super) const fn tls(tls: bool) -> &'static str {
    if tls { "mtls" } else { "none" }
}

/// The class of an HTTP status (RFC 9110 section 15): `1xx` to `5xx`, `none` for 0, `other` for what is no status.
pub(super) const fn class(code: u16) -> &'static str {
    match code {
        0 => "none",
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500..600 => "5xx",
        _ => "other",
    }
}

/// A gRPC status as a label, empty when there is none; numbers that gRPC does not define read `other`.
pub(super) fn grpc_status(status: Option<u16>) -> &'static str {
    const NAMES: [&str; 17] =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];
    status.map_or("", |status| NAMES.get(usize::from(status)).copied().unwrap_or("other"))
}

/// `number` in decimal, written into `buffer`.
pub(super) fn decimal(mut number: u16, buffer: &mut [u8; 5]) -> &str {
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return std::str::from_utf8(&buffer[start..]).unwrap_or_default();
        }
    }
}

/// The Prometheus text format. A family that cannot be encoded is left out rather than failing the scrape.
pub(super) fn encode<'a>(families: impl Iterator<Item = &'a MetricFamily>) -> String {
    let encoder = prometheus::TextEncoder::new();
    let mut text = String::new();
    for family in families {
        let before = text.len();
        if encoder.encode_utf8(std::slice::from_ref(family), &mut text).is_err() {
            text.truncate(before);
        }
    }
    text
}

/// The table of `docs/metrics.md`.
pub fn reference() -> String {
    let mut text = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = format!("{:?}", metric.kind).to_lowercase();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {kind} | {} | {} |", metric.name, labels.join(" "), metric.help);
    }
    text
}
