//! From a canonical request to the rules that apply to it and the endpoints that may answer it: the destination, the rule
//! of its routes, the backend and its cluster. Nothing here waits: a destination that nobody has told of yet is the
//! caller's to ask for.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use selvedge_policies::{
    facts::RequestFacts,
    names::PortName,
    reason::Reason,
    request::PolicySet,
    route::{Backend, Filters, RouteRule, RouteTable},
    settings::AmbiguousPaths,
};

use crate::config::{Destination, InboundPort, Link, RuntimeConfig, Traffic};

/// The name that metrics have for what passes through to an address outside the mesh.
pub static PASSTHROUGH: LazyLock<Arc<str>> = LazyLock::new(|| "passthrough".into());

/// The policies of what is outside the mesh.
static NONE: LazyLock<Arc<PolicySet>> = LazyLock::new(Arc::default);

/// Whose routes and policies apply to a call: those of the application, of a service, or none.
///
/// ```
/// use std::{collections::HashMap, sync::Arc};
///
/// use selvedge_decide::{
///     compile::Compiler,
///     resources::{Resources, Versioned},
///     route::{self, Scope},
/// };
/// use selvedge_xds::proto::mesh::{Destination, Endpoint, Endpoints, Port};
///
/// let port = Port { port: 80, app_protocol: "http".into(), ..Port::default() };
/// let web = Destination { namespace: "shop".into(), name: "web".into(), ports: vec![port], ..Destination::default() };
/// let endpoint = Endpoint { address: "10.0.0.1:8080".into(), ..Endpoint::default() };
/// let web = Versioned { name: "shop/web".into(), version: "1".into(), value: web };
/// let endpoints = Endpoints { endpoints: vec![endpoint], ..Endpoints::default() };
/// let endpoints = Versioned { name: "shop/web:80".into(), version: "1".into(), value: endpoints };
/// let config = Compiler::default().compile(&Arc::new(Resources {
///     destinations: HashMap::from([(web.name.clone(), Arc::new(web))]),
///     endpoints: HashMap::from([(endpoints.name.clone(), Arc::new(endpoints))]),
///     aliases: HashMap::from([("web.shop".into(), Some("shop/web".into())), ("absent.shop".into(), None)]),
///     ..Resources::default()
/// }));
///
/// let scope = route::outbound(&config, "web.shop", false).unwrap().ok().unwrap();
/// assert_eq!((&*scope.service(), scope.policies().is_empty(), scope.traffic().is_some()), ("shop/web", true, true));
/// assert!(scope.routes(80).unwrap().is_empty());
/// assert_eq!(scope.ambiguous_paths(), selvedge_policies::settings::AmbiguousPaths::Pass);
/// assert!(!scope.policies_say_of_paths(), "that is said where calls are received");
/// let request = selvedge_policies::testing::Request::new("GET", "/").port(80);
/// let rule = route::rule(&scope, &request.facts()).unwrap();
/// assert!(scope.filters(rule).is_none());
/// let backend = route::backend(rule, &mut fastrand::Rng::with_seed(7)).unwrap();
/// let Scope::Outbound(web) = &scope else { panic!("it is a service") };
/// assert!(route::cluster(web, backend, 80).is_ok());
/// assert_eq!(route::cluster_name(web, backend, 80).to_string(), "shop/web:80");
/// assert_eq!([(Some(81), 8080), (None, 8080)].map(|(named, dialled)| route::port_meant(web, named, dialled)), [81, 80]);
/// assert_eq!(&**route::PASSTHROUGH, "passthrough");
/// assert!(route::unknown(&config, "absent.shop", true).is_err(), "nothing passes the mesh by here");
/// ```
pub enum Scope {
    /// A call to the application.
    Inbound(Arc<InboundPort>),
    /// A call to a service.
    Outbound(Arc<Destination>),
    /// A call to an address outside the mesh.
    Passthrough,
}

impl Scope {
    /// Routes of calls to `port` of the service; `None` outside the mesh.
    pub fn routes(&self, port: u16) -> Option<&RouteTable> {
        match self {
            Self::Inbound(port) => Some(&port.routes),
            Self::Outbound(called) => Destination::of_port(&called.routes, port).map(|routes| &**routes),
            Self::Passthrough => None,
        }
    }

    /// Policies that decide a request in this scope.
    pub fn policies(&self) -> &Arc<PolicySet> {
        match self {
            Self::Inbound(port) => &port.policies,
            Self::Outbound(destination) => &destination.policies,
            Self::Passthrough => &NONE,
        }
    }

    /// What becomes of a path that services read in different ways: where calls are received what is [set](ambiguous_paths)
    /// there, and on the way there it goes on as it was sent.
    pub fn ambiguous_paths(&self) -> AmbiguousPaths {
        match self {
            Self::Inbound(port) => ambiguous_paths(port),
            Self::Outbound(_) | Self::Passthrough => AmbiguousPaths::Pass,
        }
    }

    /// Whether it is the policies that say it, because no setting does.
    pub fn policies_say_of_paths(&self) -> bool {
        matches!(self, Self::Inbound(port) if port.ambiguous_paths.is_none())
    }

    /// The filters of a rule: they act once and by one configuration, that of the caller.
    pub fn filters<'a>(&self, rule: Option<&'a RouteRule>) -> Option<&'a Filters> {
        let filters = rule.map(|rule| &rule.filters).filter(|filters| !filters.is_empty())?;
        matches!(self, Self::Outbound(_)).then_some(filters)
    }

    /// The traffic policy of a call to a service: nobody else is waited for by one.
    pub fn traffic(&self) -> Option<&Traffic> {
        match self {
            Self::Outbound(destination) => Some(&destination.traffic),
            Self::Inbound(_) | Self::Passthrough => None,
        }
    }

    /// `namespace/name` of the service, or [`PASSTHROUGH`].
    pub fn service(&self) -> Arc<str> {
        match self {
            Self::Inbound(port) => port.service.as_ref().map(|service| service.text().clone()).unwrap_or_default(),
            Self::Outbound(destination) => destination.service.clone(),
            Self::Passthrough => PASSTHROUGH.clone(),
        }
    }
}

/// What becomes of a path that services read in different ways, where calls come to this port: what a setting says, else it is
/// refused where policies look at paths.
///
/// ```
/// use selvedge_decide::{config::InboundPort, route};
/// use selvedge_policies::settings::AmbiguousPaths;
///
/// let mut port = InboundPort::default();
/// assert_eq!(route::ambiguous_paths(&port), AmbiguousPaths::Pass);
/// port.ambiguous_paths = Some(AmbiguousPaths::Rewrite);
/// assert_eq!(route::ambiguous_paths(&port), AmbiguousPaths::Rewrite);
/// ```
pub fn ambiguous_paths(port: &InboundPort) -> AmbiguousPaths {
    let by_policies = || if port.policies.needs().paths { AmbiguousPaths::Refuse } else { AmbiguousPaths::Pass };
    port.ambiguous_paths.unwrap_or_else(by_policies)
}

/// The port of a service that is meant by who calls it by its host, `named` with or without a port, at an address with the
/// port `dialled`: the named one, else one that the service has, of the dialled one, 80, and its lowest.
pub fn port_meant(destination: &Destination, named: Option<u16>, dialled: u16) -> u16 {
    let has = |port: &u16| destination.ports.contains_key(port);
    let of_service = || [dialled, 80].into_iter().find(has).or_else(|| destination.ports.keys().min().copied());
    named.or_else(of_service).unwrap_or(dialled)
}

/// The rules for a call of `name`, canonical or alias; `None` when the control plane has not said yet whether there is such
/// a destination. `captured` is true when the address it was called at is known.
pub fn outbound(config: &RuntimeConfig, name: &str, captured: bool) -> Option<Result<Scope, Reason>> {
    match config.destination(name)? {
        Some(destination) => Some(Ok(Scope::Outbound(destination.clone()))),
        None => Some(unknown(config, name, captured)),
    }
}

/// The rules for a call of what is no destination of the mesh: it passes through where that is allowed, there is an
/// address to go on to, and the mesh has no destination of that name which merely cannot be put in force.
///
/// # Errors
/// [`Reason::UnknownDestination`] where it may not.
pub fn unknown(config: &RuntimeConfig, name: &str, captured: bool) -> Result<Scope, Reason> {
    match config.passthrough && captured && !config.refused.contains(name) {
        true => Ok(Scope::Passthrough),
        false => Err(Reason::UnknownDestination),
    }
}

/// The rules for a call of `name` that the control plane has not told of in time. An address outside the mesh is passed
/// through as [`unknown`] ones are. Where a sidecar may be is no plaintext sent: nobody has said that there is none.
///
/// # Errors
/// [`Reason::NotReady`] at an address where a sidecar may be, and those of [`unknown`].
///
/// ```
/// use selvedge_decide::{config::RuntimeConfig, route};
/// use selvedge_policies::reason::Reason;
///
/// let networks = vec!["10.244.1.0/24".parse().unwrap()];
/// let config = RuntimeConfig { passthrough: true, networks, ..RuntimeConfig::default() };
/// assert_eq!(route::unanswered(&config, "10.244.1.7:8080", true).err(), Some(Reason::NotReady));
/// assert!(route::unanswered(&config, "192.0.2.7:443", true).is_ok());
/// ```
pub fn unanswered(config: &RuntimeConfig, name: &str, captured: bool) -> Result<Scope, Reason> {
    let scope = unknown(config, name, captured)?;
    if may_be_meshed(config, name) { Err(Reason::NotReady) } else { Ok(scope) }
}

/// Whether a sidecar may be at this `ip:port`, for all that is known of networks.
fn may_be_meshed(config: &RuntimeConfig, name: &str) -> bool {
    let is_inside = |address: SocketAddr| config.networks.iter().any(|network| network.contains(address.ip()));
    name.parse().is_ok_and(is_inside)
}

/// Whether what is called at `ip:port` is outside the mesh, so that its host may say more of it. `absent` is true when the
/// control plane has said that nothing of the mesh is there.
///
/// ```
/// use selvedge_decide::{config::RuntimeConfig, route};
///
/// let networks = vec!["10.244.1.0/24".parse().unwrap()];
/// let config = RuntimeConfig { networks, ..RuntimeConfig::default() };
/// assert!(route::is_outside(&config, "192.0.2.7:443", false));
/// assert!(!route::is_outside(&config, "10.244.1.7:443", false), "a sidecar may be there");
/// assert!(route::is_outside(&config, "10.244.1.7:443", true));
/// ```
pub fn is_outside(config: &RuntimeConfig, name: &str, absent: bool) -> bool {
    match config.destination(name) {
        Some(found) => found.is_some_and(|found| found.external),
        None => !config.refused.contains(name) && (absent || !may_be_meshed(config, name)),
    }
}

/// The route rule for a request; `None` where there are no routes. On the inbound side it only names the route, because
/// the caller's sidecar has routed.
///
/// # Errors
/// [`Reason::NoRoute`] for a call of a service that has routes, none of which is for this request.
pub fn rule<'a>(scope: &'a Scope, request: &RequestFacts<'_>) -> Result<Option<&'a RouteRule>, Reason> {
    let RequestFacts { host, method, path, query, headers, port, .. } = *request;
    let Some(routes) = scope.routes(port).filter(|routes| !routes.is_empty()) else { return Ok(None) };
    match (routes.select(host, method, path, query, headers), scope) {
        (None, Scope::Outbound(_)) => Err(Reason::NoRoute),
        (rule, _) => Ok(rule),
    }
}

/// Why a request has nowhere to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nowhere {
    /// What it is answered with.
    pub reason: Reason,
    /// What is missing, in words.
    pub detail: String,
}

/// The backend of one request, by chance; `None` when it goes to the service that was called.
///
/// # Errors
/// The rule names backends and gives none of them any weight, or the backend that the request was to go to is none that
/// could be called.
pub fn backend<'a>(rule: Option<&'a RouteRule>, chance: &mut fastrand::Rng) -> Result<Option<&'a Backend>, Nowhere> {
    let Some(rule) = rule.filter(|rule| !rule.backends.is_empty()) else { return Ok(None) };
    let Some(backend) = rule.choose(chance) else { return Err(weightless(rule)) };
    match &backend.unusable {
        Some(why) => Err(Nowhere { reason: Reason::InvalidRoute, detail: format!("{}: {why}", rule.name) }),
        None => Ok(Some(backend)),
    }
}

fn weightless(rule: &RouteRule) -> Nowhere {
    let why = match rule.nowhere {
        Reason::InvalidRoute => "no backend has any weight",
        reason => reason.summary(),
    };
    Nowhere { reason: rule.nowhere, detail: format!("{}: {why}", rule.name) }
}

/// The endpoints that answer calls of `port`: those of the backend, or the destination's own.
///
/// # Errors
/// There is no such service, or it has no such port. One without a workload is there, and has no endpoints.
pub fn cluster(destination: &Destination, backend: Option<&Backend>, port: u16) -> Result<Link, Nowhere> {
    let link = match backend {
        Some(backend) => {
            Destination::of_port(&destination.backends, port).and_then(|links| *links.get(backend.number)?)
        }
        None => destination.ports.get(&port).and_then(|port| port.cluster),
    };
    link.ok_or_else(|| {
        let name = cluster_name(destination, backend, port);
        let reason = if backend.is_some() { Reason::InvalidRoute } else { Reason::NoEndpoints };
        Nowhere { reason, detail: format!("there is no Service {} with port {}", name.service, name.port) }
    })
}

/// The name of what [`cluster`] looks for, for people.
pub fn cluster_name(destination: &Destination, backend: Option<&Backend>, port: u16) -> PortName {
    match backend {
        Some(backend) => backend.service.port(backend.port.unwrap_or(port)),
        None => destination.name.port(port),
    }
}
