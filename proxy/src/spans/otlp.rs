//! Spans as OTLP has them, under the names of OpenTelemetry's semantic conventions; `selvedge.*` for what has none.

use std::time::Duration;

use bytes::Bytes;
use selvedge_decide::config::RuntimeConfig;
use selvedge_policies::{
    names::{ServiceName, WorkloadName},
    reason::Reason,
};
use selvedge_xds::proto::traces::{
    AnyValue, ExportTraceServiceRequest, ExportTraceServiceResponse, InstrumentationScope, KeyValue, ResourceSpans,
    ScopeSpans, Span, Status, any_value::Value, span::SpanKind, status::StatusCode,
};

use crate::{
    bootstrap::Bootstrap,
    telemetry::{Direction, Finished, Ids, Protocol},
};

/// Who sends.
pub(super) const AGENT: &str = concat!("selvedge-proxy/", env!("CARGO_PKG_VERSION"));

/// A parent is said to be remote, or not (`SpanFlags`).
const KNOWN_WHERE: u32 = 0x100;
/// It is.
const REMOTE: u32 = 0x200;

/// Methods that are told apart (RFC 9110 section 9.3, RFC 5789, and QUERY).
const METHODS: [&str; 10] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"];

/// Status codes of gRPC by their numbers.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Those of them that are errors of a server.
const GRPC_ERRORS: [&str; 6] =
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];

/// What all spans of a sidecar are of.
pub(super) struct Resource {
    workload: String,
    name: Option<String>,
    in_pod: bool,
    node: String,
}

impl Resource {
    pub(super) fn of(bootstrap: &Bootstrap, name: Option<String>) -> Self {
        Self {
            workload: bootstrap.workload.clone(),
            name,
            in_pod: bootstrap.service_account_token_file.is_some(),
            node: bootstrap.locality.node.clone(),
        }
    }

    /// Its attributes, as far as they are known by this configuration.
    pub(super) fn attributes(&self, config: &RuntimeConfig) -> Vec<KeyValue> {
        let workload = self.workload.parse::<WorkloadName>().ok();
        let (namespace, own) =
            workload.as_ref().map_or(("", &*self.workload), |workload| (workload.namespace(), workload.name()));
        let before = config.ports.values().filter_map(|port| port.service.as_ref());
        let service = before.filter(|service| service.namespace() == namespace).map(ServiceName::name).min();
        let name = self.name.as_deref().or(service).unwrap_or(own);
        let mut attributes = Attributes::default();
        attributes.text("service.name", name).text("service.namespace", namespace);
        attributes.text("service.instance.id", &self.workload).text("selvedge.identity", &config.own.identity);
        if self.in_pod {
            attributes.text("k8s.pod.name", own).text("k8s.namespace.name", namespace);
            attributes.text("k8s.node.name", &self.node);
        }
        attributes.0
    }
}

/// A batch as a collector takes it.
pub(super) fn request(resource: Vec<KeyValue>, batch: Vec<Finished>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope { name: "selvedge-proxy".into(), version: env!("CARGO_PKG_VERSION").into() };
    let spans = batch.iter().map(span).collect();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(selvedge_xds::proto::traces::Resource { attributes: resource }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
        }],
    }
}

/// How many spans of a batch a collector did not take.
pub(super) fn rejected(answer: ExportTraceServiceResponse) -> u64 {
    let partly = answer.partial_success.filter(|partly| partly.rejected_spans > 0);
    partly.map_or(0, |partly| {
        tracing::debug!(partly.rejected_spans, partly.error_message, "the collector rejects spans");
        partly.rejected_spans.unsigned_abs()
    })
}

fn span(finished: &Finished) -> Span {
    let Ids { trace, span, parent, flags, remote } = finished.ids;
    let is_server = finished.direction == Direction::Inbound;
    let began = finished.began;
    Span {
        trace_id: Bytes::copy_from_slice(&trace.to_be_bytes()),
        span_id: Bytes::copy_from_slice(&span.to_be_bytes()),
        trace_state: finished.state.clone().into(),
        parent_span_id: parent.map_or_else(Bytes::new, |parent| Bytes::copy_from_slice(&parent.to_be_bytes())),
        flags: u32::from(flags) | KNOWN_WHERE | if remote && parent.is_some() { REMOTE } else { 0 },
        name: name(finished),
        kind: if is_server { SpanKind::Server } else { SpanKind::Client }.into(),
        start_time_unix_nano: nanos(began),
        end_time_unix_nano: nanos(began + finished.lasted),
        attributes: attributes(finished),
        status: status(finished),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// One of few: the method of gRPC, where there is one, or the method of HTTP and the route, if there is one.
fn name(finished: &Finished) -> String {
    if let Some(method) = grpc_method(finished) {
        return method.to_owned();
    }
    let method = if is_known(finished) { &*finished.method } else { "HTTP" };
    if finished.route.is_empty() { method.to_owned() } else { format!("{method} {}", finished.route) }
}

fn is_known(finished: &Finished) -> bool {
    METHODS.contains(&&*finished.method)
}

/// `package.Service/Method` of a gRPC call, if the service has it: callers can make up any number of others.
fn grpc_method(finished: &Finished) -> Option<&str> {
    const UNIMPLEMENTED: u16 = 12;
    let is_answered = finished.reason.is_none() && finished.grpc_status.is_some_and(|status| status != UNIMPLEMENTED);
    let is_call = finished.protocol == Protocol::Grpc && is_answered;
    finished.path.strip_prefix('/').filter(|_| is_call)
}

fn grpc_status(finished: &Finished) -> Option<&'static str> {
    let status = finished.grpc_status.filter(|_| finished.protocol == Protocol::Grpc)?;
    Some(GRPC.get(usize::from(status)).copied().unwrap_or("UNKNOWN"))
}

/// Why it is an error, in one of few words: a reason of ours, a status of gRPC or of HTTP. A server is not to blame for what its
/// callers ask, nor when they go away.
fn error(finished: &Finished) -> Option<String> {
    let is_client = finished.direction == Direction::Outbound;
    let reason = finished.reason.map(Reason::code);
    if let Some(status) = grpc_status(finished) {
        let is_error = if is_client { status != "OK" } else { GRPC_ERRORS.contains(&status) };
        return is_error.then(|| reason.unwrap_or(status).to_owned());
    }
    let left = !is_client && matches!(finished.reason, Some(Reason::DownstreamClosed | Reason::CallerTimeout));
    let broke_off = finished.code < 400 && finished.reason.is_some() && !left;
    let has_failed = finished.code == 0 || finished.code >= if is_client { 400 } else { 500 };
    (broke_off || has_failed).then(|| reason.map_or_else(|| finished.code.to_string(), str::to_owned))
}

fn status(finished: &Finished) -> Option<Status> {
    let message = finished.detail.clone().into();
    error(finished).map(|_| Status { message, code: StatusCode::Error.into() })
}

fn attributes(finished: &Finished) -> Vec<KeyValue> {
    let mut attributes = Attributes::default();
    if is_known(finished) {
        attributes.text("http.request.method", &finished.method);
    } else if !finished.method.is_empty() {
        attributes.text("http.request.method", "_OTHER").text("http.request.method_original", &finished.method);
    }
    attributes
        .number("http.response.status_code", finished.code)
        .number("http.request.resend_count", finished.resent)
        .text("http.route", &finished.route)
        .text("url.path", &finished.path)
        .text("url.scheme", if finished.secure { "https" } else { "http" })
        .text("server.address", &finished.host)
        .number("server.port", finished.port)
        .text("network.protocol.name", "http")
        .text("network.protocol.version", finished.protocol.version())
        .text("error.type", &error(finished).unwrap_or_default());
    if let Some(status) = grpc_status(finished) {
        attributes.text("rpc.system.name", "grpc").text("rpc.response.status_code", status);
        attributes.text("rpc.method", grpc_method(finished).unwrap_or("_OTHER"));
    }
    match (finished.direction, finished.upstream) {
        (Direction::Inbound, _) => {
            attributes.text("client.address", &finished.peer.ip().to_string());
        }
        (Direction::Outbound, Some(upstream)) => {
            attributes.text("network.peer.address", &upstream.ip().to_string());
            attributes.number("network.peer.port", upstream.port());
        }
        (Direction::Outbound, None) => {}
    }
    of_mesh(finished, &mut attributes);
    attributes.0
}

/// Under the keys of the access log.
fn of_mesh(finished: &Finished, attributes: &mut Attributes) {
    let Finished { source, destination, .. } = finished;
    attributes
        .text("selvedge.direction", finished.direction.as_str())
        .text("source.workload", &source.workload)
        .text("source.namespace", &source.namespace)
        .text("source.identity", &source.identity)
        .text("destination.workload", &destination.workload)
        .text("destination.namespace", &destination.namespace)
        .text("destination.identity", &destination.identity)
        .text("selvedge.service", &finished.service)
        .text("selvedge.tls", finished.hop.as_str())
        .text("selvedge.reason", finished.reason.map_or("", |reason| reason.code()))
        .text("selvedge.policy", &finished.policy)
        .text("selvedge.audited", &finished.audited)
        .text("request_id", &finished.request_id);
}

/// Attributes; what is empty or 0 is none.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &'static str, text: &str) -> &mut Self {
        if !text.is_empty() {
            self.add(key, Value::StringValue(text.to_owned()));
        }
        self
    }

    fn number(&mut self, key: &'static str, number: impl Into<i64>) -> &mut Self {
        let number = number.into();
        if number != 0 {
            self.add(key, Value::IntValue(number));
        }
        self
    }

    fn add(&mut self, key: &'static str, value: Value) {
        self.0.push(KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::span::tests::finished;

    /// Name and error of the span of a request, by direction, status, `grpc-status` and reason.
    fn told(direction: Direction, code: u16, grpc: Option<u16>, reason: Option<Reason>) -> (String, String) {
        let protocol = if grpc.is_some() { Protocol::Grpc } else { Protocol::Http2 };
        let path = "/shop.Orders/Get".into();
        let finished = Finished { direction, code, grpc_status: grpc, reason, protocol, path, ..finished() };
        let span = span(&finished);
        let error = error(&finished).unwrap_or_default();
        assert_eq!(span.status.is_some(), !error.is_empty());
        (span.name, error)
    }

    #[test]
    fn an_error_is_one_of_whose_side_it_is_told() {
        use Direction::{Inbound, Outbound};
        let [route, method] = ["GET shop/web/0", "shop.Orders/Get"];
        for (direction, code, grpc, reason, name, error) in [
            (Inbound, 200, None, None, route, ""),
            (Inbound, 404, None, None, route, ""),
            (Outbound, 404, None, None, route, "404"),
            (Inbound, 503, None, None, route, "503"),
            (Inbound, 403, None, Some(Reason::PolicyDenied), route, ""),
            (Outbound, 403, None, Some(Reason::PolicyDenied), route, "policy_denied"),
            (Outbound, 0, None, Some(Reason::AttemptTimeout), route, "attempt_timeout"),
            (Outbound, 200, None, Some(Reason::UpstreamReset), route, "upstream_reset"),
            (Inbound, 200, None, Some(Reason::DownstreamClosed), route, ""),
            (Outbound, 200, Some(0), None, method, ""),
            (Outbound, 200, Some(5), None, method, "NOT_FOUND"),
            (Inbound, 200, Some(5), None, method, ""),
            (Inbound, 200, Some(14), None, method, "UNAVAILABLE"),
            (Inbound, 200, Some(12), None, route, "UNIMPLEMENTED"),
            (Outbound, 200, Some(99), None, method, "UNKNOWN"),
            (Outbound, 200, Some(14), Some(Reason::NoEndpoints), route, "no_endpoints"),
        ] {
            let of = format!("{direction:?} {code} {grpc:?} {reason:?}");
            assert_eq!(told(direction, code, grpc, reason), (name.to_owned(), error.to_owned()), "{of}");
        }
    }

    #[test]
    fn a_method_that_somebody_made_up_is_no_name() {
        let made_up = Finished { method: "BREW".into(), route: "".into(), ..finished() };
        let told = span(&made_up);
        let text = |key: &str| {
            let found = told.attributes.iter().find(|attribute| attribute.key == key);
            found.and_then(|found| match found.value.as_ref()?.value.as_ref()? {
                Value::StringValue(text) => Some(text.as_str()),
                _ => None,
            })
        };
        assert_eq!((&*told.name, text("http.request.method")), ("HTTP", Some("_OTHER")));
        assert_eq!(text("http.request.method_original"), Some("BREW"));
    }

    #[test]
    fn a_parent_is_remote_unless_it_is_an_earlier_try() {
        let flags = |parent, remote| {
            let ids = Ids { parent, remote, ..finished().ids };
            let span = span(&Finished { ids, ..finished() });
            (span.flags, span.parent_span_id.len())
        };
        assert_eq!(flags(None, true), (0x101, 0));
        assert_eq!(flags(Some(7), true), (0x301, 8));
        assert_eq!(flags(Some(7), false), (0x101, 8));
    }
}
