//! All that is known of one request.
//!
//! An [`Exchange`] takes the configuration snapshot once, when it begins, so no request ever sees two
//! configurations. Stages add to it; nobody looks up "the current configuration" again.

use std::{cell::Cell, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, Version};
use selvedge_policies::{
    context::{Audited, Changes, Claims},
    facts::{Content, RequestFacts},
    reason::Reason,
    settings::{AmbiguousPaths, Onward},
};
use tokio::time::Instant;

use crate::{
    cluster::{Snapshot, endpoint::Endpoint},
    connection::Connection,
    error::Error,
    http::{
        body::Replay,
        canonical::Target,
        case::Spelling,
        pace::{Polled, Sender, Turn},
        reply::{self, Caller},
        told::Told,
        trace,
    },
    ledger::Held,
    telemetry::Protocol,
};

/// One request and its answer.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The connection it came on.
    pub connection: Rc<Connection>,
    /// The configuration for all of it.
    pub snapshot: Rc<Snapshot>,
    /// When the head was read.
    pub started: Instant,
    /// Whether it only asks how the application is, which no policy is about.
    pub probe: bool,
    /// The method as it was sent, case-sensitive.
    pub method: Method,
    /// Version the caller spoke, on the connection or, between sidecars, before it.
    pub version: Version,
    /// The canonical target; `None` until the http stage has passed.
    pub target: Option<Target>,
    /// Services may read its path in another way, and policies say what becomes of it.
    pub ambiguous: bool,
    /// `namespace/name` of the service called.
    pub service: Arc<str>,
    /// Its port: that of the connection, unless the service is found by the host of the request.
    pub port: u16,
    /// Name of the route rule.
    pub route: Arc<str>,
    /// The endpoint of the last try.
    pub endpoint: Option<Rc<Endpoint>>,
    /// Tries after the first.
    pub retries: u32,
    /// A try ended so that it looks unsent, and nobody can know.
    pub in_doubt: Cell<bool>,
    /// Why the mesh ended it, when it did.
    pub reason: Option<Reason>,
    /// The object that decided.
    pub policy: Arc<str>,
    /// Which rule of it, from 0, where one did.
    pub rule: Option<u32>,
    /// The object that decided at the called side.
    pub policy_there: Box<str>,
    /// The policy that only looks on and would have refused it.
    pub audited: Option<Audited>,
    /// What was proven of its caller beside the identity.
    pub claims: Claims,
    /// The start of its content and whether that is all of it, where policies need it.
    pub content: Option<(Box<[u8]>, bool)>,
    /// What policies change of its response.
    pub changes: Option<Box<Changes>>,
    /// Payload bytes of the request.
    pub request_bytes: Rc<Cell<u64>>,
    /// Payload bytes of the response.
    pub response_bytes: Rc<Cell<u64>>,
    /// The header of a request to become a tunnel.
    pub asked: Option<HeaderMap>,
    /// Whether the tunnel would be one for bytes of any kind.
    pub opaque: bool,
    /// Its turn on the connection.
    pub turn: Turn,
    /// Leave for its head to be held; `None` when its caller holds too much.
    pub held: Option<Held>,
    /// True when its body did not come in time; `None` when it has none.
    pub late: Option<Rc<Cell<bool>>>,
    /// True for gRPC, whose status is in trailers.
    pub grpc: bool,
    /// How the names of an HTTP/1 request were written.
    pub spelling: Option<Spelling>,
    /// The value of `x-request-id`, as it came or as it was made here.
    pub request_id: Option<HeaderValue>,
    /// `traceparent` (W3C Trace Context) of its span, or as it came, or what B3 says in its place.
    pub traceparent: Option<HeaderValue>,
    /// Its span, or that of its latest try; `None` where none is made.
    pub span: Option<Box<trace::Span>>,
}

impl Exchange {
    /// Begins an exchange for a request whose head was just read.
    pub(crate) fn begin<B>(connection: &Rc<Connection>, told: Told, request: &Request<B>) -> Box<Self> {
        let (span, traceparent) = trace::begin(request.headers(), connection.worker.telemetry.sampling());
        Box::new(Self {
            snapshot: connection.worker.snapshot(),
            connection: connection.clone(),
            started: Instant::now(),
            probe: false,
            method: request.method().clone(),
            version: told.version.unwrap_or(request.version()),
            target: None,
            ambiguous: false,
            service: Arc::default(),
            port: connection.port(),
            route: Arc::default(),
            endpoint: None,
            retries: 0,
            in_doubt: Cell::new(false),
            reason: None,
            policy: Arc::default(),
            rule: None,
            policy_there: Box::default(),
            audited: None,
            claims: Claims::default(),
            content: None,
            changes: None,
            request_bytes: Rc::default(),
            response_bytes: Rc::default(),
            asked: None,
            opaque: false,
            turn: connection.pace.begin(),
            held: connection.ledger.hold(told.size),
            late: None,
            grpc: reply::is_grpc(request.headers()),
            spelling: told.spelling,
            request_id: trace::request_id(request.headers()),
            traceparent,
            span,
        })
    }

    /// The canonical target; an error of ours before the http stage has set it.
    pub(crate) fn target(&self) -> Result<&Target, Error> {
        self.target.as_ref().ok_or_else(|| Error::new(Reason::Internal, "the request has no target yet"))
    }

    /// What request policies look at.
    pub(crate) fn facts<'a>(&'a self, headers: &'a HeaderMap, route: &'a str) -> Result<RequestFacts<'a>, Error> {
        let content = self.content.as_ref().map(|(start, is_whole)| Content { start, is_whole: *is_whole });
        let facts = facts(&self.connection, &self.method, self.target()?, headers, route);
        let body = content.unwrap_or_default();
        Ok(RequestFacts { port: self.port, ambiguous: self.ambiguous, body, ..facts })
    }

    /// The request that a tunnel is made of.
    pub(crate) fn tunnelled(&mut self) -> Option<Tunnelled> {
        let (headers, target) = (self.asked.take()?, self.target.clone()?);
        let (method, route, claims) = (self.method.clone(), self.route.clone(), self.claims.clone());
        Some(Tunnelled { method, target, headers, route, claims, opaque: self.opaque })
    }

    /// True when the caller was too slow to send its body or to read the answer.
    pub(crate) fn is_caller_slow(&self) -> bool {
        let late = self.late.as_ref().is_some_and(|late| late.get());
        late || self.connection.pace.gave_up() || self.connection.polled.get() == Polled::GivenUp
    }

    /// Whether nothing is wrong yet with its body.
    ///
    /// # Errors
    /// The caller did not send it in time, or broke it off.
    pub(crate) fn whole_so_far(&self, body: &Replay) -> Result<(), Error> {
        if self.late.as_ref().is_some_and(|late| late.get()) {
            return Err(Error::new(Reason::CallerTimeout, Reason::CallerTimeout.summary()));
        }
        match body.broke() {
            true if body.is_malformed() => {
                Err(Error::new(Reason::MalformedFraming, "the content is not framed as chunks are"))
            }
            true => Err(Error::new(Reason::DownstreamClosed, "the caller broke its body off")),
            false => Ok(()),
        }
    }

    /// The sender of a request body of this length.
    pub(crate) fn sender(&self, length: Option<u64>) -> Sender {
        let limit = self.connection.worker.caller_timeouts.body.0;
        Sender::new(self.turn.clone(), limit, length, self.connection.protocol == Protocol::Http1)
    }

    /// True when a sidecar asks on behalf of an HTTP/1 caller over HTTP/2, which spells names in lower case only, or over frames, where the spelling is told apart.
    pub(crate) fn loses_spelling(&self) -> bool {
        let mesh = self.connection.peer.identity.is_some();
        mesh && matches!(self.connection.protocol, Protocol::Http2 | Protocol::Frames)
            && self.version != Version::HTTP_2
    }

    /// Who would be answered.
    pub(crate) fn caller(&self) -> Caller {
        Caller { meshed: self.connection.meshed(), sidecar: self.connection.peer.identity.is_some(), grpc: self.grpc }
    }
}

/// The request that a tunnel was made of, to be judged again.
#[derive(Debug)]
pub(crate) struct Tunnelled {
    method: Method,
    target: Target,
    headers: HeaderMap,
    route: Arc<str>,
    /// What was proven of its caller when it was let pass.
    pub claims: Claims,
    opaque: bool,
}

impl Tunnelled {
    /// True for CONNECT, whose tunnel is for bytes of any kind.
    pub(crate) const fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// Whether the path as it went on may still do so, where this becomes of such that services read in different ways.
    ///
    /// # Errors
    /// It may not, or only in another form.
    pub(crate) fn may_be_asked_for(&self, paths: AmbiguousPaths) -> Result<(), Error> {
        let is_canonical = self.target.path_and_query.path() == self.target.path();
        let why = match paths.onward(self.target.ambiguity) {
            Onward::Refused(why) => Some(why),
            Onward::Canonical if !is_canonical => self.target.ambiguity,
            Onward::AsSent | Onward::Canonical => None,
        };
        why.map_or(Ok(()), |why| Err(Error::new(Reason::MalformedPath, why.to_string())))
    }

    /// What request policies look at.
    pub(crate) fn facts<'a>(&'a self, connection: &'a Connection) -> RequestFacts<'a> {
        facts(connection, &self.method, &self.target, &self.headers, &self.route)
    }
}

fn facts<'a>(
    connection: &'a Connection,
    method: &'a Method,
    target: &'a Target,
    headers: &'a HeaderMap,
    route: &'a str,
) -> RequestFacts<'a> {
    RequestFacts {
        peer: connection.caller(),
        port: connection.port(),
        method,
        host: target.authority.host(),
        path: target.path(),
        ambiguous: false,
        query: target.path_and_query.query(),
        headers,
        route,
        body: Content::default(),
    }
}
