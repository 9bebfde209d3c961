//! The measurements of a span of time, as the table and the JSON output show them.

use selvedge_policies::names;
use serde::Serialize;

use super::{
    metrics::{Series, quantile},
    observe::{Change, Sidecar, Span},
    plan::SERVICES,
};

const REQUESTS: &str = "selvedge_requests_total";
const CONNECTIONS: &str = "selvedge_tcp_connections_opened_total";
const ENDED_CONNECTIONS: &str = "selvedge_tcp_connections_closed_total";
const DURATIONS: &str = "selvedge_request_duration_seconds_bucket";
/// gRPC statuses that are the service's fault: unknown, deadline, unimplemented, internal, unavailable, data loss.
const GRPC_FAULTS: [&str; 6] = ["2", "4", "12", "13", "14", "15"];

/// `selvedge demo -o json`. Shares are from 0 to 1; `null` is what could not be measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    /// From the start of the command to the first page through the mesh.
    pub(super) ready_ms: u64,
    /// Requests of the load generator.
    pub(super) requests: u64,
    /// Those it got the right answer to.
    pub(super) success_rate: Option<f64>,
    /// Requests, and opaque connections, that reached a sidecar over mTLS.
    pub(super) mtls_share: Option<f64>,
    /// Requests and connections refused by policy.
    pub(super) denied: u64,
    /// Requests refused because the caller was over its limit.
    pub(super) rate_limited: u64,
    /// Tries after the first.
    pub(super) retries: u64,
    /// Each service.
    pub(super) services: Vec<ServiceSummary>,
}

/// One service, as its callers see it through the mesh.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ServiceSummary {
    pub(super) name: &'static str,
    /// Requests a second; 0 where it is not HTTP.
    pub(super) rps: f64,
    /// Answers that are not the service's fault, after retries; denials and limits are no fault of the service. Where
    /// it is not HTTP, connections that the mesh did not have to end.
    pub(super) success_rate: Option<f64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    /// The largest sidecar of the service.
    pub(super) sidecar_rss_bytes: u64,
    /// CPU time of its sidecars over the requests they handled, inbound and outbound.
    pub(super) sidecar_cpu_us_per_request: Option<f64>,
    /// CPU time of its sidecars over the time that passed.
    #[serde(skip)]
    pub(super) cpu_share: f64,
    #[serde(skip)]
    pub(super) mtls_share: Option<f64>,
}

impl Summary {
    /// The measurements of `span`.
    pub(super) fn of(ready_ms: u64, span: &Span) -> Self {
        let inbound = |name| total(span.grown(name).filter(|(_, s)| s.label("direction") == "inbound"));
        let retried = |(_, s): &(Sidecar, &Series)| matches!(s.label("outcome"), "success" | "failure");
        let (over_mtls, all) =
            SERVICES.iter().map(|name| mtls(span, name)).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        Self {
            ready_ms,
            requests: span.load.requests,
            success_rate: share(span.load.successes as f64, span.load.requests as f64),
            mtls_share: share(over_mtls, all),
            denied: inbound("selvedge_denials_total") as u64,
            rate_limited: inbound("selvedge_rate_limited_total") as u64,
            retries: total(span.grown("selvedge_retries_total").filter(retried)) as u64,
            services: SERVICES.iter().map(|name| ServiceSummary::of(name, span)).collect(),
        }
    }
}

impl ServiceSummary {
    fn of(name: &'static str, span: &Span) -> Self {
        let calls = |(_, s): &(Sidecar, &Series)| s.label("direction") == "outbound" && called(s) == name;
        let requests = total(span.grown(REQUESTS).filter(calls));
        let faults = total(span.grown(REQUESTS).filter(calls).filter(|(_, s)| is_fault(s)));
        let buckets = || span.grown(DURATIONS).filter(calls).map(|(_, s)| s);
        let quantile_ms = |q| quantile(buckets(), q).map(|seconds| seconds * 1000.0);
        let own = || span.sidecars.iter().filter(|change| change.sidecar.instance.service == name);
        let cpu: f64 = own().map(|change| change.cpu.as_secs_f64()).sum();
        let handled: f64 = own().flat_map(|change| &change.grown).filter(|s| s.name == REQUESTS).map(|s| s.value).sum();
        let opaque = Opaque::of(own());
        let success_rate = share(requests - faults, requests)
            .or_else(|| share(opaque.opened - opaque.broken, opaque.opened - opaque.refused));
        let (over_mtls, all) = mtls(span, name);
        Self {
            name,
            rps: requests / span.seconds.max(f64::EPSILON),
            success_rate,
            p50_ms: quantile_ms(0.5),
            p99_ms: quantile_ms(0.99),
            sidecar_rss_bytes: own().map(|change| change.rss_bytes).max().unwrap_or_default(),
            sidecar_cpu_us_per_request: share(cpu * 1e6, handled),
            cpu_share: cpu / span.seconds.max(f64::EPSILON),
            mtls_share: share(over_mtls, all),
        }
    }
}

/// Opaque connections that came to a service's sidecars since they started, because such connections live long.
#[derive(Default)]
struct Opaque {
    opened: f64,
    mtls: f64,
    /// Ended by the mesh.
    broken: f64,
    /// Ended by the mesh before anything was carried, without mTLS.
    refused: f64,
}

impl Opaque {
    fn of<'a>(changes: impl Iterator<Item = &'a Change>) -> Self {
        let mut counts = Self::default();
        for series in changes.flat_map(|change| &change.now).filter(|s| s.label("direction") == "inbound") {
            let mtls = series.label("tls") == "mtls";
            if series.name == CONNECTIONS {
                counts.opened += series.value;
                counts.mtls += if mtls { series.value } else { 0.0 };
            } else if series.name == ENDED_CONNECTIONS && !series.label("reason").is_empty() {
                counts.broken += series.value;
                counts.refused += if mtls { 0.0 } else { series.value };
            }
        }
        counts
    }
}

/// What came to the sidecars of a service over mTLS, and all that came: requests of the span, or opaque connections
/// where there are none.
fn mtls(span: &Span, service: &str) -> (f64, f64) {
    let own = || span.sidecars.iter().filter(|change| change.sidecar.instance.service == service);
    let requests =
        own().flat_map(|change| &change.grown).filter(|s| s.name == REQUESTS && s.label("direction") == "inbound");
    let (over_mtls, all) = requests.fold((0.0, 0.0), |(over_mtls, all), s| {
        (over_mtls + if s.label("tls") == "mtls" { s.value } else { 0.0 }, all + s.value)
    });
    if all > 0.0 {
        return (over_mtls, all);
    }
    let opaque = Opaque::of(own());
    (opaque.mtls, opaque.opened - opaque.refused)
}

/// The service that was called, without namespace and version.
fn called(series: &Series) -> &str {
    let service = series.label("destination_service");
    let name = names::parts(service).map_or(service, |(_, name)| name);
    SERVICES
        .into_iter()
        .find(|known| name == *known || name.strip_prefix(known).is_some_and(is_version))
        .unwrap_or(name)
}

fn is_version(suffix: &str) -> bool {
    suffix.starts_with("-v")
}

fn is_fault(series: &Series) -> bool {
    let limited_or_denied = matches!(series.label("reason"), "policy_denied" | "policy_default_deny" | "rate_limited");
    !limited_or_denied
        && (series.label("response_class") == "5xx" || GRPC_FAULTS.contains(&series.label("grpc_status")))
}

/// The sum of the values.
pub(super) fn total<'a>(series: impl Iterator<Item = (Sidecar, &'a Series)>) -> f64 {
    series.fold(0.0, |sum, (_, s)| sum + s.value)
}

/// `part / whole`, unless there is no whole.
pub(super) fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_service_are_the_service() {
        let of = |service: &str| Series {
            name: String::new(),
            labels: vec![("destination_service".into(), service.into())],
            value: 0.0,
        };
        assert_eq!(called(&of("saas/ui-v2")), "ui");
        assert_eq!(called(&of("saas/metrics-log")), "metrics-log");
        assert_eq!(called(&of("saas/third-party")), "third-party");
    }
}
