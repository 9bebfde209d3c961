//! Runs request policies and header changes: what they decide is theirs, all acting on it is here.

use std::sync::Arc;

use http::{Request, response};
use selvedge_decide::route::Scope;
use selvedge_policies::{request::RequestPolicy, route::RouteRule, verdict::Verdict};

use crate::{
    connection::Connection,
    error::Error,
    exchange::{Exchange, Tunnelled},
    heading::Heading,
    routed::Upstream,
};

/// Policies in their order, those that only look on when the others let the request pass, then the header changes of the
/// route. A CONNECT is judged as what it becomes, too: bytes that nobody looks into, HTTP perhaps.
pub fn on_request<B>(
    exchange: &mut Exchange,
    scope: &Scope,
    rule: Option<&RouteRule>,
    request: &mut Request<B>,
) -> Result<(), Error> {
    if !scope.policies().is_empty() {
        let facts = exchange.facts(request, &exchange.route)?;
        let now = exchange.connection.worker.now();
        for policy in scope.policies() {
            if let Verdict::Answer(answer) = policy.on_request(&facts, now) {
                return Err(Error::answered(answer));
            }
        }
        if exchange.opaque {
            on_open_connection(&exchange.connection, scope.policies())?;
        }
        let connection = Some(exchange.connection.facts()).filter(|_| exchange.opaque);
        let audited = scope.policies().iter().find_map(|policy| {
            let as_opaque = || policy.would_refuse_connection(connection.as_ref()?, now);
            policy.would_refuse(&facts, now).or_else(as_opaque)
        });
        exchange.audited = audited.cloned();
    }
    if let (Some(rule), Scope::Outbound(_)) = (rule, scope) {
        rule.request_headers.apply(request.headers_mut());
    }
    Ok(())
}

/// The header changes of the route and the backend, on the way back; made where those of the request were, at the
/// caller's side, so that they are made once and by one configuration.
pub fn on_response(
    exchange: &Exchange,
    rule: Option<&RouteRule>,
    upstream: &Upstream<'_>,
    response: &mut response::Parts,
) {
    if let Some((_, changes)) = upstream.backend_headers() {
        changes.apply(&mut response.headers);
    }
    if let (Some(rule), Heading::Outbound { .. }) = (rule, &exchange.connection.heading) {
        rule.response_headers.apply(&mut response.headers);
    }
}

/// The policies again for the request that an open tunnel was made of, when they are others than when it was let pass.
pub fn on_open_tunnel(
    connection: &Connection,
    tunnelled: &Tunnelled,
    policies: &[Arc<dyn RequestPolicy>],
) -> Result<(), Error> {
    let (facts, now) = (tunnelled.facts(connection), connection.worker.now());
    for policy in policies {
        if let Verdict::Answer(answer) = policy.on_open_request(&facts, now) {
            return Err(Error::answered(answer));
        }
    }
    if tunnelled.is_opaque() { on_open_connection(connection, policies) } else { Ok(()) }
}

/// Policies that decide whole connections of opaque bytes. One that only looks on and would have refused is named.
pub fn on_connection(connection: &Connection, scope: &Scope) -> Result<Option<Arc<str>>, Error> {
    let (facts, now) = (connection.facts(), connection.worker.now());
    for policy in scope.policies() {
        if let Verdict::Answer(answer) = policy.on_connection(&facts, now) {
            return Err(Error::answered(answer));
        }
    }
    Ok(scope.policies().iter().find_map(|policy| policy.would_refuse_connection(&facts, now)).cloned())
}

/// The same for one that is open, when the policies are others than when it was let pass.
pub fn on_open_connection(connection: &Connection, policies: &[Arc<dyn RequestPolicy>]) -> Result<(), Error> {
    let now = connection.worker.now();
    for policy in policies {
        if let Verdict::Answer(answer) = policy.on_open_connection(&connection.facts(), now) {
            return Err(Error::answered(answer));
        }
    }
    Ok(())
}
