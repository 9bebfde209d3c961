//! The names of Linkerd's proxy metrics.

use selvedge_policies::names;

use super::{Labels, Ours, Part, Shown};
use crate::telemetry::metrics;

pub(super) static SHOWN: &[Shown] = &[
    Shown {
        name: "request_total",
        help: "Requests that ended.",
        parts: &[(&metrics::REQUESTS, Part::Count)],
        labels: |ours| (!ours.is_of_probes()).then(|| ends(ours)),
    },
    Shown {
        name: "response_total",
        help: "Requests that ended, but for those whose callers left before an answer.",
        parts: &[(&metrics::REQUESTS, Part::Count)],
        labels: |ours| is_answered(ours).then(|| responses(ours)),
    },
    Shown {
        name: "response_latency_ms",
        help: "Time from the first byte of a request to the last byte of its response.",
        parts: &[(&metrics::REQUEST_DURATION, Part::Milliseconds)],
        labels: |ours| {
            let mut labels = ends(ours);
            labels.push(("status_code", ours.get("response_class").to_owned()));
            (!ours.is_of_probes()).then_some(labels)
        },
    },
    Shown {
        name: "tcp_open_total",
        help: "Connections accepted.",
        parts: &[(&metrics::TCP_OPENED, Part::Count)],
        labels: |ours| Some(vec![direction(ours), ("peer", "src".to_owned()), ("tls", tls(ours).to_owned())]),
    },
    Shown {
        name: "tcp_close_total",
        help: "Connections accepted, when they end.",
        parts: &[(&metrics::TCP_CLOSED, Part::Count)],
        labels: |ours| Some(vec![direction(ours), ("peer", "src".to_owned())]),
    },
    Shown {
        name: "tcp_open_connections",
        help: "Connections accepted that are open now.",
        parts: &[(&metrics::TCP_OPEN, Part::Gauge)],
        labels: |ours| Some(vec![direction(ours), ("peer", "src".to_owned())]),
    },
];

fn responses(ours: &Ours<'_>) -> Labels {
    let mut labels = ends(ours);
    let has_failed = ours.get("outcome") == "failure" || ours.get("response_class") == "5xx";
    labels.push(("classification", if has_failed { "failure" } else { "success" }.to_owned()));
    labels.push(("status_code", ours.get("response_code").to_owned()));
    labels.push(("grpc_status", ours.get("grpc_status").to_owned()));
    labels
}

fn is_answered(ours: &Ours<'_>) -> bool {
    let has_left = ours.get("outcome") == "cancelled" && matches!(ours.get("response_code"), "499" | "none");
    !has_left && !ours.is_of_probes()
}

/// Whose sidecar it is, and who is at the other end.
fn ends(ours: &Ours<'_>) -> Labels {
    let mut labels = vec![direction(ours), ("tls", tls(ours).to_owned())];
    if ours.get("direction") == "outbound" {
        labels.push(("deployment", ours.workload("source_workload")));
        labels.push(("namespace", ours.known("source_namespace")));
        labels.push(("dst_deployment", ours.workload("destination_workload")));
        labels.push(("dst_namespace", ours.known("destination_namespace")));
        labels.push(("dst_service", service(ours).to_owned()));
        labels.push(("server_id", ours.known("destination_identity")));
    } else {
        labels.push(("deployment", ours.workload("destination_workload")));
        labels.push(("namespace", ours.known("destination_namespace")));
        labels.push(("client_id", ours.known("source_identity")));
    }
    labels
}

fn direction(ours: &Ours<'_>) -> (&'static str, String) {
    ("direction", ours.get("direction").to_owned())
}

/// Linkerd says `true`, or why it is not.
fn tls<'a>(ours: &'a Ours<'_>) -> &'a str {
    match ours.get("tls") {
        "mtls" => "true",
        "none" => "no_identity",
        "" => super::UNKNOWN,
        other => other,
    }
}

/// The name of the service without its namespace.
fn service<'a>(ours: &'a Ours<'_>) -> &'a str {
    let service = ours.get("destination_service");
    super::known(names::parts(service).map_or(service, |(_, name)| name))
}
