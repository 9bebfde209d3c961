//! The names of Istio's standard metrics.

use selvedge_policies::{names, reason::Reason};

use super::{Labels, Ours, Part, Shown, UNKNOWN};
use crate::telemetry::metrics;

/// Istio's word for what is called at an address outside the mesh.
const PASSTHROUGH: &str = "PassthroughCluster";

pub(super) static SHOWN: &[Shown] = &[
    Shown {
        name: "istio_requests_total",
        help: "Requests that ended.",
        parts: &[(&metrics::REQUESTS, Part::Count)],
        labels: |ours| (!ours.is_of_probes()).then(|| requests(ours)),
    },
    Shown {
        name: "istio_request_duration_milliseconds",
        help: "Time from the first byte of a request to the last byte of its response.",
        parts: &[(&metrics::REQUEST_DURATION, Part::Milliseconds)],
        labels: sizes,
    },
    Shown {
        name: "istio_request_bytes",
        help: "Bytes of request bodies; sum and count only.",
        parts: &[(&metrics::REQUEST_DURATION, Part::Observations), (&metrics::REQUEST_BYTES, Part::Sum)],
        labels: sizes,
    },
    Shown {
        name: "istio_response_bytes",
        help: "Bytes of response bodies; sum and count only.",
        parts: &[(&metrics::REQUEST_DURATION, Part::Observations), (&metrics::RESPONSE_BYTES, Part::Sum)],
        labels: sizes,
    },
    Shown {
        name: "istio_tcp_connections_closed_total",
        help: "Opaque connections that ended.",
        parts: &[(&metrics::TCP_CLOSED, Part::Count)],
        labels: |ours| {
            is_opaque(ours).then(|| with(ends(ours), [("response_flags", flags(ours.get("reason")).into())]))
        },
    },
    Shown {
        name: "istio_tcp_received_bytes_total",
        help: "Bytes of opaque connections and tunnels received from callers.",
        parts: &[(&metrics::TCP_RECEIVED, Part::Count)],
        labels: |ours| Some(opaque(ours)),
    },
    Shown {
        name: "istio_tcp_sent_bytes_total",
        help: "Bytes of opaque connections and tunnels sent to callers.",
        parts: &[(&metrics::TCP_SENT, Part::Count)],
        labels: |ours| Some(opaque(ours)),
    },
];

fn requests(ours: &Ours<'_>) -> Labels {
    let reason = ours.get("reason");
    let code = match ours.get("response_code") {
        "none" => "0",
        // Istio has no status for a caller that left before an answer.
        "499" if reason == Reason::DownstreamClosed.code() => "0",
        code => code,
    };
    let more = [
        ("request_protocol", protocol(ours)),
        ("response_code", code.to_owned()),
        ("grpc_response_status", ours.get("grpc_status").to_owned()),
        ("response_flags", flags(reason).to_owned()),
    ];
    with(ends(ours), more)
}

/// Labels of what is not told by each status: its class stands for it, which patterns such as `5..` match.
fn sizes(ours: &Ours<'_>) -> Option<Labels> {
    let more = [("request_protocol", protocol(ours)), ("response_code", ours.get("response_class").to_owned())];
    (!ours.is_of_probes()).then(|| with(ends(ours), more))
}

fn opaque(ours: &Ours<'_>) -> Labels {
    with(ends(ours), [("request_protocol", "tcp".to_owned())])
}

fn is_opaque(ours: &Ours<'_>) -> bool {
    matches!(ours.get("protocol"), "tcp" | "tls")
}

fn with<const N: usize>(mut labels: Labels, more: [(&'static str, String); N]) -> Labels {
    labels.extend(more);
    labels
}

/// Who called whom.
fn ends(ours: &Ours<'_>) -> Labels {
    let reporter = match ours.get("direction") {
        "inbound" => "destination",
        "outbound" => "source",
        other => other,
    };
    let [service, name, namespace] = service(ours.get("destination_service"));
    let policy = match ours.get("tls") {
        "mtls" => "mutual_tls",
        "" => UNKNOWN,
        other => other,
    };
    let (source, destination) = (ours.workload("source_workload"), ours.workload("destination_workload"));
    vec![
        ("reporter", reporter.to_owned()),
        ("source_workload", source.clone()),
        ("source_workload_namespace", ours.known("source_namespace")),
        ("source_principal", ours.known("source_identity")),
        ("source_app", UNKNOWN.to_owned()),
        ("source_version", UNKNOWN.to_owned()),
        ("source_canonical_service", source),
        ("source_canonical_revision", "latest".to_owned()),
        ("destination_workload", destination.clone()),
        ("destination_workload_namespace", ours.known("destination_namespace")),
        ("destination_principal", ours.known("destination_identity")),
        ("destination_app", UNKNOWN.to_owned()),
        ("destination_version", UNKNOWN.to_owned()),
        ("destination_service", service),
        ("destination_service_name", name),
        ("destination_service_namespace", namespace),
        ("destination_canonical_service", destination),
        ("destination_canonical_revision", "latest".to_owned()),
        ("connection_security_policy", policy.to_owned()),
    ]
}

/// A service by its host in the domain that a cluster has unless told otherwise, by its name, and its namespace.
fn service(service: &str) -> [String; 3] {
    match names::parts(service) {
        Some((namespace, name)) => {
            let [.., host] = names::hosts(namespace, name);
            [host, name.to_owned(), namespace.to_owned()]
        }
        None if service == "passthrough" => [PASSTHROUGH, PASSTHROUGH, UNKNOWN].map(str::to_owned),
        None => [super::known(service), super::known(service), UNKNOWN].map(str::to_owned),
    }
}

fn protocol(ours: &Ours<'_>) -> String {
    match ours.get("protocol") {
        "http1" | "http2" => "http",
        other => other,
    }
    .to_owned()
}

/// Envoy's flag for what ended for this reason; `-` for what it has none for, refusals by policy among them.
fn flags(reason: &str) -> &'static str {
    match Reason::ALL.iter().find(|known| known.code() == reason) {
        Some(Reason::NoRoute | Reason::InvalidRoute) => "NR",
        Some(Reason::UnknownDestination) => "NC",
        Some(Reason::NoEndpoints) => "UH",
        Some(Reason::BreakerOpen) => "UO",
        Some(
            Reason::UpstreamConnectFailed
            | Reason::UpstreamConnectTimeout
            | Reason::ApplicationUnreachable
            | Reason::UpstreamTlsFailed
            | Reason::UpstreamIdentityMismatch,
        ) => "UF",
        Some(Reason::UpstreamReset) => "UC",
        Some(Reason::UpstreamProtocolError) => "UPE",
        Some(Reason::AttemptTimeout | Reason::RequestTimeout) => "UT",
        Some(Reason::DownstreamClosed) => "DC",
        Some(Reason::CallerTimeout) => "SI",
        Some(Reason::RateLimited) => "RL",
        Some(Reason::FaultInjected) => "FI",
        Some(Reason::Overloaded) => "OM",
        Some(
            Reason::MalformedFraming
            | Reason::UnsupportedTransferCoding
            | Reason::MalformedHost
            | Reason::MalformedPath
            | Reason::MalformedHeader
            | Reason::HeadersTooLarge
            | Reason::FrameFlood,
        ) => "DPE",
        Some(
            Reason::PolicyDenied
            | Reason::PolicyDefaultDeny
            | Reason::PolicyUnenforceable
            | Reason::PlaintextRefused
            | Reason::TlsHandshakeFailed
            | Reason::DetectTimeout
            | Reason::Draining
            | Reason::NotReady
            | Reason::Internal,
        )
        | None => "-",
    }
}
