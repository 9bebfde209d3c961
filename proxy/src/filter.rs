//! Runs request policies and header changes: what they decide is theirs, all acting on it is here.

use http::{Request, response};
use selvedge_decide::route::Scope;
use selvedge_policies::{
    context::{Audited, Context},
    reason::Reason,
    request::PolicySet,
    route::RouteRule,
    verdict::{Answer, Verdict},
};

use crate::{
    connection::Connection,
    error::{Error, Stage},
    exchange::{Exchange, Tunnelled},
    heading::Heading,
    routed::Upstream,
    worker::Worker,
};

/// Policies in their order, then the filters of the route. A CONNECT is judged as what it becomes, too: bytes that nobody
/// looks into, HTTP perhaps.
pub fn on_request<B>(
    exchange: &mut Exchange,
    scope: &Scope,
    rule: Option<&RouteRule>,
    request: &mut Request<B>,
) -> Result<(), Error> {
    let policies = scope.policies();
    if !policies.is_empty() {
        let facts = exchange.facts(request, &exchange.route)?;
        let mut context = context(&exchange.connection.worker);
        settled(policies.on_request(&facts, &mut context))?;
        if exchange.opaque {
            refused(policies.on_open_connection(&exchange.connection.facts(), &mut context))?;
        }
        exchange.audited = context.audited;
    }
    if let (Some(rule), Scope::Outbound(_)) = (rule, scope) {
        rule.filters.change_request(request.headers_mut());
    }
    Ok(())
}

/// The filters of the route and the backend, on the way back; they act where those of the request did, at the caller's
/// side, so that they act once and by one configuration.
pub fn on_response(
    exchange: &Exchange,
    rule: Option<&RouteRule>,
    upstream: &Upstream<'_>,
    response: &mut response::Parts,
) {
    if let Some(backend) = upstream.backend {
        backend.filters.change_response(&mut response.headers);
    }
    if let (Some(rule), Heading::Outbound { .. }) = (rule, &exchange.connection.heading) {
        rule.filters.change_response(&mut response.headers);
    }
}

/// The policies again for the request that an open tunnel was made of, when they are others than when it was let pass.
pub fn on_open_tunnel(connection: &Connection, tunnelled: &Tunnelled, policies: &PolicySet) -> Result<(), Error> {
    refused(policies.on_open_request(&tunnelled.facts(connection), &mut context(&connection.worker)))?;
    if tunnelled.is_opaque() { on_open_connection(connection, policies) } else { Ok(()) }
}

/// Policies that decide whole connections of opaque bytes. What only looks on and would have refused is named.
pub fn on_connection(connection: &Connection, scope: &Scope) -> Result<Option<Audited>, Error> {
    let mut context = context(&connection.worker);
    settled(scope.policies().on_connection(&connection.facts(), &mut context))?;
    Ok(context.audited)
}

/// The same for one that is open, when the policies are others than when it was let pass.
pub fn on_open_connection(connection: &Connection, policies: &PolicySet) -> Result<(), Error> {
    refused(policies.on_open_connection(&connection.facts(), &mut context(&connection.worker)))
}

fn context(worker: &Worker) -> Context {
    Context::new(worker.now(), worker.chance(fastrand::Rng::fork))
}

fn refused(answer: Option<Answer>) -> Result<(), Error> {
    answer.map_or(Ok(()), |answer| Err(Error::answered(answer)))
}

/// A verdict that is final. None of today's policies waits or asks.
fn settled(verdict: Verdict) -> Result<(), Error> {
    match verdict {
        Verdict::Continue => Ok(()),
        Verdict::Answer(answer) => Err(Error::answered(answer)),
        Verdict::Wait(_) | Verdict::Ask(_) => {
            Err(Error::new(Stage::Filter, Reason::Internal, "a policy waits, which this stage cannot do"))
        }
    }
}
