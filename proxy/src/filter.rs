//! The filter stage: what policies and route filters decide is theirs, all acting on it is here.
//!
//! Guarantees: a verdict that waits or asks is carried out before the next policy is asked, and what waits costs those who
//! do not nothing. No pause outlasts the request's timeout or the drain, and what was taken back while it waits need not be
//! waited for. A policy that fails to come to an end refuses. What a request was let pass with (claims, header changes)
//! stays with it to its response, and to the tunnel it may become.

use std::{future::pending, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderMap, Method, request};
use selvedge_decide::{
    config::InboundPort,
    route::{Scope, ambiguous_paths},
};
use selvedge_policies::{
    context::{Audited, Context, Resumed},
    facts::{AttemptFacts, ConnectionFacts, ResponseFacts, Section},
    names::WorkloadName,
    reason::Reason,
    request::{Asked, PolicySet},
    route::RouteRule,
    verdict::{Answer, Verdict},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    balance::Picked,
    connection::{self, Connection, Passed},
    error::Error,
    exchange::{Exchange, Tunnelled},
    http::{body::Replay, reply},
    message::{Answered, Halt, Received},
    routed::{self, Upstream},
    worker::Worker,
};

mod ask;

/// How long the start of a request's content is waited for.
pub(crate) const CONTENT: Duration = Duration::from_secs(1);

/// All that is [`Asked`] of a request. A CONNECT is judged as what it becomes, too: bytes that nobody looks into, HTTP
/// perhaps.
///
/// # Errors
/// The answer of the one that lets it go no further.
pub(crate) async fn on_request(
    exchange: &mut Exchange,
    scope: &Scope,
    rule: Option<&RouteRule>,
    received: &mut Received,
) -> Result<(), Halt> {
    let asked = Asked::new(scope.policies(), scope.filters(rule));
    if asked.is_empty() {
        return Ok(());
    }
    if exchange.probe {
        if scope.policies().needs().sanitizes {
            sanitize(exchange, scope.policies(), received.request.headers_mut());
        }
        return Ok(());
    }
    let until = scope.traffic().and_then(|traffic| routed::deadline(rule, Some(traffic), exchange.started));
    let needed = scope.policies().needs().body;
    if needed > 0 && received.wanted.is_none() {
        Box::pin(read_ahead(exchange, received.request.body(), needed, until)).await?;
    }
    let headers = received.request.headers_mut();
    if scope.policies().needs().sanitizes {
        sanitize(exchange, scope.policies(), headers);
    }
    let connection = &*exchange.connection;
    let mut context = context(&connection.worker);
    let facts = exchange.facts(headers, &exchange.route)?;
    let becomes = exchange.opaque.then(|| connection.facts());
    let decide = |context: &mut Context| asked.decide(&facts, becomes.as_ref(), context);
    if let Some(answer) = settle(connection, scope.policies(), until, &mut context, decide).await {
        return Err(halt(exchange, answer));
    }
    exchange.changes = asked.change(headers, &mut context);
    exchange.audited = context.audited;
    exchange.claims = context.claims;
    Ok(())
}

/// Takes out what the caller may not say: of what is judged now, and of what a tunnel is judged by later.
fn sanitize(exchange: &mut Exchange, policies: &PolicySet, headers: &mut HeaderMap) {
    let header = Section::Header(exchange.connection.caller());
    policies.sanitize(header, headers);
    if let Some(asked) = &mut exchange.asked {
        policies.sanitize(header, asked);
    }
}

/// Reads the start of the content that policies need. What has not come in a moment they decide without: the service may be
/// the one that has to speak first.
async fn read_ahead(exchange: &mut Exchange, body: &Replay, bytes: usize, until: Option<Instant>) -> Result<(), Error> {
    let moment = Instant::now() + CONTENT;
    tokio::select! {
        () = body.read_ahead(bytes) => exchange.whole_so_far(body)?,
        () = paused(&exchange.connection.worker, until.map_or(moment, |until| until.min(moment))) => {}
    }
    exchange.content = Some(body.start(bytes));
    Ok(())
}

/// The policies that decide single tries: the head as they change it for this one, where they do.
///
/// # Errors
/// The answer of the one that lets it go no further.
pub(crate) async fn on_attempt(
    exchange: &mut Exchange,
    upstream: &Upstream<'_>,
    picked: &Picked,
    head: &request::Parts,
) -> Result<Option<Box<request::Parts>>, Halt> {
    if !upstream.policies.needs().attempts || exchange.probe {
        return Ok(None);
    }
    let connection = &*exchange.connection;
    let mut context = context(&connection.worker).with_claims(exchange.claims.clone());
    let facts = exchange.facts(&head.headers, &exchange.route)?;
    let endpoint = &picked.endpoint.config;
    let workload = endpoint.workload.as_ref().map_or("", WorkloadName::name);
    let attempt = AttemptFacts { number: exchange.retries, service: endpoint.service(), workload };
    let decide = |context: &mut Context| upstream.policies.on_attempt(&facts, &attempt, context);
    let until = upstream.deadline(exchange.started);
    if let Some(answer) = settle(connection, upstream.policies, until, &mut context, decide).await {
        return Err(halt(exchange, answer));
    }
    Ok(context.take_changes().map(|changes| {
        let mut head = Box::new(head.clone());
        changes.request.apply(&mut head.headers);
        head
    }))
}

/// The filters of the backend and the route on the way back, what the request was let pass with, and the policies that
/// decide responses.
///
/// # Errors
/// The answer of the one that lets it go no further.
pub(crate) async fn on_response(
    exchange: &mut Exchange,
    scope: &Scope,
    rule: Option<&RouteRule>,
    upstream: &Upstream<'_>,
    answered: &mut Answered,
) -> Result<(), Halt> {
    let headers = &mut answered.parts.headers;
    if let Some(backend) = upstream.backend {
        backend.filters.change_response(headers);
    }
    if let Some(filters) = scope.filters(rule) {
        filters.change_response(headers);
    }
    if let Some(changes) = exchange.changes.take() {
        changes.response.apply(headers);
    }
    if upstream.policies.needs().responses && !exchange.probe {
        decide_response(exchange, upstream, answered).await
    } else {
        Ok(())
    }
}

async fn decide_response(
    exchange: &mut Exchange,
    upstream: &Upstream<'_>,
    answered: &mut Answered,
) -> Result<(), Halt> {
    let (connection, parts) = (&*exchange.connection, &mut answered.parts);
    let mut context = context(&connection.worker).with_claims(exchange.claims.clone());
    let facts = ResponseFacts {
        status: parts.status,
        headers: &parts.headers,
        reason: reply::reason(&parts.headers),
        method: &exchange.method,
        route: &exchange.route,
    };
    let decide = |context: &mut Context| upstream.policies.on_response(&facts, context);
    let until = upstream.deadline(exchange.started);
    if let Some(answer) = settle(connection, upstream.policies, until, &mut context, decide).await {
        return Err(halt(exchange, answer));
    }
    if let Some(changes) = context.take_changes() {
        changes.response.apply(&mut parts.headers);
    }
    Ok(())
}

/// The policies again for the request that an open tunnel was made of, when they are others than when it was let pass. One that
/// would be refused for its path now is.
pub(crate) fn on_open_tunnel(connection: &Connection, tunnelled: &Tunnelled, port: &InboundPort) -> Result<(), Error> {
    tunnelled.may_be_asked_for(ambiguous_paths(port))?;
    let policies = &port.policies;
    let mut context = context(&connection.worker).with_claims(tunnelled.claims.clone());
    let mut refused = policies.on_open_request(&tunnelled.facts(connection), &mut context);
    if refused.is_none() && tunnelled.is_opaque() {
        refused = policies.on_open_connection(&connection.facts(), &mut context);
    }
    refused.map_or(Ok(()), |answer| Err(Error::answered(answer)))
}

/// Policies that decide whole connections of opaque bytes. They are asked once for each, and again only where more of it
/// is known than when they let it pass. What only looks on and would have refused is named.
///
/// # Errors
/// The answer of the one that does not let it be.
pub(crate) async fn on_connection(connection: &Connection, policies: &PolicySet) -> Result<Option<Audited>, Error> {
    let before = connection.standing.passed.borrow().clone();
    if let Some(passed) = before.as_ref().filter(|passed| passed.is_still(connection, policies)) {
        return Ok(passed.audited.clone());
    }
    let earlier = before.as_ref().map(|passed| passed.facts(connection.port()));
    let facts = ConnectionFacts { earlier: earlier.as_ref(), ..connection.facts() };
    let mut context = context(&connection.worker);
    let decide = |context: &mut Context| policies.on_connection(&facts, context);
    match settle(connection, policies, None, &mut context, decide).await {
        Some(answer) => Err(Error::answered(answer)),
        None => {
            let (peer, server_name) = (connection.caller().clone(), connection.server_name.clone());
            let passed = Passed { peer, server_name, claims: context.claims, audited: context.audited.clone() };
            connection.standing.passed.replace(Some(Rc::new(passed)));
            Ok(context.audited)
        }
    }
}

/// Re-authorizes a connection of opaque bytes that is open, when the policies are others than when it was let pass.
pub(crate) fn on_open_connection(connection: &Connection, policies: &PolicySet) -> Result<(), Error> {
    let mut context = context(&connection.worker).with_claims(connection.claims());
    let refused = policies.on_open_connection(&connection.facts(), &mut context);
    refused.map_or(Ok(()), |answer| Err(Error::answered(answer)))
}

fn context(worker: &Worker) -> Context {
    Context::new(worker.now(), worker.chance(fastrand::Rng::fork))
}

/// Ends a request with an answer of the mesh.
fn halt(exchange: &mut Exchange, answer: Answer) -> Halt {
    exchange.policy = answer.policy.clone();
    match answer.reason {
        Some(_) => Error::answered(answer).into(),
        // It would be taken for the tunnel that nobody has made (RFC 9110 section 9.3.6).
        None if exchange.method == Method::CONNECT && answer.status.is_success() => {
            let detail = "a policy answers in place of the tunnel";
            Error { policy: answer.policy, ..Error::new(Reason::PolicyDenied, detail) }.into()
        }
        None => Halt::Answered(Box::new(Answered::own(answer))),
    }
}

/// Asks until the verdict is final: the answer that ends it, if any. What is not decided at `until` has taken too long.
/// `policies` are told when others have come into force in the place of one that waits.
async fn settle(
    connection: &Connection,
    policies: &PolicySet,
    until: Option<Instant>,
    context: &mut Context,
    decide: impl Fn(&mut Context) -> Verdict,
) -> Option<Answer> {
    match decide(context) {
        Verdict::Continue => None,
        Verdict::Answer(answer) => Some(answer),
        // Boxed: few wait, and every request would carry the room for it.
        pause @ (Verdict::Wait(_) | Verdict::Ask(_)) => {
            Box::pin(wait(connection, policies, until, pause, context, decide)).await
        }
    }
}

async fn wait(
    connection: &Connection,
    policies: &PolicySet,
    until: Option<Instant>,
    mut verdict: Verdict,
    context: &mut Context,
    decide: impl Fn(&mut Context) -> Verdict,
) -> Option<Answer> {
    let worker = &connection.worker;
    loop {
        let (within, question) = match verdict {
            Verdict::Continue => return None,
            Verdict::Answer(answer) => return Some(answer),
            Verdict::Wait(time) => (time, None),
            Verdict::Ask(question) => (question.within, Some(question)),
        };
        let end = Instant::now() + within;
        let end = until.map_or(end, |until| until.min(end));
        match question {
            Some(question) => context.resume(Resumed::Told(ask::ask(worker, *question, end).await)),
            None => {
                connection.standing.waits.set(true);
                tokio::select! {
                    () = paused(worker, end) => context.resume(Resumed::Waited),
                    () = replaced(connection, policies, context) => {}
                }
                connection.standing.waits.set(false);
            }
        }
        if until.is_some_and(|until| until <= Instant::now()) {
            return Some(Answer::refuse(Reason::RequestTimeout, Arc::default()));
        }
        context.now = worker.now();
        verdict = decide(context);
    }
}

/// Waits until other policies are in force in the place of the one that waits, which has been told then.
async fn replaced(connection: &Connection, policies: &PolicySet, context: &mut Context) {
    let (none, mut configs) = (PolicySet::new(), connection.worker.configs());
    loop {
        let snapshot = connection.worker.refresh(&mut configs);
        let in_force = connection::policies(&snapshot.config, &connection.heading).unwrap_or(&none);
        if policies.replaced(in_force, context) {
            return;
        }
        if configs.changed().await.is_err() {
            return pending().await; // the process is ending
        }
    }
}

/// Waits until `end`, or until the application is gone or the drain over: then nobody has time to wait.
async fn paused(worker: &Worker, end: Instant) {
    tokio::select! {
        () = sleep_until(end) => {}
        () = async { worker.drain().gone().await } => {}
    }
}
