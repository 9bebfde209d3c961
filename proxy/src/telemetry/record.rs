//! What the data path says of one request or connection when it is over. Records borrow everything, so that
//! making one allocates nothing.

use std::{net::SocketAddr, time::Duration};

use selvedge_policies::{attempt::breaker::BreakerState, context::Audited, reason::Reason};
use tokio::time::Instant;

/// Which side of the workload traffic is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// From the mesh to the workload.
    Inbound,
    /// From the workload to the mesh or beyond.
    Outbound,
}

impl Direction {
    /// The label value: `inbound` or `outbound`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// How something goes from one sidecar to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hop {
    /// Under mutual TLS.
    Mtls,
    /// Without it.
    Plain,
    /// Nothing travelled: it ended before.
    Nowhere,
}

impl Hop {
    /// The value of the label `tls`: `mtls`, `none`, or empty.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::Plain => "none",
            Self::Nowhere => "",
        }
    }
}

/// What a connection or request speaks, as far as the sidecar reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP/1.0 or HTTP/1.1, whatever is inside.
    Http1,
    /// HTTP/2 that is not gRPC.
    Http2,
    /// HTTP/2 with a content type of gRPC.
    Grpc,
    /// Frames between sidecars, as a connection; what is in them has a protocol of its own.
    Frames,
    /// Opaque bytes, relayed without a look inside.
    Tcp,
    /// The application's own TLS, passed through.
    Tls,
}

impl Protocol {
    /// The label value: `http1`, `http2`, `grpc`, `frames`, `tcp` or `tls`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Frames => "frames",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// The version of HTTP as OpenTelemetry writes it; empty for what is not HTTP.
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Http1 => "1.1",
            Self::Http2 | Self::Grpc => "2",
            Self::Frames | Self::Tcp | Self::Tls => "",
        }
    }
}

/// One end of a request. Parts that are not known are empty.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Party<'a> {
    /// Name of the workload, without its namespace.
    pub workload: &'a str,
    /// Namespace of the workload.
    pub namespace: &'a str,
    /// SPIFFE ID proven by mTLS.
    pub identity: &'a str,
}

/// What is known of a connection as soon as it is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<'a> {
    /// Side of the workload.
    pub direction: Direction,
    /// The workload that called, as far as it is known.
    pub source: Party<'a>,
    /// The workload that was called, as far as it is known.
    pub destination: Party<'a>,
    /// The service that was called, `namespace/name`.
    pub service: &'a str,
    /// What is spoken, as far as the sidecar reads it.
    pub protocol: Protocol,
    /// How it goes from one sidecar to the other.
    pub hop: Hop,
}

/// One HTTP request, when its last byte has gone out or it has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestRecord<'a> {
    /// Side of the workload.
    pub direction: Direction,
    /// The workload that called, as far as it is known.
    pub source: Party<'a>,
    /// The workload that was called, as far as it is known.
    pub destination: Party<'a>,
    /// The service that was called, `namespace/name`.
    pub service: &'a str,
    /// The route rule that matched, `namespace/route/rule`; empty when there was none.
    pub route: &'a str,
    /// HTTP status sent to the caller; 0 when none was.
    pub code: u16,
    /// `grpc-status` from the trailers or header fields of a gRPC call.
    pub grpc_status: Option<u16>,
    /// Why it ended without the service's own answer.
    pub reason: Option<Reason>,
    /// The policy that denied or limited it, `namespace/name`; else empty.
    pub policy: &'a str,
    /// Which rule of it, from 0, where one did; in logs only.
    pub rule: Option<u32>,
    /// The policy that the called sidecar names, `namespace/name`; else empty. In the log alone: a peer could make up any
    /// number of series.
    pub policy_there: &'a str,
    /// What exactly went wrong; in the access log only.
    pub detail: &'a str,
    /// The policy that only looks on and would have denied it.
    pub audited: Option<&'a Audited>,
    /// What the caller spoke.
    pub protocol: Protocol,
    /// How it went from one sidecar to the other.
    pub hop: Hop,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// Body bytes from the caller.
    pub bytes_received: u64,
    /// Body bytes to the caller.
    pub bytes_sent: u64,
    /// Tries after the first.
    pub retries: u32,
    /// Method; in the access log only, never a label.
    pub method: &'a str,
    /// Host of the authority; in the access log only, never a label.
    pub host: &'a str,
    /// The port that was called.
    pub port: u16,
    /// Canonical path without query; in the access log only, never a label.
    pub path: &'a str,
    /// The path as it was sent, where that is another one; in the access log only, never a label.
    pub path_sent: &'a str,
    /// Address of the caller.
    pub peer: SocketAddr,
    /// Address the last try went to.
    pub upstream: Option<SocketAddr>,
    /// The value of `x-request-id`; empty when there is none.
    pub request_id: &'a str,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: &'a str,
    /// Whether it went on over TLS that the sidecar began for it, towards a service outside the mesh.
    pub secure: bool,
    /// The span to record of it; `None` for none.
    pub span: Option<SpanRecord<'a>>,
}

/// What a span has beside what is said of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpanRecord<'a> {
    /// The names of the trace, of the span and of its parent.
    pub ids: Ids,
    /// `tracestate` (W3C Trace Context).
    pub state: &'a str,
    /// When it began: the request, or a further try.
    pub since: Instant,
    /// When it ended; now when absent.
    pub ended: Option<Instant>,
    /// Tries of the request before this one.
    pub resent: u32,
}

/// The names of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    /// The trace it is part of; never 0.
    pub trace: u128,
    /// The span itself; never 0.
    pub span: u64,
    /// The span it is part of; `None` when the trace begins with it.
    pub parent: Option<u64>,
    /// `trace-flags` (W3C Trace Context section 3.2.2.5).
    pub flags: u8,
    /// Whether the parent is of somebody else.
    pub remote: bool,
}

/// One connection, when it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionRecord<'a> {
    /// What was known from the start.
    pub ends: Ends<'a>,
    /// The port it was for.
    pub port: u16,
    /// Why the sidecar ended or refused it; `None` when the two ends did.
    pub reason: Option<Reason>,
    /// The policy that denied it, `namespace/name`; else empty.
    pub policy: &'a str,
    /// Which rule of it, from 0, where one did; in logs only.
    pub rule: Option<u32>,
    /// What exactly went wrong; in the access log only.
    pub detail: &'a str,
    /// The policy that only looks on and would have denied it.
    pub audited: Option<&'a Audited>,
    /// From accept to close.
    pub duration: Duration,
    /// Bytes from the caller; in the access log only, metrics have counted them as they passed.
    pub bytes_received: u64,
    /// Bytes to the caller; in the access log only.
    pub bytes_sent: u64,
    /// Server name of application TLS that passed through; in the access log only.
    pub server_name: &'a str,
    /// Address of the caller.
    pub peer: SocketAddr,
    /// Address of the endpoint.
    pub upstream: Option<SocketAddr>,
}

/// The word of every [`RetryOutcome`].
pub(super) const RETRY_OUTCOMES: [&str; 4] = ["success", "failure", "over_budget", "not_replayable"];

/// What became of one retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RetryOutcome {
    /// The retry got an answer that is none the policy has repeated.
    Success,
    /// The retry got no answer, or one that the policy has repeated, whether or not another retry followed.
    Failure,
    /// The retry was not made: the budget is spent.
    OverBudget,
    /// The retry was not made: the body is not there any more to be sent again.
    NotReplayable,
}

impl RetryOutcome {
    /// The label value: one of [`RETRY_OUTCOMES`].
    pub(crate) const fn as_str(self) -> &'static str {
        RETRY_OUTCOMES[self as usize]
    }
}

/// What became of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeOutcome {
    /// It got through to the application, which answers as it likes.
    Passed,
    /// The application took no connection; of a probe that only connects.
    Failed,
    /// It came from where probes are not taken from.
    Refused,
}

impl ProbeOutcome {
    /// The label value: `passed`, `failed` or `refused`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// What one worker has now, as it is when somebody looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerSeen {
    /// Every endpoint of the services that may be called.
    pub endpoints: Vec<EndpointSeen>,
    /// Retries that each service may still get, by `namespace/name`.
    pub budgets: Vec<(Box<str>, u64)>,
    /// Calls under way to the application, and to addresses outside the mesh.
    pub elsewhere: [u64; 2],
    /// Connections it holds at most in each direction.
    pub max_connections: u64,
}

/// One endpoint, as one worker sees it.
#[derive(Clone, Debug)]
pub(crate) struct EndpointSeen {
    /// The service the endpoint belongs to, `namespace/name`.
    pub service: Box<str>,
    /// Address of the endpoint.
    pub endpoint: SocketAddr,
    /// What its breaker does with the next try; `None` when it has none.
    pub breaker: Option<BreakerState>,
    /// It took no connection a moment ago, or only fails.
    pub left_alone: bool,
    /// Requests and opaque connections under way to it.
    pub in_flight: u64,
    /// Connections to it that are kept: shared ones, and idle ones of HTTP/1.
    pub connections: [u64; 2],
    /// Requests and tunnels on the shared ones.
    pub streams: u64,
    /// Tries since the last look that it answered below 500, and others.
    pub tries: [u64; 2],
    /// How often its breaker has opened and closed since the last look.
    pub switched: [u64; 2],
}
