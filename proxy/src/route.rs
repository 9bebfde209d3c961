//! From a canonical request to the rules that apply to it and the endpoints that may answer it: [`selvedge_decide::route`]
//! decides, and what it lacks is waited for here.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use http::{Request, Uri};
use selvedge_decide::{
    resources::called_at,
    route::{self as decide, Nowhere, Scope},
};
use selvedge_policies::{
    names,
    reason::Reason,
    route::{Backend, RouteRule},
    settings::Onward,
};
use tokio::time::timeout;

use crate::{
    cluster::{Cluster, Snapshot},
    config::Destination,
    connection::Connection,
    error::Error,
    exchange::Exchange,
    heading::Heading,
    resolver,
    routed::{Target, Upstream},
    telemetry::{Direction, PROBE},
    worker::Worker,
};

/// How long a first request waits for the control plane to name its destination.
const DISCOVERY: Duration = Duration::from_secs(2);

/// The rules for a request.
pub(crate) async fn scope(exchange: &mut Exchange) -> Result<Scope, Error> {
    let by_host = exchange.connection.worker.by_host && is_captured(&exchange.connection);
    let found = if by_host { Box::pin(by_host_of(exchange)).await? } else { None };
    let scope = match found {
        Some(scope) => scope,
        None => {
            let by_address = resolve(&exchange.connection, &mut exchange.snapshot).await;
            let named = if may_be_named(&by_address) { Box::pin(by_name_of(exchange)).await } else { None };
            match named {
                Some(scope) => scope,
                None => by_address?,
            }
        }
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
    let Some(destination) = of_host(&worker, &mut exchange.snapshot, &host).await else { return Ok(None) };
    exchange.port = decide::port_meant(&destination, named, exchange.connection.port());
    Ok(Some(Scope::Outbound(destination)))
}

/// What the control plane knows by this host. It is asked where it can be and not too much is asked.
async fn of_host(worker: &Worker, snapshot: &mut Rc<Snapshot>, host: &str) -> Option<Arc<Destination>> {
    let known = |snapshot: &Snapshot| match snapshot.config.destination(host) {
        None if worker.is_absent(host) => Some(None),
        found => found.map(|found| found.cloned()),
    };
    let found = match known(snapshot) {
        None if worker.is_connected() => match worker.lookups.begin(host) {
            Some(_lookup) => answered(worker, snapshot, host, known).await,
            None => {
                worker.telemetry.host_not_asked();
                None
            }
        },
        found => found,
    };
    worker.used(host);
    found?
}

/// Whether its name may say more of a call than its address does.
fn may_be_named(by_address: &Result<Scope, Error>) -> bool {
    match by_address {
        Ok(Scope::Inbound(_)) => false,
        Ok(Scope::Outbound(found)) => found.external,
        Ok(Scope::Passthrough) | Err(_) => true,
    }
}

/// The service outside the mesh that the host of a request names, where [`named`] believes it.
async fn by_name_of(exchange: &mut Exchange) -> Option<Scope> {
    let (connection, authority) = (exchange.connection.clone(), exchange.target().ok()?.authority.clone());
    // What is known by address goes on with the snapshot in which it is.
    let mut snapshot = exchange.snapshot.clone();
    let name = named(&connection.worker, &connection.heading, &mut snapshot, authority.host()).await?;
    let destination = snapshot.config.destination(&name).flatten()?.clone();
    exchange.snapshot = snapshot;
    Some(Scope::Outbound(destination))
}

/// The name of the service outside the mesh that is called by `host`, at the address that was dialled. `None` where that is of
/// the mesh, is what is called anyway, or is not one that the sidecar's own look-up gives for the host: nobody is believed who
/// only says a name. `snapshot` is the one in which it is known.
pub(crate) async fn named(
    worker: &Worker,
    heading: &Heading,
    snapshot: &mut Rc<Snapshot>,
    host: &str,
) -> Option<Arc<str>> {
    let Heading::Outbound { destination, port, original: Some(dialled) } = heading else { return None };
    let questions = worker.resolver.as_ref()?;
    let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    if is_address || !decide::is_outside(&snapshot.config, destination, worker.is_absent(destination)) {
        return None;
    }
    let name: Arc<str> = called_at(host, *dialled).into();
    let is_known = |snapshot: &Snapshot| snapshot.config.destination(&name).is_some();
    if is_known(snapshot) {
        worker.used(host);
        return Some(name);
    }
    let service = of_host(worker, snapshot, host).await.filter(|found| found.external)?;
    let by_address = snapshot.config.destination(destination).flatten();
    if by_address.is_some_and(|known| known.name == service.name) || !service.ports.contains_key(port) {
        return None;
    }
    if !resolver::is_address_of(questions, host, dialled.ip()).await {
        return None;
    }
    let mut configs = worker.configs();
    let published = async {
        *snapshot = worker.refresh(&mut configs);
        while !is_known(snapshot) {
            configs.changed().await.ok()?;
            *snapshot = worker.refresh(&mut configs);
        }
        Some(name.clone())
    };
    timeout(DISCOVERY, published).await.ok().flatten()
}

/// Asks the control plane for `name`, and waits for some time until it is `known` what that is, or that it is nothing. Of a
/// control plane that is silent nothing is waited for, but for what this sidecar finds out by itself.
async fn answered<T>(
    worker: &Worker,
    snapshot: &mut Rc<Snapshot>,
    name: &str,
    known: impl Fn(&Snapshot) -> Option<T>,
) -> Option<T> {
    worker.want(name);
    let patience = worker.patience.begin();
    if patience.is_none() && !worker.is_address_known(name) {
        return None;
    }
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
    let found = timeout(DISCOVERY, wait).await.ok().flatten();
    if let (None, Some(wait)) = (&found, patience) {
        worker.patience.gave_up(wait);
    }
    found
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
    found.unwrap_or_else(|| unanswered(connection, snapshot, name))
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

fn unanswered(connection: &Connection, snapshot: &Snapshot, name: &str) -> Result<Scope, Error> {
    let scope = decide::unanswered(&snapshot.config, name, is_captured(connection));
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

/// Settles which form of its path goes on, where services read the one that was sent in different ways.
///
/// # Errors
/// None may, in front of a service whose policies look at paths.
pub(crate) fn path<B>(exchange: &mut Exchange, scope: &Scope, request: &mut Request<B>) -> Result<(), Error> {
    let Some(target) = exchange.target.as_mut().filter(|_| !exchange.probe) else { return Ok(()) };
    exchange.ambiguous = target.ambiguity.is_some() && scope.policies_say_of_paths();
    match scope.ambiguous_paths().onward(target.ambiguity) {
        Onward::AsSent => {}
        Onward::Canonical => {
            target.rewrite()?;
            *request.uri_mut() = Uri::from(target.path_and_query.clone());
        }
        Onward::Refused(why) => return Err(Error::new(Reason::MalformedPath, why.to_string())),
    }
    Ok(())
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
            target: Target::One(worker.local(Direction::Inbound, *forward)),
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
            target: Target::One(worker.local(Direction::Outbound, *original)),
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
