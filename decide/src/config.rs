//! The immutable configuration of a sidecar: all that it decides by, and nothing that is live or secret.
//!
//! A whole [`RuntimeConfig`] is compiled and published; workers never see a part of one. What cannot be compiled was
//! refused resource by resource before ([`check`](crate::compile::check)), so the last good version of each resource is
//! always in force.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use selvedge_policies::{
    attempt::{
        breaker::BreakerSpec,
        retry::{BudgetSpec, RetryPolicy},
    },
    balance::BalancerSpec,
    cidr::Cidr,
    facts::Identity,
    names::{PortName, ServiceName, WorkloadName},
    request::PolicySet,
    route::RouteTable,
    settings::AmbiguousPaths,
};

use crate::resources::Resources;

/// Everything a worker decides by.
///
/// ```
/// use std::{collections::HashMap, sync::Arc};
///
/// use selvedge_decide::{
///     compile::Compiler,
///     resources::{Resources, Versioned},
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
/// let web = config.destination("web.shop").flatten().unwrap();
/// assert!(config.destination("absent.shop").unwrap().is_none() && config.destination("unasked.shop").is_none());
/// assert!(web.routes.contains_key(&0) && selvedge_decide::config::Destination::of_port(&web.routes, 9).is_some());
/// let link = config.link(&"shop/web:80".parse().unwrap()).unwrap();
/// let endpoint = &config.clusters[link.place()].endpoints[0];
/// assert_eq!((endpoint.service(), endpoint.connect_timeout().as_secs()), ("shop/web", 1));
/// assert!(!config.is_own_known() && config.inbound(80).policies.is_empty());
/// assert!(config.inbound(80).called(Some("web.shop")).is_empty(), "no service is known before it");
/// ```
#[derive(Default)]
pub struct RuntimeConfig {
    /// Counts published configurations; 0 before the first.
    pub generation: u64,
    /// What this workload is.
    pub own: Own,
    /// True when callers without mTLS are let in.
    pub permissive: bool,
    /// True when calls to destinations outside the mesh pass through in plaintext.
    pub passthrough: bool,
    /// Where something that has a sidecar may be, whether it was told of or not.
    pub networks: Vec<Cidr>,
    /// Which requests are logged.
    pub access_log: AccessLogMode,
    /// Rules for calls received, by the application's port.
    pub ports: HashMap<u16, Arc<InboundPort>>,
    /// Rules for calls received on any other port.
    pub other_ports: Arc<InboundPort>,
    /// Services that can be called.
    pub destinations: HashMap<ServiceName, Arc<Destination>>,
    /// Every name that was asked for and stands for something; `None` when that is none of the destinations.
    pub aliases: HashMap<String, Option<ServiceName>>,
    /// What answers at the own address of a workload, by the `ip:port` that was asked for, and what a service outside the mesh
    /// is at an address of its host, by [`called_at`](crate::resources::called_at). These are among the names of no
    /// destination.
    pub addresses: HashMap<String, Arc<Destination>>,
    /// Names of destinations of the mesh that cannot be put in force; plaintext is not the way to them.
    pub refused: HashSet<String>,
    /// The endpoints of each port, in order of their names. A [`Link`] leads to one of them.
    pub clusters: Vec<Arc<ClusterConfig>>,
    /// What it was made of.
    pub resources: Arc<Resources>,
}

/// What is written to the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogMode {
    /// No line is written at all.
    Off,
    /// Requests and connections the mesh refused, limited, failed, or would have refused by a policy that only looks on,
    /// and answers that say the service failed (5xx, and what gRPC says instead); limited in rate.
    #[default]
    Errors,
    /// Every request and every opaque connection.
    All,
}

/// What a workload is, in the words of logs and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Its name; `None` before its own view is known.
    pub workload: Option<WorkloadName>,
    /// Its SPIFFE ID, `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT`; empty before it is known.
    pub identity: String,
    /// Who calls when the workload does, as its sidecar proves it and policies see it; `None` without an identity.
    pub caller: Option<Arc<Identity>>,
    /// The zone and node in which it is.
    pub locality: Locality,
    /// Addresses that the kubelet of its node may ask probes from, as the control plane knows the node.
    pub probers: Vec<IpAddr>,
}

/// Where a workload is; empty where that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// The zone of its node, as the label `topology.kubernetes.io/zone` names it.
    pub zone: String,
    /// The name of its node.
    pub node: String,
}

/// How bytes on a port are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppProtocol {
    /// Found out from the first bytes.
    #[default]
    Detect,
    /// HTTP/1 or HTTP/2, whichever the client begins with.
    Http,
    /// HTTP/2 with prior knowledge (also gRPC).
    Http2,
    /// Opaque bytes: TCP that is forwarded without a look inside.
    Opaque,
}

impl AppProtocol {
    /// Reads `appProtocol` of a Service port (KEP-3726 names and the common short ones).
    ///
    /// ```
    /// use selvedge_decide::config::AppProtocol;
    ///
    /// assert_eq!(AppProtocol::of("kubernetes.io/h2c"), AppProtocol::Http2);
    /// assert_eq!(AppProtocol::of(""), AppProtocol::Detect);
    /// ```
    pub fn of(declared: &str) -> Self {
        match declared.to_ascii_lowercase().as_str() {
            "http" | "http1" | "kubernetes.io/ws" => Self::Http,
            "http2" | "h2c" | "grpc" | "kubernetes.io/h2c" => Self::Http2,
            "tcp" | "tls" | "https" | "redis" | "mysql" | "postgres" | "postgresql" | "mongo" => Self::Opaque,
            _ => Self::Detect,
        }
    }
}

/// The rules for calls to one port of the application.
#[derive(Default)]
pub struct InboundPort {
    /// The service before the port, if there is one; of several the first by name.
    pub service: Option<ServiceName>,
    /// The services before the port after the first, by name.
    pub other_services: Vec<ServiceName>,
    /// What callers of the port speak, as its service declares it.
    pub protocol: AppProtocol,
    /// Routes of the service, to name a request's route.
    pub routes: RouteTable,
    /// Policies of calls received.
    pub policies: Arc<PolicySet>,
    /// What becomes of paths that services read in different ways; the policies say it where no setting does.
    pub ambiguous_paths: Option<AmbiguousPaths>,
}

impl InboundPort {
    /// `namespace/name` of the service that a caller means whose sidecar asks for `server_name`; of what nobody can tell the
    /// first one before the port, and empty where there is none.
    pub fn called(&self, server_name: Option<&str>) -> Arc<str> {
        let is_meant = |service: &&ServiceName| {
            let name = server_name.and_then(|asked| asked.strip_suffix(service.namespace())?.strip_suffix('.'));
            name == Some(service.name())
        };
        let meant = self.other_services.iter().find(is_meant).or(self.service.as_ref());
        meant.map(|service| service.text().clone()).unwrap_or_default()
    }
}

/// A service that can be called, or the own address of a workload, which has no routes and one endpoint.
#[derive(Clone)]
pub struct Destination {
    /// `namespace/name` of the service; of an address the workload with it, written `namespace/workload@ip`, or the service
    /// outside the mesh, written so too.
    pub name: ServiceName,
    /// `namespace/name` of the service for metrics and logs; empty at an address that is behind none.
    pub service: Arc<str>,
    /// Whether it is outside the mesh.
    pub external: bool,
    /// Its routes by port, 0 for every port that is not declared; ports with the same routes share them.
    pub routes: HashMap<u16, Arc<RouteTable>>,
    /// Policies of calls made to it.
    pub policies: Arc<PolicySet>,
    /// Its declared ports, by the number that callers name.
    pub ports: HashMap<u16, DestinationPort>,
    /// Where the backends of the routes of each port lead, by
    /// [`Backend::number`](selvedge_policies::route::Backend::number).
    pub backends: HashMap<u16, Vec<Option<Link>>>,
    /// How it is tried.
    pub traffic: Arc<Traffic>,
    /// The object, as `Kind namespace/name`, that each field of it which somebody set is from, such as `timeouts.request`.
    pub traffic_from: BTreeMap<String, String>,
}

/// One port of a service that can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationPort {
    /// What callers of the port speak, as its service declares it.
    pub protocol: AppProtocol,
    /// Its endpoints; `None` when there are none to be known.
    pub cluster: Option<Link>,
}

/// A place among the [clusters](RuntimeConfig::clusters) of the same configuration. Links are made when a configuration is
/// compiled, so that no request looks endpoints up by their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link(usize);

/// A `TrafficPolicy`, ready for use. The default tries once, waits without limit and balances by peak EWMA.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// When to try again.
    pub retry: Option<RetryPolicy>,
    /// How many retries there may be.
    pub budget: BudgetSpec,
    /// Over all tries, to the response head.
    pub request_timeout: Option<Duration>,
    /// From the start of a try to its response head (`backendRequest` of GEP-1742).
    pub try_timeout: Option<Duration>,
    /// For making a connection.
    pub connect_timeout: Option<Duration>,
    /// The rules of the breaker that each endpoint has on each worker; `None` for none.
    pub breaker: Option<BreakerSpec>,
    /// How one of the endpoints is chosen for a try.
    pub balancer: BalancerSpec,
}

/// The endpoints of one port of a service.
#[derive(Debug, PartialEq)]
pub struct ClusterConfig {
    /// Which port of which service.
    pub name: PortName,
    /// Endpoints in the order of the control plane, without those that this workload does not use.
    pub endpoints: Vec<Arc<EndpointConfig>>,
    /// How they are tried.
    pub traffic: Arc<Traffic>,
    /// Why it uses none of those there are, in words; `None` where it uses some, or there are none.
    pub nowhere: Option<String>,
}

/// One address that answers for a service (an upstream host), and how it is reached.
#[derive(Debug, PartialEq)]
pub struct EndpointConfig {
    /// The cluster it belongs to; `None` for an address outside any service.
    pub cluster: Option<PortName>,
    /// Where to connect: the inbound listener of its sidecar or, under transparent capture and without one, the workload.
    pub address: SocketAddr,
    /// What is on the wire.
    pub transport: Transport,
    /// The workload, where it is known.
    pub workload: Option<WorkloadName>,
    /// SPIFFE ID; empty when it has none.
    pub identity: String,
    /// Its share of the tries, in proportion to the other endpoints; at least 1.
    pub weight: u32,
    /// HTTP/2 with prior knowledge where the transport is not the mesh's.
    pub http2: bool,
    /// How it is tried.
    pub traffic: Arc<Traffic>,
}

/// What is on the wire to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Nothing but the application's bytes.
    Plain,
    /// Nothing: no sidecar is there, and only mTLS may go out (outbound mode REQUIRE).
    Unmeshed,
    /// Mesh TLS with a sidecar that must prove `identity`.
    Mesh {
        /// Who must be at the other end.
        identity: Arc<Identity>,
        /// What is asked for in the TLS handshake (SNI), `service.namespace`.
        server_name: Arc<str>,
    },
    /// TLS originated by the sidecar towards a service outside the mesh.
    External {
        /// SNI and the name that is verified.
        server_name: Arc<str>,
    },
}

/// Limit for making a connection where no policy sets one.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

impl EndpointConfig {
    /// `namespace/name` of the service it belongs to; empty when it belongs to none.
    pub fn service(&self) -> &str {
        self.cluster.as_ref().map_or("", |cluster| cluster.service.text())
    }

    /// Limit for making a connection.
    pub fn connect_timeout(&self) -> Duration {
        self.traffic.connect_timeout.unwrap_or(CONNECT_TIMEOUT)
    }
}

impl Link {
    /// The index into [`RuntimeConfig::clusters`].
    pub const fn place(self) -> usize {
        self.0
    }
}

impl Destination {
    /// What `by_port` has for calls of `port`, which may be one that is not declared.
    pub fn of_port<T>(by_port: &HashMap<u16, T>, port: u16) -> Option<&T> {
        by_port.get(&port).or_else(|| by_port.get(&0))
    }
}

impl RuntimeConfig {
    /// True when the workload's own view is there, and with it who may call.
    pub fn is_own_known(&self) -> bool {
        self.own.workload.is_some()
    }

    /// The rules for calls to the application's `port`.
    pub fn inbound(&self, port: u16) -> &Arc<InboundPort> {
        self.ports.get(&port).unwrap_or(&self.other_ports)
    }

    /// The endpoints of a port, by its name. Requests have links instead.
    pub fn link(&self, name: &PortName) -> Option<Link> {
        self.clusters.binary_search_by(|cluster| cluster.name.cmp(name)).ok().map(Link)
    }

    /// The destination known by `name`, canonical or alias, or the address. `Some(None)` when it is known that there is none
    /// in force.
    pub fn destination(&self, name: &str) -> Option<Option<&Arc<Destination>>> {
        if let Some(found) = self.destinations.get(name) {
            return Some(Some(found));
        }
        match self.aliases.get(name)? {
            Some(canonical) => self.destinations.get(canonical).map(Some),
            None => Some(self.addresses.get(name)),
        }
    }
}

impl std::fmt::Debug for RuntimeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeConfig")
            .field("generation", &self.generation)
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}
