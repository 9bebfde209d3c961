//! The whole mesh in memory: what every sidecar would decide, asked without one.
//!
//! A [`Mesh`] holds the resources of all workloads and destinations. [`Mesh::why`] puts the part of them before the
//! decisions that the two sidecars of a request would hold, and goes the request's way: the caller's sidecar finds the
//! destination, the route rule and the backends, the called one judges the request by its policies. Every step is the
//! function that a sidecar calls, on a configuration that was compiled as a sidecar compiles its own; what is said about
//! single conditions beside it is asked of the same evaluators, one condition at a time.
//!
//! Nothing is kept between two questions: a rate limit sees each request as its first.
//!
//! ```
//! use selvedge_decide::mesh::Mesh;
//! use selvedge_policies::{reason::Reason, testing::{Clock, Request}};
//! use selvedge_xds::{
//!     kinds::{DESTINATION, ENDPOINTS, INBOUND},
//!     proto::mesh::{Destination, Endpoint, Endpoints, Inbound, Port},
//!     resource::Encoded,
//! };
//!
//! let port = Port { port: 80, app_protocol: "http".into(), ..Port::default() };
//! let web = Destination { namespace: "shop".into(), name: "web".into(), ports: vec![port], ..Destination::default() };
//! let identity = "spiffe://mesh.local/ns/shop/sa/web";
//! let endpoint = Endpoint {
//!     address: "10.0.0.1:8080".into(), identity: identity.into(), workload: "shop/web-1".into(), port: 8080,
//!     ..Endpoint::default()
//! };
//! let view = |name: &str, posture: &str| Inbound {
//!     workload: name.into(), identity: identity.into(), posture: posture.into(), ..Inbound::default()
//! };
//!
//! let mut mesh = Mesh::default();
//! for resource in [
//!     Encoded::new(DESTINATION, "shop/web", vec!["web.shop".into()], &web),
//!     Encoded::new(ENDPOINTS, "shop/web:80", vec![], &Endpoints { endpoints: vec![endpoint] }),
//!     Encoded::new(INBOUND, "shop/web-1", vec![], &view("shop/web-1", "deny")),
//!     Encoded::new(INBOUND, "shop/ui-1", vec![], &view("shop/ui-1", "allow")),
//! ] {
//!     mesh.put(&resource).unwrap();
//! }
//! let request = Request::new("GET", "/cart").port(80);
//! let trace = mesh.why("shop/ui-1", "web.shop", &request.facts(), &Clock::default().context());
//! assert_eq!(trace.destination.as_deref(), Some("shop/web"));
//! assert_eq!(trace.endings()[0].reason, Some(Reason::PolicyDefaultDeny));
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use http::{HeaderMap, Method};
use prost::Message;
use selvedge_policies::{
    context::{Context, Resumed},
    facts::{ConnectionFacts, Moment, Peer, RequestFacts},
    reason::Reason,
    registry,
    request::PolicySet,
    route::{self as routes, Backend, RouteRule},
    verdict::Verdict,
};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND},
    proto::mesh::{Attachment, Destination, Endpoint, Endpoints, Inbound},
    resource::Encoded,
};

use crate::{
    admission,
    assemble::endpoints_of,
    compile::{self, Compiler},
    config::RuntimeConfig,
    resources::{Resources, Versioned},
    route::{self, Scope},
    trace::{Arrival, Ending, Judged, Trace, Way},
};

/// All resources of a mesh.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    workloads: HashMap<String, Arc<Inbound>>,
    destinations: HashMap<String, Arc<Versioned<Destination>>>,
    endpoints: HashMap<String, Arc<Versioned<Endpoints>>>,
    /// Who answers to a name, best claim first: a service of the mesh before an external one, then by name.
    claims: HashMap<String, BTreeSet<(bool, String)>>,
    /// The names that each destination answers to.
    names: HashMap<String, Vec<String>>,
}

impl Mesh {
    /// Takes a resource in, in place of the one of its name.
    ///
    /// # Errors
    /// It cannot be put in force, which the text explains; what was there before stays.
    pub fn put(&mut self, resource: &Encoded) -> Result<(), String> {
        compile::check(resource)?;
        let text = |error: prost::DecodeError| error.to_string();
        let (name, body) = (resource.name.clone(), resource.body.clone());
        match resource.kind {
            INBOUND => drop(self.workloads.insert(name, Arc::new(Inbound::decode(body).map_err(text)?))),
            ENDPOINTS => drop(self.endpoints.insert(name, versioned(resource)?)),
            DESTINATION => {
                let destination = versioned::<Destination>(resource)?;
                let names: Vec<String> = resource.aliases.iter().chain([&name]).cloned().collect();
                self.disclaim(&name);
                for alias in &names {
                    let claims = self.claims.entry(alias.clone()).or_default();
                    claims.insert((destination.value.external, name.clone()));
                }
                self.names.insert(name.clone(), names);
                self.destinations.insert(name, destination);
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes back what the destination of this name claims.
    fn disclaim(&mut self, name: &str) {
        for alias in self.names.remove(name).unwrap_or_default() {
            if let Some(claims) = self.claims.get_mut(&alias) {
                claims.retain(|(_, of)| of != name);
            }
        }
    }

    /// What becomes of a request that the workload `from` sends to `to`, which is any name or address that a service
    /// answers to. The facts are those of the request as its application makes it: `port` is the service's, and the peer's
    /// identity is what the caller's sidecar proves, whatever the facts say. A CONNECT is one that becomes a tunnel of opaque
    /// bytes (RFC 9110 section 9.3.6), not an extended one (RFC 8441).
    pub fn why(&self, from: &str, to: &str, request: &RequestFacts<'_>, context: &Context) -> Trace {
        let config = self.caller(from, to);
        let mut trace = Trace { identity: config.own.caller.as_deref().cloned(), ..Trace::default() };
        let peer = Peer { identity: config.own.caller.clone(), address: request.peer.address };
        let request = &RequestFacts { peer: &peer, ..*request };
        let captured = to.parse::<SocketAddr>().is_ok();
        let scope = route::outbound(&config, to, captured).unwrap_or_else(|| route::unknown(&config, to, captured));
        match scope {
            Ok(Scope::Outbound(destination)) => {
                trace.destination = Some(destination.name.text().clone());
                let scope = Scope::Outbound(destination);
                if let Err(reason) = self.route(&config, &scope, request, context, &mut trace) {
                    trace.stopped = Some(Ending::of(reason));
                }
            }
            Ok(_) => trace.stopped = Some(Ending::default()),
            Err(reason) => trace.stopped = Some(Ending::of(reason)),
        }
        trace
    }

    /// What the sidecar of `workload` makes of a request that comes to the application's port `request.port` from
    /// `request.peer`; `None` when the mesh has no such workload.
    pub fn why_received(
        &self,
        workload: &str,
        request: &RequestFacts<'_>,
        context: &Context,
    ) -> Option<(Arrival, Ending)> {
        let inbound = self.workloads.get(workload)?;
        let own = inbound.ports.iter().filter(|port| port.port == u32::from(request.port)).cloned();
        let called = Inbound { ports: compile::by_number(&own.collect::<Vec<_>>()), ..Inbound::clone(inbound) };
        let port = called.ports.first().cloned().unwrap_or_default();
        let arrival = Arrival {
            workload: workload.to_owned(),
            port: request.port,
            policies: judged(compile::in_order(&called, &port), request, context.now),
            posture: if inbound.posture.is_empty() { "allow".to_owned() } else { inbound.posture.clone() },
        };
        let config = compile(Resources { inbound: Some(Arc::new(called)), ..Resources::default() });
        let ending = receive(&config, request, context).unwrap_or_else(Ending::of);
        Some((arrival, ending))
    }

    /// The configuration of the sidecar beside `from` when it has asked for `to` and nothing else.
    fn caller(&self, from: &str, to: &str) -> RuntimeConfig {
        let name = self.claims.get(to).and_then(|claims| claims.first()).map(|(_, name)| name);
        let destination = name.and_then(|name| Some((name.clone(), self.destinations.get(name)?.clone())));
        let needed = destination.iter().flat_map(|(_, destination)| endpoints_of(&destination.value));
        let endpoints = needed.filter_map(|name| Some((name.clone(), self.endpoints.get(&name)?.clone())));
        compile(Resources {
            inbound: self.workloads.get(from).cloned(),
            aliases: HashMap::from([(to.to_owned(), name.cloned())]),
            endpoints: endpoints.collect(),
            destinations: destination.into_iter().collect(),
            ..Resources::default()
        })
    }

    /// The caller's half of the way: the rule, the backends, and every endpoint of theirs.
    fn route(
        &self,
        config: &RuntimeConfig,
        scope: &Scope,
        request: &RequestFacts<'_>,
        context: &Context,
        trace: &mut Trace,
    ) -> Result<(), Reason> {
        let Scope::Outbound(destination) = scope else { return Ok(()) };
        let of = |message: &Destination| {
            let mut documents = compile::read_routes(&message.routes).unwrap_or_default();
            documents.retain(|route| compile::is_for(&route.spec, message, request.port));
            documents
        };
        let documents: Vec<_> = config.resources.destinations.values().flat_map(|found| of(&found.value)).collect();
        trace.considered = routes::explain(&documents, request);
        let rule = route::rule(scope, request)?;
        trace.route = rule.map(|rule| rule.name.clone());
        let request = RequestFacts { route: rule.map_or("", |rule| &rule.name), ..*request };
        let sources = config.resources.destinations.values().flat_map(|found| &found.value.policies);
        trace.policies = judged(compile::sorted(sources.collect()), &request, context.now);
        let (ending, headers) = depart(scope, rule, &request, &mut context.clone());
        if !ending.passes() {
            trace.stopped = Some(ending);
            return Ok(());
        }
        for (backend, share) in possible(rule)? {
            let cluster = route::cluster_name(destination, backend, request.port).to_string();
            let mut headers = headers.clone();
            backend.iter().for_each(|backend| backend.filters.change_request(&mut headers));
            let request = RequestFacts { headers: &headers, ..request };
            let found = config.resources.endpoints.get(&cluster).map(|found| &found.value.endpoints[..]);
            match found.unwrap_or_default() {
                [] => trace.ways.push(Way {
                    cluster,
                    share,
                    address: None,
                    arrival: None,
                    ending: Ending::of(Reason::NoEndpoints),
                }),
                endpoints => {
                    trace.ways.extend(endpoints.iter().map(|endpoint| {
                        let (arrival, ending) = self.arrive(config, endpoint, &request, context);
                        let address = endpoint.address.parse().ok();
                        Way { cluster: cluster.clone(), share, address, arrival, ending }
                    }));
                }
            }
        }
        Ok(())
    }

    /// The called half of the way: what the sidecar at `endpoint` says, where there is one.
    fn arrive(
        &self,
        caller: &RuntimeConfig,
        endpoint: &Endpoint,
        request: &RequestFacts<'_>,
        context: &Context,
    ) -> (Option<Arrival>, Ending) {
        let identity = caller.own.caller.clone().filter(|_| !endpoint.identity.is_empty());
        let peer = Peer { identity, address: request.peer.address };
        let port = u16::try_from(endpoint.port).unwrap_or_default();
        let arrived = RequestFacts { peer: &peer, port, ..*request };
        match self.why_received(&endpoint.workload, &arrived, context).filter(|_| !endpoint.identity.is_empty()) {
            Some((arrival, ending)) => (Some(arrival), ending),
            None => (None, Ending::default()),
        }
    }
}

fn versioned<T: Message + Default>(resource: &Encoded) -> Result<Arc<Versioned<T>>, String> {
    let value = T::decode(resource.body.clone()).map_err(|error| error.to_string())?;
    Ok(Arc::new(Versioned { name: resource.name.clone(), version: resource.version.clone(), value }))
}

fn compile(resources: Resources) -> RuntimeConfig {
    Compiler::default().compile(&Arc::new(resources))
}

/// The backends that requests of a rule may go to, with their shares; `None` stands for the service called.
fn possible(rule: Option<&RouteRule>) -> Result<Vec<(Option<&Backend>, f64)>, Reason> {
    let Some(rule) = rule.filter(|rule| !rule.backends.is_empty()) else { return Ok(vec![(None, 1.0)]) };
    let total: f64 = rule.backends.iter().map(|backend| f64::from(backend.weight)).sum();
    let weighty = rule.backends.iter().filter(|backend| backend.weight > 0);
    let possible: Vec<_> = weighty.map(|backend| (Some(backend), f64::from(backend.weight) / total)).collect();
    if possible.is_empty() { Err(rule.nowhere) } else { Ok(possible) }
}

/// What the caller's sidecar answers to a request that it is given, or that it sends it on and with which header section.
fn depart(
    scope: &Scope,
    rule: Option<&RouteRule>,
    request: &RequestFacts<'_>,
    context: &mut Context,
) -> (Ending, HeaderMap) {
    let mut headers = request.headers.clone();
    let mut ending = judge_request(scope.policies(), request, context);
    if let Some(rule) = rule.filter(|_| ending.passes()) {
        ending = judge(context, |context| rule.filters.on_request(request, context));
        rule.filters.change_request(&mut headers);
    }
    if let Some(changes) = context.take_changes() {
        changes.request.apply(&mut headers);
    }
    (ending, headers)
}

/// What a sidecar answers to a request that comes to it, or that it lets it pass.
fn receive(config: &RuntimeConfig, request: &RequestFacts<'_>, context: &Context) -> Result<Ending, Reason> {
    admission::may_call(request.peer.identity.as_deref(), config)?;
    let port = config.inbound(request.port);
    let scope = Scope::Inbound(port.clone());
    let rule = route::rule(&scope, request)?;
    let request = RequestFacts { route: rule.map_or("", |rule| &rule.name), ..*request };
    Ok(judge_request(&port.policies, &request, &mut context.clone()))
}

/// Those of `attachments` that decide, each of their rules looked at.
fn judged(attachments: Vec<&Attachment>, request: &RequestFacts<'_>, now: Moment) -> Vec<Judged> {
    let looked = attachments.into_iter().filter_map(|attachment| {
        let (kind, document) = compile::read(attachment).ok()?;
        let kind = registry::find(&kind).filter(|kind| kind.phase().is_some())?;
        Some(Judged { origin: attachment.origin.clone()?, rules: (kind.explain)(&document, request, now) })
    });
    looked.collect()
}

/// What becomes of a request by these policies. A CONNECT is judged as what it becomes, too: bytes that nobody looks into.
fn judge_request(policies: &PolicySet, request: &RequestFacts<'_>, context: &mut Context) -> Ending {
    let ending = judge(context, |context| policies.on_request(request, context));
    if !ending.passes() || request.method != Method::CONNECT {
        return ending;
    }
    let connection = ConnectionFacts { peer: request.peer, port: request.port, server_name: None };
    judge(context, |context| {
        policies.on_open_connection(&connection, context).map_or(Verdict::Continue, Verdict::Answer)
    })
}

/// What becomes of a request by what `decide` asks. Time passes at once where a policy waits; what it asks nobody answers.
fn judge(context: &mut Context, decide: impl Fn(&mut Context) -> Verdict) -> Ending {
    loop {
        match decide(context) {
            Verdict::Continue => {
                let audited = context.audited.as_ref().map(|audited| audited.policy.clone());
                return Ending { audited, ..Ending::default() };
            }
            Verdict::Answer(answer) => {
                let status = Some(answer.status.as_u16());
                return Ending { status, reason: answer.reason, policy: answer.policy, ..Ending::default() };
            }
            Verdict::Wait(_) => context.resume(Resumed::Waited),
            Verdict::Ask(question) => {
                return Ending { asks: Some(question.to.to_string().into()), ..Ending::default() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_policies::testing::{Clock, Request};
    use selvedge_xds::proto::mesh::Origin;

    use super::*;

    #[test]
    fn a_connect_is_judged_as_the_bytes_that_it_becomes_too() {
        let mut mesh = Mesh::default();
        let origin = Origin { kind: "AuthorizationPolicy".into(), name: "reads".into(), ..Origin::default() };
        let document = r#"{"action": "DENY", "rules": [{"to": [{"paths": ["/admin"]}]}]}"#.into();
        let policies = vec![Attachment { origin: Some(origin), document, ..Attachment::default() }];
        let view = Inbound { workload: "shop/web-1".into(), policies, ..Inbound::default() };
        mesh.put(&Encoded::new(INBOUND, "shop/web-1", vec![], &view)).unwrap();
        let ending = |method: &str| {
            let request = Request::new(method, "/").from("ui").port(8080);
            mesh.why_received("shop/web-1", &request.facts(), &Clock::default().context()).unwrap().1
        };
        assert!(ending("GET").passes());
        assert_eq!(ending("CONNECT").reason, Some(Reason::PolicyDenied), "the path of what is within is not known");
    }

    #[test]
    fn a_destination_answers_to_the_names_it_has_now() {
        let mut mesh = Mesh::default();
        let mut put = |name: &str, external: bool, aliases: &[&str]| {
            let message =
                Destination { namespace: "shop".into(), name: name.into(), external, ..Destination::default() };
            let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
            mesh.put(&Encoded::new(DESTINATION, format!("shop/{name}"), aliases, &message)).unwrap();
            mesh.clone()
        };
        let found = |mesh: &Mesh, to: &str| {
            let request = Request::new("GET", "/").port(80);
            mesh.why("shop/ui-1", to, &request.facts(), &Clock::default().context())
                .destination
                .map(|to| to.to_string())
        };
        let before = put("web", false, &["web.shop", "old.shop"]);
        assert_eq!(found(&before, "old.shop").as_deref(), Some("shop/web"));
        put("other", true, &["web.shop"]);
        let after = put("web", false, &["new.shop"]);
        assert_eq!(found(&after, "old.shop"), None);
        assert_eq!(found(&after, "new.shop").as_deref(), Some("shop/web"));
        assert_eq!(found(&after, "web.shop").as_deref(), Some("shop/other"));
    }

    #[test]
    fn the_posture_of_a_workload_is_told_and_nothing_said_allows() {
        for (posture, expected) in [("deny", "deny"), ("allow", "allow"), ("", "allow")] {
            let inbound = Inbound { workload: "shop/web-1".into(), posture: posture.into(), ..Inbound::default() };
            let mut mesh = Mesh::default();
            mesh.put(&Encoded::new(INBOUND, "shop/web-1", Vec::new(), &inbound)).unwrap();
            let request = Request::new("GET", "/").port(8080);
            let context = Clock::default().context();
            let received = mesh.why_received("shop/web-1", &request.facts(), &context);
            assert_eq!(received.map(|(arrival, _)| arrival.posture).as_deref(), Some(expected));
        }
    }
}
