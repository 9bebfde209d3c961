//! The list of every metric: name, labels, meaning, and where its numbers come from. `docs/metrics.md` is generated from
//! it. A metric of what is counted anyway is declared here and nowhere else; any other is counted where it happens, by
//! [`super::WorkerTelemetry`], or set by the control thread.
//!
//! Labels never hold what a caller chooses freely (method, path, host): their values come from configuration, from
//! certificates and from fixed lists.

use prometheus::proto::MetricFamily;
use selvedge_policies::reason::Reason;

use super::{
    audit_log,
    cells::{Bounds, DETECTION_BOUNDS, DURATION_BOUNDS, Histogram, RequestCell},
    origin::Origin,
    outcome::{self, ACTIONS, OUTCOMES, REASONS},
    record::RETRY_OUTCOMES,
};

/// What a metric is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MetricKind {
    /// A sum that only goes up while the process runs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size; has `_bucket`, `_sum` and `_count`. Upper bounds in seconds.
    Histogram(&'static Bounds),
}

/// How a metric follows from what workers count anyway. One without any is counted where it happens, or set by the control
/// thread. `None` makes no series.
#[derive(Debug)]
pub(super) enum Fold {
    /// From requests.
    Requests(fn(&Origin<'_>, &RequestCell) -> Option<u64>),
    /// From the durations of requests.
    Durations(fn(&RequestCell) -> &Histogram),
    /// From connections that ended, and how many those were.
    Connections(fn(&Origin<'_>, u64) -> Option<u64>),
    /// From bytes that passed, received and sent.
    Flows(fn(u64, u64) -> u64),
}

/// One metric as it is documented and shown in the Prometheus text format.
#[derive(Debug)]
pub(crate) struct Metric {
    /// Name, `selvedge_` first, base unit and `_total` last.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// The names of its labels, in the order in which they are shown.
    pub labels: &'static [&'static str],
    /// All values of its last label: as soon as there is a series with one of them, those with the others are there, at zero.
    /// Empty where values are as they come.
    pub zeros: &'static [&'static str],
    /// One sentence, shown as `# HELP`.
    pub help: &'static str,
    /// Where its numbers come from.
    pub(super) folds: &'static [Fold],
}

/// Labels that whatever passes the sidecar has: who called whom.
const ENDS: [&str; 8] = [
    "direction",
    "source_workload",
    "source_namespace",
    "source_identity",
    "destination_workload",
    "destination_namespace",
    "destination_identity",
    "destination_service",
];

/// Labels by which a worker tells requests apart; each metric shows some of them.
pub(super) const REQUEST: [&str; 16] =
    behind(ENDS, ["route", "response_code", "response_class", "grpc_status", "reason", "protocol", "tls", "policy"]);

/// Labels by which a worker tells closed connections apart.
pub(super) const CONNECTION: [&str; 12] = behind(ENDS, ["reason", "protocol", "tls", "policy"]);

/// Labels of bytes that pass over connections, known when a connection opens.
pub(super) const FLOW: [&str; 10] = behind(ENDS, ["protocol", "tls"]);

/// Labels of what a policy decided about requests, or would have.
const DECISION: [&str; 10] = behind(ENDS, ["route", "policy"]);

/// What is worth a histogram: one for each peer, route and class, not one for each code.
const REQUEST_SIZE: [&str; 12] = behind(ENDS, ["route", "response_class", "protocol", "tls"]);

/// All of [`REQUEST`] but the policy, and what it came to.
const REQUEST_OUTCOME: [&str; 16] = instead_of_the_last(REQUEST, "outcome");

/// All of [`CONNECTION`] but the policy, and what it came to.
const CONNECTION_OUTCOME: [&str; 12] = instead_of_the_last(CONNECTION, "outcome");

/// What a caller and a service have with each other, whichever endpoints, routes and codes there were.
const EDGE: [&str; 6] =
    ["direction", "source_workload", "source_namespace", "source_identity", "destination_service", "outcome"];

const fn instead_of_the_last<'a, const N: usize>(mut names: [&'a str; N], last: &'a str) -> [&'a str; N] {
    names[N - 1] = last;
    names
}

/// What metrics and logs have in the place of a route's name, which has slashes, for a probe.
pub(crate) const PROBE: &str = "probe";

/// Labels of the ends with `more` behind them; for their names and for their values.
pub(super) const fn behind<'a, const M: usize, const N: usize>(ends: [&'a str; 8], more: [&'a str; M]) -> [&'a str; N] {
    assert!(N == 8 + M, "as many labels as there are");
    let mut all = [""; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < 8 { ends[at] } else { more[at - 8] };
        at += 1;
    }
    all
}

macro_rules! metrics {
    (@zeros) => { &[] };
    (@zeros $zeros:expr) => { $zeros };
    ($($constant:ident $kind:expr, $name:literal $labels:expr $(=> $zeros:expr)?, $help:literal $(, $fold:expr)*;)*) => {
        $(pub(super) static $constant: Metric = Metric {
            name: $name,
            kind: $kind,
            labels: $labels,
            zeros: metrics!(@zeros $($zeros)?),
            help: $help,
            folds: &[$($fold),*],
        };)*

        /// Every metric, in the order of the documentation.
        pub(crate) static ALL: &[&Metric] = &[$(&$constant,)*];
    };
}

use Fold::{Connections, Durations, Flows, Requests};
use MetricKind::{Counter, Gauge, Histogram as Observed};

metrics! {
    REQUESTS Counter, "selvedge_requests_total" &REQUEST_OUTCOME,
        "Requests that ended, by how they ended.",
        Requests(|_, cell| Some(cell.count));
    EDGE_REQUESTS Counter, "selvedge_edge_requests_total" &EDGE => &OUTCOMES,
        "The same but for probes, by who called which service: at zero from when the service may be called, or first was.",
        Requests(|from, cell| (from.get("route") != PROBE).then_some(cell.count));
    REQUEST_DURATION Observed(&DURATION_BOUNDS), "selvedge_request_duration_seconds" &REQUEST_SIZE,
        "Time from the first byte of a request to the last byte of its response.",
        Durations(|cell| &cell.duration);
    REQUEST_BYTES Counter, "selvedge_request_bytes_total" &REQUEST_SIZE,
        "Bytes of request bodies received from callers.",
        Requests(|_, cell| Some(cell.bytes_received));
    RESPONSE_BYTES Counter, "selvedge_response_bytes_total" &REQUEST_SIZE,
        "Bytes of response bodies sent to callers.",
        Requests(|_, cell| Some(cell.bytes_sent));
    DENIALS Counter, "selvedge_denials_total" &CONNECTION,
        "Requests and connections refused by policy.",
        Requests(|from, cell| outcome::is_denial(from.get("reason")).then_some(cell.count)),
        Connections(|from, count| outcome::is_denial(from.get("reason")).then_some(count));
    POLICY_ACTIONS Counter, "selvedge_policy_actions_total" &["direction", "policy", "action"] => &ACTIONS,
        "Requests and connections that a policy has denied or limited, or would have (audited): at zero from when it is in force.",
        Requests(|from, cell| (!from.get("action").is_empty()).then_some(cell.count)),
        Connections(|from, count| (!from.get("action").is_empty()).then_some(count));
    REASONS_SEEN Counter, "selvedge_reasons_total" &["direction", "reason"] => &REASONS,
        "Requests and connections that ended without the service's own answer, by why: each at zero from the start.",
        Requests(|from, cell| (!from.get("reason").is_empty()).then_some(cell.count)),
        Connections(|from, count| (!from.get("reason").is_empty()).then_some(count));
    AUDITED Counter, "selvedge_audited_total" &DECISION,
        "Requests and connections that an AUDIT policy would have refused, and that were let pass.";
    RATE_LIMITED Counter, "selvedge_rate_limited_total" &DECISION,
        "Requests refused because the caller is over a rate limit.",
        Requests(|from, cell| (from.get("reason") == Reason::RateLimited.code()).then_some(cell.count));
    RETRIES Counter, "selvedge_retries_total" &["destination_service", "outcome"] => &RETRY_OUTCOMES,
        "Retries made (success, failure) and not made (over_budget, not_replayable).";
    TRIES Counter, "selvedge_tries_total" &["destination_service", "endpoint", "outcome"] => &["success", "failure"],
        "Tries of requests and opaque connections at an endpoint, retries among them: answered below 500 or connected, and others.";
    ENDPOINTS Gauge, "selvedge_endpoints" &["destination_service", "state"],
        "Endpoints of a service, as the worker that is worst off sees each: available, left_alone (for a second), breaker_open.";
    IN_FLIGHT Gauge, "selvedge_calls_in_flight" &["direction", "destination_service"],
        "Requests and opaque connections under way now; inbound to the application.";
    UPSTREAM_CONNECTIONS Gauge, "selvedge_upstream_connections" &["destination_service", "state"],
        "Connections kept to the endpoints of a service: shared by many requests, or idle ones of HTTP/1.";
    UPSTREAM_STREAMS Gauge, "selvedge_upstream_streams" &["destination_service"],
        "Requests and tunnels on the shared connections.";
    RETRY_BUDGET Gauge, "selvedge_retry_budget_remaining" &["destination_service"],
        "Retries that the budget of a service would still allow now.";
    BREAKER_SWITCHES Counter, "selvedge_breaker_switches_total" &["destination_service", "endpoint", "to"] => &["open", "closed"],
        "How often the circuit breaker of an endpoint opened, also after a probe that failed, and closed, on all workers.";
    BREAKER_STATE Gauge, "selvedge_breaker_state" &["destination_service", "endpoint"],
        "Circuit breaker of an endpoint: 0 closed, 1 half open, 2 open; the worst of all workers.";
    TCP_OPENED Counter, "selvedge_tcp_connections_opened_total" &["direction", "tls"],
        "Connections accepted, whatever they carry, and tunnels through them.";
    TCP_CLOSED Counter, "selvedge_tcp_connections_closed_total" &CONNECTION_OUTCOME,
        "The same, when they end.",
        Connections(|_, count| Some(count));
    EDGE_CONNECTIONS Counter, "selvedge_edge_connections_total" &EDGE => &OUTCOMES,
        "Opaque connections that ended, and others that were refused, by who called which service; at zero as requests are.",
        Connections(|from, count| (is_opaque(from) || !from.get("reason").is_empty()).then_some(count));
    TCP_OPEN Gauge, "selvedge_tcp_connections_open" &["direction"],
        "Connections and tunnels open now.";
    TCP_LIMIT Gauge, "selvedge_tcp_connections_limit" &["direction"],
        "Connections that all workers together may have open.";
    TCP_RECEIVED Counter, "selvedge_tcp_received_bytes_total" &FLOW,
        "Bytes of opaque connections and tunnels received from callers, counted as they pass.",
        Flows(|received, _| received);
    TCP_SENT Counter, "selvedge_tcp_sent_bytes_total" &FLOW,
        "Bytes of opaque connections and tunnels sent to callers, counted as they pass.",
        Flows(|_, sent| sent);
    PROBES Counter, "selvedge_probes_total" &["protocol", "outcome"],
        "Probes of the application: let through (passed), connected to nobody (failed), from where none are taken (refused).";
    HOSTS_NOT_ASKED Counter, "selvedge_hosts_not_asked_total" &[],
        "Calls that went to the address they were sent to whatever their host is, because more new hosts came than are asked for.";
    AUDIT_EVENTS Counter, "selvedge_audit_events_total" &["result"] => &audit_log::RESULTS,
        "Events for the audit log: written, left out because one caller caused too many, or lost because they could not be written.";
    DETECTION Observed(&DETECTION_BOUNDS), "selvedge_detection_duration_seconds" &["protocol"],
        "Time from accept to knowing what a connection speaks.";
    CERTIFICATE_EXPIRATION Gauge, "selvedge_certificate_expiration_timestamp_seconds" &[],
        "When the workload's certificate expires, in seconds since the Unix epoch.";
    CONFIG_GENERATION Gauge, "selvedge_config_generation" &[],
        "Number of the configuration in force.";
    CONFIG_REFUSED Counter, "selvedge_config_refused_total" &[],
        "Configurations refused; the one before stayed in force.";
    CONFIG_LAST_ERROR Gauge, "selvedge_config_last_error_info" &["error"],
        "Present with value 1 while the newest configuration is one that was refused.";
    XDS_CONNECTED Gauge, "selvedge_xds_connected" &[],
        "1 while the stream to the control plane is up, else 0.";
    CAPTURED Gauge, "selvedge_captured" &[],
        "1 once connections of the workload are known to come to the sidecar, 0 while they do not; with captureRequired only.";
    INBOUND_ENFORCED Gauge, "selvedge_inbound_port_enforced" &["port"],
        "1 while the application listens on loopback only, so that all calls to a declared port meet policies, else 0.";
    APPLICATION_ERRORS Counter, "selvedge_application_metrics_errors_total" &["error"],
        "Scrapes without the application's metrics, by what kept them away.";
    SPANS Counter, "selvedge_spans_total" &["result"],
        "Spans by what became of them: taken by the collector (exported), refused by it (rejected), given up (failed), without a place while they waited (dropped).";
    BUILD_INFO Gauge, "selvedge_build_info" &["version", "workload", "namespace"],
        "Always 1; says what runs here.";
    MEMORY Gauge, "selvedge_process_resident_memory_bytes" &[],
        "Resident memory of the sidecar.";
    CPU Counter, "selvedge_process_cpu_seconds_total" &[],
        "User and system CPU time of the sidecar.";
    OPEN_FILES Gauge, "selvedge_process_open_fds" &[],
        "Files and sockets that the sidecar has open.";
    MAX_FILES Gauge, "selvedge_process_max_fds" &[],
        "Files and sockets that it may have open.";
    WORKER_LAG Gauge, "selvedge_worker_lag_seconds" &[],
        "How long the worker that was busiest took to look up from its work for this scrape.";
    LOG_LOST Counter, "selvedge_access_log_lost_lines_total" &[],
        "Access log lines dropped because their reader is too slow.";
    LOG_SUPPRESSED Counter, "selvedge_access_log_suppressed_lines_total" &[],
        "Access log lines about refusals and errors not written because there were too many of one caller and reason.";
    OVERFLOW Counter, "selvedge_metrics_overflow_total" &["metric"],
        "Records counted under the overflow series of a metric because it has too many series.";
}

/// Whether a connection carried bytes that nobody looked into.
fn is_opaque(from: &Origin<'_>) -> bool {
    matches!(from.get("protocol"), "tcp" | "tls")
}

/// An HTTP status as a label, written into `buffer`: `none` for 0, and `other` for what is neither in the registry (RFC 9110
/// section 16.2) nor 499, so that a service that makes codes up does not fill its callers' tables.
pub(super) fn code(code: u16, buffer: &mut [u8; 5]) -> &str {
    match code {
        0 => "none",
        100..=104
        | 200..=208
        | 226
        | 300..=308
        | 400..=418
        | 421..=426
        | 428
        | 429
        | 431
        | 451
        | 499
        | 500..=508
        | 510
        | 511 => decimal(code, buffer),
        _ => "other",
    }
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
fn decimal(mut number: u16, buffer: &mut [u8; 5]) -> &str {
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
#[cfg(test)]
pub(super) fn reference() -> String {
    use std::fmt::Write as _;
    let mut text = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram(_) => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {kind} | {} | {} |", metric.name, labels.join(" "), metric.help);
    }
    text
}
