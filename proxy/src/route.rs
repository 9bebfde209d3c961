//! From a canonical request to the rules that apply to it and the endpoints that may answer it: [`selvedge_decide::route`]
//! decides, and what it lacks is waited for here.

use std::{rc::Rc, time::Duration};

use http::Request;
use selvedge_decide::route::{self as decide, Nowhere, Scope};
use selvedge_policies::{
    names,
    reason::Reason,
    route::{Backend, RouteRule},
};
use tokio::time::timeout;

use crate::{
    cluster::{Cluster, Snapshot},
    config::Destination,
    connection::Connection,
    error::Error,
    exchange::Exchange,
    heading::Heading,
    routed::{Target, Upstream},
    worker::Worker,
};

/// What logs and metrics have in the place of a route's name, which has slashes.
const PROBE: &str = "probe";
/// How long a first request waits for the control plane to name its destination.
const DISCOVERY: Duration = Duration::from_secs(2);

/// The rules for a request.
pub(crate) async fn scope(exchange: &mut Exchange) -> Result<Scope, Error> {
    let by_host = exchange.connection.worker.by_host && is_captured(&exchange.connection);
    let found = if by_host { Box::pin(by_host_of(exchange)).await? } else { None };
    let scope = match found {
        Some(scope) => scope,
        None => resolve(&exchange.connection, &mut exchange.snapshot).await?,
    };
    exchange.service = match &scope {
        Scope::Inbound(port) => port.called(exchange.connection.asked_for.as_deref()),
        Scope::Outbound(_) | Scope::Passthrough => scope.service(),
    };
    Ok(scope)
}

/// The service that the host of a gateway's request names; `None` where it names none that is known. Hosts may be what callers
/// from outside like: what cannot be a service is not asked for, nor is anything while nobody could say or too much is asked.
async fn by_host_of(exchange: &mut Exchange) -> Result<Option<Scope>, Error> {
    let authority = exchange.target()?.authority.clone();
    let Some((namespace, name)) = names::service_of_host(authority.host()) else { return Ok(None) };
    let (host, named) = (format!("{name}.{namespace}"), authority.full().port_u16());
    let worker = exchange.connection.worker.clone();
    let known = |snapshot: &Snapshot| match snapshot.config.destination(&host) {
        None if worker.is_absent(&host) => Some(None),
        found => found.map(|found| found.cloned()),
    };
    let found = match known(&exchange.snapshot) {
        None if worker.is_connected() => match worker.lookups.begin(&host) {
            Some(_lookup) => answered(&worker, &mut exchange.snapshot, &host, known).await,
            None => {
                worker.telemetry.host_not_asked();
                None
            }
        },
        found => found,
    };
    let Some(found) = found else { return Ok(None) };
    worker.used(&host);
    let Some(destination) = found else { return Ok(None) };
    exchange.port = decide::port_meant(&destination, named, exchange.connection.port());
    Ok(Some(Scope::Outbound(destination)))
}

/// Asks the control plane for `name`, and waits for some time until it is `known` what that is, or that it is nothing.
async fn answered<T>(
    worker: &Worker,
    snapshot: &mut Rc<Snapshot>,
    name: &str,
    known: impl Fn(&Snapshot) -> Option<T>,
) -> Option<T> {
    worker.want(name);
    let (mut configs, mut resources) = (worker.configs(), worker.resources());
    let wait = async {
        loop {
            tokio::select! {
                changed = configs.changed() => {
                    changed.ok()?;
                    *snapshot = worker.refresh(&mut configs);
                }
                changed = resources.changed() => changed.ok()?,
            }
            if let Some(found) = known(snapshot) {
                return Some(found);
            }
        }
    };
    timeout(DISCOVERY, wait).await.ok().flatten()
}

/// The rules for what comes over a connection. A destination that was never used before is asked of the control
/// plane; who waited goes on with the configuration that answered, having used no other.
pub(crate) async fn resolve(connection: &Connection, snapshot: &mut Rc<Snapshot>) -> Result<Scope, Error> {
    let name = match &connection.heading {
        Heading::Inbound { port, .. } => return Ok(Scope::Inbound(snapshot.config.inbound(*port).clone())),
        Heading::Outbound { destination, .. } => destination,
    };
    if let Some(scope) = known(connection, snapshot, name) {
        return scope;
    }
    let known = |snapshot: &Snapshot| known(connection, snapshot, name);
    let found = answered(&connection.worker, snapshot, name, known).await;
    found.unwrap_or_else(|| unknown(connection, snapshot, name))
}

fn known(connection: &Connection, snapshot: &Snapshot, name: &str) -> Option<Result<Scope, Error>> {
    let captured = is_captured(connection);
    let scope = match decide::outbound(&snapshot.config, name, captured) {
        None if connection.worker.is_absent(name) => decide::unknown(&snapshot.config, name, captured),
        known => known?,
    };
    connection.worker.used(name); // as it was asked for: that is what is subscribed to
    Some(scope.map_err(|reason| refused(snapshot, name, reason)))
}

fn unknown(connection: &Connection, snapshot: &Snapshot, name: &str) -> Result<Scope, Error> {
    let scope = decide::unknown(&snapshot.config, name, is_captured(connection));
    scope.map_err(|reason| refused(snapshot, name, reason))
}

const fn is_captured(connection: &Connection) -> bool {
    matches!(connection.heading, Heading::Outbound { original: Some(_), .. })
}

/// Without a certificate nothing could be asked of the control plane yet.
fn refused(snapshot: &Snapshot, name: &str, reason: Reason) -> Error {
    let reason = if snapshot.trust.mesh.is_none() { Reason::NotReady } else { reason };
    Error::new(reason, format!("{name}: {}", reason.summary()))
}

/// The route rule for a request. On the inbound side it only names the route; the caller's sidecar has routed.
pub(crate) fn rule<'a, B>(
    exchange: &mut Exchange,
    scope: &'a Scope,
    request: &Request<B>,
) -> Result<Option<&'a RouteRule>, Error> {
    if exchange.probe {
        exchange.route = PROBE.into();
        return Ok(None);
    }
    let facts = exchange.facts(request.headers(), "")?;
    let rule = decide::rule(scope, &facts).map_err(|reason| {
        let detail = format!("{} has routes and none matches {} {}", scope.service(), facts.method, facts.path);
        Error::new(reason, detail)
    })?;
    if let Some(rule) = rule {
        exchange.route = rule.name.clone();
    }
    Ok(rule)
}

/// Where the request may go.
pub(crate) fn upstream<'a>(
    exchange: &Exchange,
    scope: &'a Scope,
    rule: Option<&'a RouteRule>,
) -> Result<Upstream<'a>, Error> {
    let (worker, policies) = (&exchange.connection.worker, scope.policies());
    match (&exchange.connection.heading, scope) {
        (Heading::Inbound { forward, .. }, _) => Ok(Upstream {
            target: Target::One(worker.local(*forward)),
            traffic: None,
            rule: None,
            backend: None,
            policies,
        }),
        (Heading::Outbound { .. }, Scope::Outbound(destination)) => {
            let backend = worker.chance(|chance| decide::backend(rule, chance));
            let backend = backend.map_err(nowhere)?;
            let cluster = cluster(&exchange.snapshot, destination, backend, exchange.port)?;
            let traffic = Some(&*destination.traffic);
            Ok(Upstream { target: Target::Cluster(cluster), traffic, rule, backend, policies })
        }
        (Heading::Outbound { original: Some(original), .. }, _) => Ok(Upstream {
            target: Target::One(worker.local(*original)),
            traffic: None,
            rule: None,
            backend: None,
            policies,
        }),
        (Heading::Outbound { destination, .. }, _) => Err(no_endpoints(destination)),
    }
}

/// The endpoints of a destination's port, or of the backend a rule chose.
pub(crate) fn cluster(
    snapshot: &Snapshot,
    destination: &Destination,
    backend: Option<&Backend>,
    port: u16,
) -> Result<Rc<Cluster>, Error> {
    let link = decide::cluster(destination, backend, port).map_err(nowhere)?;
    let name = || decide::cluster_name(destination, backend, port).to_string();
    snapshot.cluster(link).cloned().ok_or_else(|| no_endpoints(&name()))
}

/// The destination has no endpoint.
pub(crate) fn no_endpoints(name: &str) -> Error {
    let reason = Reason::NoEndpoints;
    Error::new(reason, format!("{name}: {}", reason.summary()))
}

fn nowhere(Nowhere { reason, detail }: Nowhere) -> Error {
    Error::new(reason, detail)
}
