//! The whole mesh in memory: what every sidecar would decide, asked without one.
//!
//! A [`Mesh`] holds the resources of all workloads and destinations. [`Mesh::why`] puts the part of them before the
//! decisions that the two sidecars of a request would hold, and goes the request's way: the caller's sidecar finds the
//! destination, the route rule and the backends, the called one judges the request by its policies. Every step is the
//! function that a sidecar calls, on a configuration that was compiled as a sidecar compiles its own; what is said about
//! single conditions beside it is asked of the same evaluators, one condition at a time.
//!
//! What was told is compiled once, when it is first asked about, so that many questions cost little. Nothing that counts is
//! kept between two of them: a rate limit sees each request as its first.
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
//!     Encoded::new(ENDPOINTS, "shop/web:80", vec![], &Endpoints { endpoints: vec![endpoint], ..Endpoints::default() }),
//!     Encoded::new(INBOUND, "shop/web-1", vec![], &view("shop/web-1", "deny")),
//!     Encoded::new(INBOUND, "shop/ui-1", vec![], &view("shop/ui-1", "allow")),
//! ] {
//!     mesh.put(&resource).unwrap();
//! }
//! let request = Request::new("GET", "/cart").port(80);
//! let trace = mesh.why("shop/ui-1", "web.shop", &request.facts(), &Clock::default().context());
//! assert_eq!(trace.destination.as_deref(), Some("shop/web"));
//! assert_eq!(trace.endings()[0].reason, Some(Reason::PolicyDefaultDeny));
//! let arrival = trace.ways[0].arrival.as_ref().unwrap();
//! assert_eq!(arrival.default.to_string(), "deny, by a setting whose object is not known");
//! assert_eq!(arrival.mode.to_string(), "STRICT, the built-in default");
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use prost::Message;
use selvedge_policies::{
    context::Context,
    facts::{Peer, RequestFacts},
    names,
    reason::Reason,
};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND},
    proto::mesh::{self, Destination, Endpoint, Endpoints, Inbound, Origin, SettingOrigin},
    resource::Encoded,
};

use crate::{
    assemble, compile,
    config::{Locality, RuntimeConfig},
    resources::Versioned,
    route::{self, Scope},
    trace::{Arrival, DefaultPosture, Ending, InboundMode, Judged, Place, Placed, Said, Trace, Way, Written},
};

mod outcome;
mod prepared;

use outcome::{depart, path, possible, receive, sanitized};
use prepared::{Called, Document, Workload};

/// Tells where a field of an object is written, such as `spec.rules[0].to`; `None` where that is not known.
pub type Locate = Arc<dyn Fn(&Origin, &str) -> Option<Place> + Send + Sync>;

/// All resources of a mesh.
#[derive(Clone, Default)]
pub struct Mesh {
    workloads: HashMap<String, Workload>,
    destinations: HashMap<String, Called>,
    endpoints: HashMap<String, Endpoints>,
    /// Who answers to a name, best claim first: a service of the mesh before an external one, then by name.
    claims: HashMap<String, BTreeSet<(bool, String)>>,
    /// The names that each destination answers to.
    names: HashMap<String, Vec<String>>,
    locate: Option<Locate>,
}

impl Mesh {
    /// This mesh, by someone who knows where objects are written: traces then say so.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use selvedge_decide::{mesh::Mesh, trace::Place};
    /// use selvedge_policies::testing::{Clock, Request};
    /// use selvedge_xds::{
    ///     kinds::INBOUND,
    ///     proto::mesh::{Inbound, Origin, SettingOrigin},
    ///     resource::Encoded,
    /// };
    ///
    /// let closed = Origin { kind: "MeshPolicy".into(), namespace: "shop".into(), name: "closed".into(), generation: 1 };
    /// let set = SettingOrigin { field: "defaultPosture".into(), origin: Some(closed) };
    /// let view = Inbound { posture: "deny".into(), settings_from: vec![set], ..Inbound::default() };
    /// let mut mesh = Mesh::default().located_by(Arc::new(|object, field| match (&*object.name, field) {
    ///     ("closed", "spec.defaultPosture") => Some(Place { file: "mesh.yaml".into(), line: 4 }),
    ///     _ => None,
    /// }));
    /// mesh.put(&Encoded::new(INBOUND, "shop/web-1", vec![], &view)).unwrap();
    ///
    /// let request = Request::new("GET", "/").from("ui");
    /// let (arrival, _) = mesh.why_received("shop/web-1", &request.facts(), &Clock::default().context()).unwrap();
    /// assert_eq!(arrival.default.to_string(), "deny, by spec.defaultPosture of MeshPolicy shop/closed (mesh.yaml:4)");
    /// ```
    #[must_use]
    pub fn located_by(self, locate: Locate) -> Self {
        Self { locate: Some(locate), ..self }
    }

    /// Takes a resource in, in place of the one of its name.
    ///
    /// # Errors
    /// It cannot be put in force, which the text explains; what was there before stays.
    ///
    /// ```
    /// use selvedge_decide::mesh::Mesh;
    /// use selvedge_xds::{kinds::INBOUND, proto::mesh::Inbound, resource::Encoded};
    ///
    /// let view = |posture: &str| {
    ///     Encoded::new(INBOUND, "shop/web-1", vec![], &Inbound { posture: posture.into(), ..Inbound::default() })
    /// };
    /// let mut mesh = Mesh::default();
    /// mesh.put(&view("deny")).unwrap();
    /// assert!(mesh.put(&view("perhaps")).unwrap_err().contains("'perhaps' is not known"));
    /// ```
    pub fn put(&mut self, resource: &Encoded) -> Result<(), String> {
        compile::check(resource)?;
        let text = |error: prost::DecodeError| error.to_string();
        let (name, body) = (resource.name.clone(), resource.body.clone());
        match resource.kind {
            INBOUND => drop(self.workloads.insert(name, Workload::new(Inbound::decode(body).map_err(text)?))),
            ENDPOINTS => drop(self.endpoints.insert(name, Endpoints::decode(body).map_err(text)?)),
            DESTINATION => {
                let value = Destination::decode(body).map_err(text)?;
                let names: Vec<String> = resource.aliases.iter().chain([&name]).cloned().collect();
                self.disclaim(&name);
                for alias in &names {
                    let claims = self.claims.entry(alias.clone()).or_default();
                    claims.insert((value.external, name.clone()));
                }
                self.names.insert(name.clone(), names);
                let message = Versioned { name: name.clone(), version: resource.version.clone(), value };
                self.destinations.insert(name, Called::new(Arc::new(message)));
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
    /// bytes (RFC 9110 section 9.3.6), not an extended one (RFC 8441). The module has an example.
    pub fn why(&self, from: &str, to: &str, request: &RequestFacts<'_>, context: &Context) -> Trace {
        let called = self.called(from, to);
        let config = self.caller(from, to, called);
        let mut trace = Trace { identity: config.own.caller.as_deref().cloned(), ..Trace::default() };
        let peer = Peer { identity: config.own.caller.clone(), fingerprint: None, address: request.peer.address };
        let request = &RequestFacts { peer: &peer, ..*request };
        let captured = to.parse::<SocketAddr>().is_ok();
        let known = || route::outbound(&config, to, captured).unwrap_or_else(|| route::unknown(&config, to, captured));
        let scope = path(request).and_then(|_| known());
        match (scope, called) {
            (Ok(scope @ Scope::Outbound(_)), Some(called)) => {
                trace.destination = Some(scope.service()).filter(|service| !service.is_empty());
                if let Err(reason) = self.route(&config, called, &scope, request, context, &mut trace) {
                    trace.stopped = Some(Ending::of(reason));
                }
            }
            (Ok(_), _) => trace.stopped = Some(Ending::default()),
            (Err(reason), _) => trace.stopped = Some(Ending::of(reason)),
        }
        trace
    }

    /// What the sidecar of `workload` makes of a request that comes to the application's port `request.port` from
    /// `request.peer`; `None` when the mesh has no such workload.
    ///
    /// ```
    /// use selvedge_decide::mesh::Mesh;
    /// use selvedge_policies::{reason::Reason, testing::{Clock, Request}};
    /// use selvedge_xds::{kinds::INBOUND, proto::mesh::Inbound, resource::Encoded};
    ///
    /// let view = Inbound { workload: "shop/web-1".into(), posture: "deny".into(), ..Inbound::default() };
    /// let mut mesh = Mesh::default();
    /// mesh.put(&Encoded::new(INBOUND, "shop/web-1", vec![], &view)).unwrap();
    /// let ending = |request: Request| {
    ///     let received = mesh.why_received("shop/web-1", &request.facts(), &Clock::default().context());
    ///     received.map(|(_, ending)| ending.reason)
    /// };
    /// assert_eq!(ending(Request::new("GET", "/").from("ui")), Some(Some(Reason::PolicyDefaultDeny)));
    /// assert_eq!(ending(Request::new("GET", "/")), Some(Some(Reason::PlaintextRefused)), "without an identity");
    /// ```
    pub fn why_received(
        &self,
        workload: &str,
        request: &RequestFacts<'_>,
        context: &Context,
    ) -> Option<(Arrival, Ending)> {
        let found = self.workloads.get(workload)?;
        let headers = sanitized(found.config(), request);
        let canonical = path(request).map_or_else(|_| request.path.into(), |reading| reading.canonical);
        let seen = RequestFacts { headers: &headers, path: &canonical, ..*request };
        let arrival = Arrival {
            workload: workload.to_owned(),
            port: request.port,
            policies: self.judged(found.policies(request.port), &seen, context),
            default: self.default_of(&found.inbound),
            mode: self.mode_of(&found.inbound),
        };
        let ending = receive(found.config(), request, context).unwrap_or_else(Ending::of);
        Some((arrival, ending))
    }

    /// The service that answers to a name, as callers of the namespace of `from` see it, or what is at the own address of a
    /// workload.
    fn called(&self, from: &str, to: &str) -> Option<&Called> {
        match self.claims.get(to).and_then(BTreeSet::first) {
            Some((_, name)) => {
                let view = names::parts(from).map(|(namespace, _)| names::view(name, namespace));
                view.and_then(|view| self.destinations.get(&view)).or_else(|| self.destinations.get(name))
            }
            None => self.destinations.get(&assemble::asked(to).nth(1)?),
        }
    }

    /// The configuration of the sidecar beside `from` when it has asked for `to` and nothing else.
    fn caller(&self, from: &str, to: &str, called: Option<&Called>) -> RuntimeConfig {
        let compiled = called.and_then(Called::compiled);
        let alias = compiled.map(|compiled| compiled.name.clone());
        let aliases = HashMap::from([(to.to_owned(), alias)]);
        let destinations = compiled.map(|compiled| (compiled.name.clone(), compiled.clone())).into_iter().collect();
        let at_address = called.and_then(|called| called.compiled_at(to.parse().ok()?));
        let addresses = at_address.map(|found| (to.to_owned(), Arc::new(found))).into_iter().collect();
        let config = RuntimeConfig { aliases, destinations, addresses, ..RuntimeConfig::default() };
        match self.workloads.get(from).map(Workload::config) {
            Some(own) => RuntimeConfig { own: own.own.clone(), passthrough: own.passthrough, ..config },
            None => config,
        }
    }

    /// The caller's half of the way: the rule, the backends, and every endpoint of theirs.
    fn route(
        &self,
        own: &RuntimeConfig,
        called: &Called,
        scope: &Scope,
        request: &RequestFacts<'_>,
        context: &Context,
        trace: &mut Trace,
    ) -> Result<(), Reason> {
        let Scope::Outbound(destination) = scope else { return Ok(()) };
        let seen = &RequestFacts { path: &path(request)?.canonical, ..*request };
        let rule = route::rule(scope, seen);
        trace.route = rule.as_ref().ok().copied().flatten().map(|rule| rule.name.clone());
        let considered = called.considered(seen, trace.route.as_deref());
        trace.considered = considered.map(|(origin, what)| self.placed(origin, what, |what| &what.at)).collect();
        let rule = rule?;
        let request = RequestFacts { route: rule.map_or("", |rule| &rule.name), ..*request };
        let seen = RequestFacts { route: request.route, ..*seen };
        trace.policies = self.judged(called.policies(), &seen, context);
        let (ending, headers) = depart(scope, rule, &seen, &mut context.clone());
        if !ending.passes() {
            trace.stopped = Some(ending);
            return Ok(());
        }
        for (backend, share) in possible(rule)? {
            let name = route::cluster_name(destination, backend, request.port);
            let is_external = self.destinations.get(&**name.service.text()).is_some_and(Called::is_external);
            let goes_in_plaintext = own.passthrough || is_external;
            let cluster = name.to_string();
            let mut headers = headers.clone();
            backend.iter().for_each(|backend| backend.filters.change_request(&mut headers));
            let request = RequestFacts { headers: &headers, ..request };
            let known =
                self.endpoints.get(&cluster).filter(|_| backend.is_none_or(|backend| backend.unusable.is_none()));
            // Where nobody has said where the caller is, its own file may still do: all of them are possible.
            let (here, at_address) = (&own.own.locality, called.endpoint_at(request.port));
            let found: Vec<&Endpoint> = match known {
                _ if at_address.is_some() => at_address.into_iter().collect(),
                Some(known) if *here != Locality::default() => compile::used(known, here).0,
                known => known.into_iter().flat_map(|known| &known.endpoints).collect(),
            };
            let found = if goes_in_plaintext { found } else { compile::without_plaintext(found) };
            if found.is_empty() {
                let is_route = backend.is_some() && known.is_none();
                let ending = Ending::of(if is_route { Reason::InvalidRoute } else { Reason::NoEndpoints });
                trace.ways.push(Way { cluster: cluster.clone(), share, address: None, arrival: None, ending });
            }
            trace.ways.extend(found.iter().map(|endpoint| {
                let (arrival, ending) = match goes_in_plaintext || compile::reached_by_tls(endpoint) {
                    true => self.arrive(endpoint, &request, context),
                    false => (None, Ending::of(Reason::UnknownDestination)),
                };
                Way { cluster: cluster.clone(), share, address: endpoint.address.parse().ok(), arrival, ending }
            }));
        }
        Ok(())
    }

    /// The called half of the way: what the sidecar at `endpoint` says, where there is one.
    fn arrive(&self, endpoint: &Endpoint, request: &RequestFacts<'_>, context: &Context) -> (Option<Arrival>, Ending) {
        let identity = request.peer.identity.clone().filter(|_| !endpoint.identity.is_empty());
        let peer = Peer { identity, fingerprint: None, address: request.peer.address };
        let port = u16::try_from(endpoint.port).ok().filter(|port| *port != 0).unwrap_or(request.port);
        let arrived = RequestFacts { peer: &peer, port, ..*request };
        match self.why_received(&endpoint.workload, &arrived, context).filter(|_| !endpoint.identity.is_empty()) {
            Some((arrival, ending)) => (Some(arrival), ending),
            None => (None, Ending::default()),
        }
    }

    /// Each policy, looked at for a request.
    fn judged(&self, documents: &[Document], request: &RequestFacts<'_>, context: &Context) -> Vec<Judged> {
        let judged = documents.iter().map(|document| {
            let looked = document.looked(request, context.now).into_iter();
            let rules = looked.map(|looked| {
                self.placed(&document.origin, looked, |looked| looked.fails.as_ref().unwrap_or(&looked.at))
            });
            Judged { origin: document.origin.clone(), rules: rules.collect() }
        });
        judged.collect()
    }

    /// What happens at a workload to requests that no policy speaks of, and who wants it so.
    fn default_of(&self, inbound: &Inbound) -> DefaultPosture {
        let set = inbound.settings_from.iter().find(|setting| setting.field == POSTURE);
        let written = set.and_then(|setting| self.written(setting));
        // No other word was let in.
        let posture = compile::posture(inbound).unwrap_or_default();
        DefaultPosture { posture, written }
    }

    /// What happens at a workload to callers without an identity, and who wants it so.
    fn mode_of(&self, inbound: &Inbound) -> InboundMode {
        let set = inbound.settings_from.iter().find(|setting| setting.field == MODE);
        let said = set.map_or(Said::BuiltIn, |setting| self.written(setting).map_or(Said::OfPods, Said::Written));
        InboundMode { permissive: inbound.mode() == mesh::InboundMode::Permissive, said }
    }

    /// The object that a setting is from; `None` when nobody wrote it.
    fn written(&self, setting: &SettingOrigin) -> Option<Written> {
        let (object, field) = (setting.origin.clone()?, format!("spec.{}", setting.field));
        Some(Written { place: self.place(&object, &field), object, field })
    }

    /// `what` was found, with the place of the field of `spec` that it is about.
    fn placed<T>(&self, origin: &Origin, what: T, field: impl Fn(&T) -> &String) -> Placed<T> {
        let place = self.place(origin, &format!("spec.{}", field(&what)));
        Placed { what, place }
    }

    fn place(&self, object: &Origin, field: &str) -> Option<Place> {
        self.locate.as_ref().and_then(|locate| locate(object, field))
    }
}

/// The setting that says what happens to a request that no policy speaks of.
const POSTURE: &str = "defaultPosture";

/// The setting that says what happens to callers without an identity.
const MODE: &str = "mtls.inbound";

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("workloads", &self.workloads.keys())
            .field("destinations", &self.destinations.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use selvedge_policies::testing::{Clock, Request};
    use selvedge_xds::proto::mesh::{Attachment, OutboundMode, Port};

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
    fn what_a_caller_may_not_say_lets_it_pass_nowhere() {
        let mut mesh = Mesh::default();
        let origin = Origin { kind: "AuthorizationPolicy".into(), name: "admins".into(), ..Origin::default() };
        let rules = r#"[{"to": [{"headers": [{"name": "x-caller", "value": "admin"}]}]}]"#;
        let document = format!(r#"{{"action": "ALLOW", "rules": {rules}}}"#);
        let policies = vec![Attachment { origin: Some(origin), document, ..Attachment::default() }];
        let proxy = "spiffe://mesh.local/ns/shop/sa/gateway";
        let settings =
            format!(r#"{{"callerIdentity": {{"headers": {{"x-caller": "SET"}}, "trustedProxies": ["{proxy}"]}}}}"#);
        let view = Inbound { workload: "shop/web-1".into(), policies, settings, ..Inbound::default() };
        mesh.put(&Encoded::new(INBOUND, "shop/web-1", vec![], &view)).unwrap();
        let passes = |from: &str| {
            let request = Request::new("GET", "/").from(from).port(8080).header("x-caller", "admin");
            let context = Clock::default().context();
            let (arrival, ending) = mesh.why_received("shop/web-1", &request.facts(), &context).unwrap();
            assert_eq!(arrival.policies[0].rules[0].what.fails.is_none(), ending.passes(), "{from}");
            ending.passes()
        };
        assert_eq!((passes("shop/ui"), passes("shop/gateway")), (false, true));
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
    fn callers_of_a_namespace_that_has_its_own_view_of_a_service_go_by_that() {
        let mut mesh = Mesh::default();
        for (name, home) in [("bank/ledger", "bank"), ("bank/ledger@shop", "shop")] {
            let origin = Origin { kind: "HTTPRoute".into(), namespace: home.into(), name: "r".into(), generation: 1 };
            let document = r#"{"parentRefs": [{"kind": "Service", "name": "ledger", "namespace": "bank"}]}"#.into();
            let message = Destination {
                namespace: "bank".into(),
                name: "ledger".into(),
                ports: vec![Port { port: 80, ..Port::default() }],
                routes: vec![Attachment { origin: Some(origin), document, ..Attachment::default() }],
                ..Destination::default()
            };
            let aliases = if home == "bank" { vec!["ledger.bank".into()] } else { vec![] };
            mesh.put(&Encoded::new(DESTINATION, name, aliases, &message)).unwrap();
        }
        let route = |from: &str| {
            let request = Request::new("GET", "/").port(80);
            let trace = mesh.why(from, "ledger.bank", &request.facts(), &Clock::default().context());
            assert_eq!(trace.destination.as_deref(), Some("bank/ledger"));
            trace.route.unwrap().to_string()
        };
        assert_eq!([route("shop/web-1"), route("office/desk-1")], ["shop/r/0", "bank/r/0"]);
    }

    #[test]
    fn what_has_no_sidecar_is_called_only_by_callers_who_may_do_so_in_plaintext() {
        let mut mesh = Mesh::default();
        let bare = Endpoint { address: "10.0.0.9:8080".into(), port: 8080, ..Endpoint::default() };
        for (name, external) in [("web", false), ("api", true)] {
            let ports = vec![Port { port: 80, ..Port::default() }];
            let message =
                Destination { namespace: "shop".into(), name: name.into(), external, ports, ..Destination::default() };
            mesh.put(&Encoded::new(DESTINATION, format!("shop/{name}"), vec![], &message)).unwrap();
            let endpoints = Endpoints { endpoints: vec![bare.clone()], ..Endpoints::default() };
            mesh.put(&Encoded::new(ENDPOINTS, format!("shop/{name}:80"), vec![], &endpoints)).unwrap();
        }
        for (name, mode) in [("strict", OutboundMode::Require), ("open", OutboundMode::Prefer)] {
            let view = Inbound { workload: format!("shop/{name}"), outbound_mode: mode.into(), ..Inbound::default() };
            mesh.put(&Encoded::new(INBOUND, format!("shop/{name}"), vec![], &view)).unwrap();
        }
        let ending = |from: &str, to: &str| {
            let trace = mesh.why(from, to, &Request::new("GET", "/").port(80).facts(), &Clock::default().context());
            assert_eq!(trace.ways.len(), 1, "{trace:?}");
            trace.ways[0].ending.reason
        };
        assert_eq!(ending("shop/strict", "shop/web"), Some(Reason::UnknownDestination));
        assert_eq!(ending("shop/open", "shop/web"), None);
        assert_eq!(ending("shop/strict", "shop/api"), None, "what is outside has said itself how it is called");
    }

    #[test]
    fn the_posture_of_a_workload_is_told_and_nothing_said_allows() {
        for (posture, expected) in [
            ("deny", "deny, by a setting whose object is not known"),
            ("allow", "allow, the built-in default"),
            ("", "allow, the built-in default"),
        ] {
            let inbound = Inbound { workload: "shop/web-1".into(), posture: posture.into(), ..Inbound::default() };
            let mut mesh = Mesh::default();
            mesh.put(&Encoded::new(INBOUND, "shop/web-1", Vec::new(), &inbound)).unwrap();
            let request = Request::new("GET", "/").port(8080);
            let context = Clock::default().context();
            let received = mesh.why_received("shop/web-1", &request.facts(), &context);
            assert_eq!(received.map(|(arrival, _)| arrival.default.to_string()).as_deref(), Some(expected));
        }
    }

    #[test]
    fn no_question_uses_up_what_a_limit_allows_to_another() {
        let origin = Origin { kind: "RateLimit".into(), name: "one".into(), ..Origin::default() };
        let document = r#"{"limits": [{"requests": 1, "per": "1h", "key": ["identity"]}]}"#.into();
        let policies = vec![Attachment { origin: Some(origin), document, ..Attachment::default() }];
        let mut mesh = Mesh::default();
        let view = Inbound { workload: "shop/web-1".into(), policies, ..Inbound::default() };
        mesh.put(&Encoded::new(INBOUND, "shop/web-1", vec![], &view)).unwrap();
        for _ in 0..3 {
            let request = Request::new("GET", "/").from("ui");
            let received = mesh.why_received("shop/web-1", &request.facts(), &Clock::default().context());
            assert!(received.unwrap().1.passes());
        }
    }

    #[test]
    fn what_is_told_anew_is_what_decides() {
        let mut mesh = Mesh::default();
        let mut reason = |posture: &str| {
            let view = Inbound { workload: "shop/web-1".into(), posture: posture.into(), ..Inbound::default() };
            mesh.put(&Encoded::new(INBOUND, "shop/web-1", vec![], &view)).unwrap();
            let request = Request::new("GET", "/").from("ui");
            mesh.why_received("shop/web-1", &request.facts(), &Clock::default().context()).unwrap().1.reason
        };
        assert_eq!([reason("deny"), reason("allow")], [Some(Reason::PolicyDefaultDeny), None]);
    }

    #[test]
    fn the_own_address_of_a_workload_leads_to_it_and_its_policies() {
        let mut mesh = Mesh::default();
        let identity = "spiffe://mesh.local/ns/shop/sa/web".to_owned();
        let endpoint = Endpoint {
            address: "10.1.0.5:0".into(),
            identity: identity.clone(),
            workload: "shop/web-1".into(),
            ..Endpoint::default()
        };
        let any = mesh::AddressPort { endpoint: Some(endpoint), ..Default::default() };
        let address = Destination { address_ports: vec![any], ..Destination::default() };
        mesh.put(&Encoded::new(DESTINATION, "10.1.0.5", vec![], &address)).unwrap();
        let view = Inbound { workload: "shop/web-1".into(), identity, posture: "deny".into(), ..Inbound::default() };
        mesh.put(&Encoded::new(INBOUND, "shop/web-1", vec![], &view)).unwrap();
        let ui = "spiffe://mesh.local/ns/shop/sa/ui".to_owned();
        let ui = Inbound { workload: "shop/ui".into(), identity: ui, ..Inbound::default() };
        mesh.put(&Encoded::new(INBOUND, "shop/ui", vec![], &ui)).unwrap();
        let request = Request::new("GET", "/").host("other.shop").port(9000);
        let trace = mesh.why("shop/ui", "10.1.0.5:9000", &request.facts(), &Clock::default().context());
        let [way] = &trace.ways[..] else { panic!("{trace:?}") };
        assert_eq!((way.ending.reason, way.arrival.as_ref().unwrap().port), (Some(Reason::PolicyDefaultDeny), 9000));
        assert_eq!(way.cluster, "shop/web-1@10.1.0.5:9000");
    }
}
