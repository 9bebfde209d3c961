//! The last stage: when the body of the answer is over the exchange is counted and logged, once. That holds for an
//! exchange whose caller goes away before there is an answer, too.

use std::{
    borrow::Cow,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Response, StatusCode, Version, header::CONTENT_LENGTH};
use selvedge_decide::route::unknown;
use selvedge_policies::{context::Audited, names::WorkloadName, reason::Reason};
use tokio::time::Instant;

use crate::{
    balance::Picked,
    cluster::{endpoint::Endpoint, pool::Held},
    config::{Own, RuntimeConfig, Transport},
    connection::Connection,
    error::Error,
    exchange::Exchange,
    heading::Heading,
    http::{
        body::Ending,
        body_error::BodyError,
        pace::{Deadline, Polled},
        reply,
    },
    telemetry::{ConnectionRecord, Direction, Ends, Flow, Hop, Party, Protocol, RequestRecord, SpanRecord},
};

/// How often it is looked whether an answer that broke off has gone out as far as it came.
const LOOK: Duration = Duration::from_millis(5);

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(&reply::GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// An exchange that is not over. It is recorded when it is dropped: with its response body, or without an answer when
/// the caller has gone.
pub(crate) struct Open {
    /// What is known of it.
    pub exchange: Box<Exchange>,
    /// Status of the answer; 0 before there is one.
    code: u16,
    held: Option<(Picked, Held)>,
    whole: bool,
    grpc_status: Option<u16>,
    /// What the mesh says of how it ended, here or at the called side.
    pub detail: Cow<'static, str>,
    /// What [`Pace::flushed`](crate::http::pace::Pace::flushed) was when the latest of the answer was handed over.
    given: u32,
    /// The caller takes the end of the connection for that of the answer.
    unframed: bool,
    /// When it is looked again whether what was given has gone out.
    look: Deadline,
}

impl Open {
    /// An exchange without an answer yet.
    pub(crate) const fn new(exchange: Box<Exchange>) -> Self {
        Self {
            exchange,
            code: 0,
            held: None,
            whole: false,
            grpc_status: None,
            detail: Cow::Borrowed(""),
            given: 0,
            unframed: false,
            look: Deadline::new(),
        }
    }

    /// Notes what must live until the body of the answer is over.
    pub(crate) fn holds(&mut self, picked: Picked, held: Held) {
        self.held = Some((picked, held));
    }

    /// Notes that the mesh itself answers, and what it says of that: such an answer is whole as it is.
    pub(crate) fn ended(&mut self, detail: Cow<'static, str>) {
        self.whole = true;
        self.detail = detail;
    }

    /// Notes what the caller is sent, which for a gRPC call that the mesh ends is 200 with a status of its own.
    pub(crate) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.given = self.exchange.connection.pace.flushed();
        self.unframed = self.exchange.version == Version::HTTP_10 && !headers.contains_key(CONTENT_LENGTH);
        self.code = status.as_u16();
        self.grpc_status = if self.exchange.grpc { grpc_status(headers) } else { None };
    }

    fn write(&self) {
        let exchange = &*self.exchange;
        let connection = &exchange.connection;
        let of_connection;
        let service = if exchange.service.is_empty() {
            of_connection = service_of(connection, &exchange.snapshot.config); // it ended before it was routed
            &of_connection
        } else {
            &exchange.service
        };
        let (code, grpc_status, reason) = (self.code, self.grpc_status, exchange.reason);
        let ended = Ended { code, grpc_status, reason, detail: &self.detail };
        let span = exchange.span.as_ref().and_then(|span| span.so_far());
        connection.worker.telemetry.request(&described(exchange, service, &ended, span));
    }
}

/// How a request, or one try of it, ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended<'a> {
    code: u16,
    grpc_status: Option<u16>,
    reason: Option<Reason>,
    detail: &'a str,
}

impl<'a> Ended<'a> {
    /// With this answer, of which the head alone is known.
    pub(crate) fn answered<B>(response: &'a Response<B>) -> Self {
        let headers = response.headers();
        let (code, grpc_status, reason) = (response.status().as_u16(), grpc_status(headers), reply::reason(headers));
        Self { code, grpc_status, reason, detail: "" }
    }

    /// Without an answer, for the reason of this error.
    pub(crate) fn failed(error: &'a Error) -> Self {
        Self { code: 0, grpc_status: None, reason: Some(error.reason), detail: &error.detail }
    }
}

/// Records a try of a call as a span of its own, and begins that of the next, which `headers` are to name. A call that is received
/// has one span, however often the application is tried.
pub(crate) fn resent(exchange: &mut Exchange, ended: &Ended<'_>, headers: &mut HeaderMap) {
    if exchange.connection.direction() == Direction::Inbound {
        return;
    }
    let Some(mut span) = exchange.span.take() else { return };
    let tried = described(exchange, &exchange.service, ended, span.of_try());
    exchange.connection.worker.telemetry.span(&tried);
    span.again();
    span.write(headers);
    exchange.traceparent = span.traceparent();
    exchange.span = Some(span);
}

/// What there is to say of an exchange that ended so, or of a try.
fn described<'a>(
    exchange: &'a Exchange,
    service: &'a str,
    ended: &Ended<'a>,
    span: Option<SpanRecord<'a>>,
) -> RequestRecord<'a> {
    let (connection, endpoint) = (&exchange.connection, exchange.endpoint.as_deref());
    let (source, destination) = parties(connection, endpoint, &exchange.snapshot.config.own);
    let (host, path, path_sent) = match &exchange.target {
        Some(target) => (target.authority.host(), target.path(), target.sent().unwrap_or_default()),
        None => ("", "", ""),
    };
    RequestRecord {
        direction: connection.direction(),
        source,
        destination,
        service,
        route: &exchange.route,
        code: ended.code,
        grpc_status: ended.grpc_status,
        reason: ended.reason,
        policy: &exchange.policy,
        rule: exchange.rule,
        policy_there: &exchange.policy_there,
        detail: ended.detail,
        audited: exchange.audited.as_ref(),
        protocol: if exchange.grpc { Protocol::Grpc } else { spoken(exchange.version) },
        hop: hop(connection, endpoint, ended.reason),
        duration: exchange.started.elapsed(),
        bytes_received: exchange.request_bytes.get(),
        bytes_sent: exchange.response_bytes.get(),
        retries: exchange.retries,
        method: exchange.method.as_str(),
        host,
        port: exchange.port,
        path,
        path_sent,
        peer: connection.peer_address,
        upstream: endpoint.map(|endpoint| endpoint.config.address),
        request_id: text(exchange.request_id.as_ref()),
        traceparent: text(exchange.traceparent.as_ref()),
        secure: span.is_some() && endpoint.is_some_and(is_outside),
        span,
    }
}

impl Ending for Open {
    fn complete(&mut self, trailers: Option<&HeaderMap>) {
        self.whole = true;
        if let Some(status) = trailers.and_then(grpc_status) {
            self.grpc_status = Some(status);
        }
        if let Some((picked, held)) = self.held.take() {
            if let Some(trailers) = trailers.filter(|_| self.exchange.grpc) {
                picked.ended(reply::grpc_as_http(trailers), self.exchange.connection.worker.now());
            }
            picked.endpoint.pool.observe_response(self.exchange.response_bytes.get());
            if let Held::Http1(lease) = held {
                lease.give_back();
            }
        }
    }

    fn broke(&mut self, why: &BodyError) {
        let slow = self.exchange.is_caller_slow();
        let reason = if slow { Reason::CallerTimeout } else { Reason::UpstreamReset };
        self.exchange.reason = self.exchange.reason.or(Some(reason));
        if self.unframed {
            self.exchange.connection.pace.break_off();
        }
        if self.detail.is_empty() {
            let cause = why.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            self.detail = format!("the answer broke off: {why}{cause}").into();
        }
    }

    fn poll_passed_on(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let connection = &self.exchange.connection;
        // Over frames, whatever ends a stream is written behind what came before.
        if connection.protocol == Protocol::Frames || connection.pace.flushed() != self.given {
            return Poll::Ready(());
        }
        // The library asks again when it has written, but of HTTP/2.
        self.look.clear();
        self.look.start(LOOK);
        self.look.poll(cx)
    }

    fn polled(&mut self, polled: Polled) {
        if polled == Polled::Progressed {
            self.given = self.exchange.connection.pace.flushed();
        }
        self.exchange.connection.polled.set(polled);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.whole && self.exchange.reason.is_none() {
            let slow = self.exchange.is_caller_slow();
            let reason = if slow { Reason::CallerTimeout } else { Reason::DownstreamClosed };
            self.exchange.reason = Some(reason);
            if self.code == 0 {
                self.code = reason.status();
            }
        }
        self.write();
    }
}

const fn spoken(version: http::Version) -> Protocol {
    if matches!(version, http::Version::HTTP_2) { Protocol::Http2 } else { Protocol::Http1 }
}

fn text(value: Option<&http::HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Who called whom, in the words of metrics. A peer is known by its identity; the workload behind it is not.
fn parties<'a>(connection: &'a Connection, endpoint: Option<&'a Endpoint>, own: &'a Own) -> (Party<'a>, Party<'a>) {
    let own = Party {
        workload: own.workload.as_ref().map_or("", WorkloadName::name),
        namespace: own.workload.as_ref().map_or("", WorkloadName::namespace),
        identity: &own.identity,
    };
    match &connection.heading {
        Heading::Inbound { .. } => {
            let peer = connection.peer.identity.as_deref();
            let peer = Party {
                workload: peer.map_or("", |identity| &identity.service_account),
                namespace: peer.map_or("", |identity| &identity.namespace),
                identity: &connection.peer_identity,
            };
            (peer, own)
        }
        Heading::Outbound { .. } => {
            let endpoint = endpoint.map(|endpoint| &endpoint.config);
            let workload = endpoint.and_then(|config| config.workload.as_ref());
            let service = Party {
                workload: workload.map_or("", WorkloadName::name),
                namespace: workload.map_or("", WorkloadName::namespace),
                identity: endpoint.map_or("", |config| &config.identity),
            };
            (own, service)
        }
    }
}

/// Whether it is reached over TLS that the sidecar begins.
fn is_outside(endpoint: &Endpoint) -> bool {
    matches!(endpoint.config.transport, Transport::External { .. })
}

fn hop(connection: &Connection, endpoint: Option<&Endpoint>, reason: Option<Reason>) -> Hop {
    let proven = match (&connection.heading, endpoint) {
        (Heading::Inbound { .. }, _) => connection.peer.identity.is_some(),
        (Heading::Outbound { .. }, Some(endpoint)) if !reason.is_some_and(is_before_the_hop) => {
            !endpoint.config.identity.is_empty()
        }
        (Heading::Outbound { .. }, _) => return Hop::Nowhere,
    };
    if proven { Hop::Mtls } else { Hop::Plain }
}

/// Whether what ended for this reason had no connection to travel on.
const fn is_before_the_hop(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::UpstreamConnectFailed
            | Reason::UpstreamConnectTimeout
            | Reason::UpstreamTlsFailed
            | Reason::UpstreamIdentityMismatch
    )
}

/// The service that a connection is for, `namespace/name`; empty for an address that nobody knows and that may not be
/// called.
fn service_of(connection: &Connection, config: &RuntimeConfig) -> Arc<str> {
    match &connection.heading {
        Heading::Inbound { port, .. } => config.inbound(*port).called(connection.asked_for.as_deref()),
        Heading::Outbound { destination, original, .. } => match config.destination(destination).flatten() {
            Some(known) => known.service.clone(),
            None if original.is_none() => destination.clone(),
            None => unknown(config, destination, true).map(|passed| passed.service()).unwrap_or_default(),
        },
    }
}

/// A connection or tunnel that is open.
pub(crate) struct Opened {
    connection: Rc<Connection>,
    endpoint: Option<Rc<Endpoint>>,
    service: Arc<str>,
    protocol: Protocol,
    since: Instant,
    audited: Option<Audited>,
}

/// Counts a connection or tunnel as open.
pub(crate) fn connection_opened(connection: &Rc<Connection>, endpoint: Option<&Rc<Endpoint>>) -> Opened {
    let hop = hop(connection, endpoint.map(Rc::as_ref), None);
    connection.worker.telemetry.connection_opened(connection.direction(), hop);
    let service = service_of(connection, &connection.worker.snapshot().config);
    let (connection, endpoint) = (connection.clone(), endpoint.cloned());
    let protocol = connection.protocol;
    Opened { connection, endpoint, service, protocol, since: Instant::now(), audited: None }
}

/// Records a request that the HTTP/2 library refused by itself: nothing is known of it but why.
pub(crate) fn request_refused(connection: &Rc<Connection>, error: &Error) {
    let snapshot = connection.worker.snapshot();
    let (source, destination) = parties(connection, None, &snapshot.config.own);
    connection.worker.telemetry.request(&RequestRecord {
        direction: connection.direction(),
        source,
        destination,
        service: &service_of(connection, &snapshot.config),
        route: "",
        code: error.reason.status(),
        grpc_status: None,
        reason: Some(error.reason),
        policy: &error.policy,
        rule: error.rule,
        policy_there: "",
        detail: &error.detail,
        audited: None,
        protocol: connection.protocol,
        hop: hop(connection, None, None),
        duration: Duration::ZERO,
        bytes_received: 0,
        bytes_sent: 0,
        retries: 0,
        method: "",
        host: "",
        port: connection.port(),
        path: "",
        path_sent: "",
        peer: connection.peer_address,
        upstream: None,
        request_id: "",
        traceparent: "",
        secure: false,
        span: None,
    });
}

/// Records a connection that was not let through.
pub(crate) fn connection_refused(connection: &Rc<Connection>, error: &Error) {
    connection_opened(connection, None).cut(0, 0, error);
}

impl Opened {
    /// Names the policy that only looks on and would have refused it.
    pub(crate) fn audited(self, audited: Option<Audited>) -> Self {
        Self { audited, ..self }
    }

    /// Names what the caller spoke whose request has become a tunnel: between sidecars that is not what the connection is.
    pub(crate) fn tunnelled(self, version: http::Version) -> Self {
        Self { protocol: spoken(version), ..self }
    }

    /// Where its bytes are counted for metrics.
    pub(crate) fn flow(&self) -> Rc<Flow> {
        let config = &self.connection.worker.snapshot().config;
        self.connection.worker.telemetry.flow(&self.ends(&config.own, None))
    }

    /// Counts it as closed by the sidecar; logs it with the bytes from and to the caller.
    pub(crate) fn cut(self, received: u64, sent: u64, error: &Error) {
        self.end((received, sent), Some(error.reason), (&error.policy, error.rule), &error.detail);
    }

    /// Counts it as closed; logs it with the bytes from and to the caller.
    pub(crate) fn closed(self, received: u64, sent: u64, reason: Option<Reason>) {
        self.end((received, sent), reason, ("", None), "");
    }

    fn ends<'a>(&'a self, own: &'a Own, reason: Option<Reason>) -> Ends<'a> {
        let (connection, endpoint) = (&self.connection, self.endpoint.as_deref());
        let (source, destination) = parties(connection, endpoint, own);
        Ends {
            direction: connection.direction(),
            source,
            destination,
            service: &self.service,
            protocol: self.protocol,
            hop: hop(connection, endpoint, reason),
        }
    }

    fn end(&self, (received, sent): (u64, u64), reason: Option<Reason>, by: (&str, Option<u32>), detail: &str) {
        let (connection, (policy, rule)) = (&self.connection, by);
        connection.worker.telemetry.connection_closed(&ConnectionRecord {
            ends: self.ends(&connection.worker.snapshot().config.own, reason),
            port: connection.port(),
            reason,
            policy,
            rule,
            detail,
            audited: self.audited.as_ref(),
            duration: self.since.elapsed(),
            bytes_received: received,
            bytes_sent: sent,
            server_name: connection.server_name.as_deref().unwrap_or_default(),
            peer: connection.peer_address,
            upstream: self.endpoint.as_ref().map(|endpoint| endpoint.config.address),
        });
    }
}
