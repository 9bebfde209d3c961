//! `Service`: a name that callers use, and the workloads behind it (Kubernetes core v1).

use std::{collections::BTreeSet, net::IpAddr, sync::LazyLock};

use schemars::JsonSchema;
use selvedge_policies::{
    kind::{self, Kind, Problem},
    policy::Reference,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Labels, workload::WorkloadSpec};

/// What the kind `Service` says of itself.
pub const KIND: Kind = Kind {
    name: "Service",
    api_version: "v1",
    summary: "A name that callers use, and the workloads behind it.",
    schema: || schemars::schema_for!(ServiceSpec),
    check: |document| kind::check(document, check),
    close: kind::as_written,
};

/// Fields of Kubernetes that say nothing inside a mesh: how a service is reached from outside, and how its addresses are
/// chosen. They are read over, so that what a cluster tells of a service can be used as it is.
const READ_OVER: [&str; 11] = [
    "allocateLoadBalancerNodePorts",
    "externalIPs",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "publishNotReadyAddresses",
    "sessionAffinityConfig",
];

/// Takes what is read over out of a `spec` and its ports.
pub fn read_over(spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else { return };
    let ports = fields.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
    ports.filter_map(Value::as_object_mut).for_each(|port| drop(port.remove("nodePort")));
    fields.retain(|name, _| !READ_OVER.contains(&name.as_str()));
}

/// The fields of a `spec` and of its ports that mean something here.
static KNOWN: LazyLock<[BTreeSet<String>; 2]> = LazyLock::new(|| [fields::<ServiceSpec>(), fields::<ServicePort>()]);

fn fields<T: JsonSchema>() -> BTreeSet<String> {
    let schema = schemars::schema_for!(T);
    schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|fields| fields.keys().cloned()).collect()
}

/// Takes out of a `spec` that a server tells what nobody here knows: a field of a later release of Kubernetes. A person who
/// writes such a thing has misspelt something.
pub fn read_of_server(spec: &mut Value) {
    let [of_spec, of_ports] = &*KNOWN;
    let Some(fields) = spec.as_object_mut() else { return };
    fields.retain(|name, _| of_spec.contains(name));
    let ports = fields.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
    ports.filter_map(Value::as_object_mut).for_each(|port| port.retain(|name, _| of_ports.contains(name)));
}

/// Takes the protocols out of the ports of a `spec` that somebody else knows, such as a database: what is spoken there is
/// found out. Told of is one that is probably a misspelt one of ours.
pub fn read_protocols(spec: &mut Value) -> Vec<Problem> {
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
    let mut misspelt = Vec::new();
    for (n, port) in ports.filter_map(Value::as_object_mut).enumerate() {
        let Some(Value::String(written)) = port.get("appProtocol") else { continue };
        let word = written.to_lowercase();
        if PROTOCOLS.contains(&&*word) {
            port.insert("appProtocol".to_owned(), word.into());
            continue;
        }
        let near = PROTOCOLS.iter().find(|known| strsim::damerau_levenshtein(&word, known) == 1);
        misspelt.extend(near.map(|near| {
            let why =
                format!("the mesh does not know '{written}', so what is spoken is found out: did you mean '{near}'?");
            Problem::new(format!("ports[{n}].appProtocol"), why)
        }));
        port.remove("appProtocol");
    }
    misspelt
}

/// True for the `spec` of a service that nothing of the mesh is behind: another name for something else, or a headless one
/// without ports, which is there for the names of its pods alone.
pub fn is_name_only(spec: &Value) -> bool {
    let says = |field: &str, word: &str| spec.get(field).and_then(Value::as_str) == Some(word);
    let has_ports = spec.get("ports").and_then(Value::as_array).is_some_and(|ports| !ports.is_empty());
    says("type", "ExternalName") || says("clusterIP", "None") && !has_ports
}

/// `spec` of a `Service`: the fields of Kubernetes that mean something in the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// `ClusterIP`, the only type that matters inside a mesh.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ServiceType>,
    /// Labels a workload of the namespace must have to stand behind the service. None when empty.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub selector: Labels,
    /// The address callers dial under transparent capture; `None` for a headless service.
    #[serde(default, rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
    /// All the addresses, of both IP versions; `clusterIP` is the first.
    #[serde(default, rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<String>,
    /// `None`; the mesh has its own balancing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
    /// Which endpoints a caller may use; `Cluster` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<InternalTrafficPolicy>,
    /// `PreferSameZone` (also `PreferClose`) or `PreferSameNode`; any other word says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
    /// The ports callers use.
    pub ports: Vec<ServicePort>,
}

/// Which endpoints callers inside the cluster may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InternalTrafficPolicy {
    /// All of them.
    Cluster,
    /// Those on the caller's own node.
    Local,
}

/// Whether calls of one client go to one workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SessionAffinity {
    /// They need not, which is how the mesh balances.
    None,
    /// They should; the mesh does not do that, and says so.
    ClientIP,
}

/// The type of a `Service`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Reached by its cluster address.
    ClusterIP,
    /// Reached by its cluster address, and by a port of each node; the mesh does not look at the latter.
    NodePort,
    /// Reached by its cluster address, and through a load balancer; the mesh does not look at the latter.
    LoadBalancer,
}

/// One port of a `Service`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// Its name; needed when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The port callers use.
    pub port: u16,
    /// The port of the application behind it; `port` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<TargetPort>,
    /// What is spoken on it; detected when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<AppProtocol>,
    /// The transport; `TCP` when absent. Ports of any other are left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Transport>,
}

/// The port of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TargetPort {
    /// The number of the port at every workload.
    Number(u16),
    /// The name each workload gives to one of its ports.
    Name(String),
}

/// The transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// The only one the mesh carries.
    Tcp,
    /// Datagrams, which go past the mesh.
    Udp,
    /// Which goes past the mesh, too.
    Sctp,
}

/// A protocol the mesh knows, as in `appProtocol`; the names with a prefix are those of Kubernetes (KEP-3726).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AppProtocol {
    /// HTTP/1, or HTTP/2 where the client begins so.
    Http,
    /// HTTP/2 with prior knowledge, without TLS of the application.
    Http2,
    /// gRPC, which is HTTP/2 with prior knowledge.
    Grpc,
    /// Opaque bytes, in which the mesh does not look for requests.
    Tcp,
    /// The application's own TLS, passed through.
    Tls,
    /// HTTP/2 with prior knowledge, without TLS of the application.
    #[serde(rename = "kubernetes.io/h2c")]
    KubernetesH2c,
    /// WebSockets, which begin as HTTP/1.
    #[serde(rename = "kubernetes.io/ws")]
    KubernetesWs,
    /// WebSockets in the application's own TLS.
    #[serde(rename = "kubernetes.io/wss")]
    KubernetesWss,
    /// HTTP in the application's own TLS.
    Https,
}

/// The words of every [`AppProtocol`], those first that are likeliest to be meant.
const PROTOCOLS: [&str; 9] =
    ["http", "http2", "grpc", "tcp", "tls", "https", "kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss"];

impl AppProtocol {
    /// The word the wire carries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http | Self::KubernetesWs => "http",
            Self::Http2 | Self::KubernetesH2c => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls | Self::Https | Self::KubernetesWss => "tls",
        }
    }
}

impl ServicePort {
    /// What is spoken below the application: what `protocol` says, or TCP.
    pub fn transport(&self) -> Transport {
        self.protocol.unwrap_or(Transport::Tcp)
    }

    /// What is spoken on it, as far as that is declared. A name `tcp` or `tcp-...` declares opaque bytes, as elsewhere; what
    /// `http-...`, `grpc-...` and `tls-...` say is found out anyway, and nobody checks such names.
    pub fn spoken(&self) -> Option<AppProtocol> {
        let prefix = self.name.as_deref().and_then(|name| name.split('-').next());
        self.app_protocol.or_else(|| (prefix == Some("tcp")).then_some(AppProtocol::Tcp))
    }

    /// Whether both are reached in the same way: a number is taken once for each transport.
    fn is_same(&self, other: &Self) -> bool {
        self.port == other.port && self.transport() == other.transport()
    }

    /// Whether a reference to its service means this port, by number, by name, or as one of all.
    pub fn is_meant(&self, reference: &Reference) -> bool {
        reference.port.is_none_or(|port| port == self.port)
            && reference.section.as_deref().is_none_or(|name| self.name.as_deref() == Some(name))
    }

    /// The application's port at a workload; `None` when it is given by a name that no port of the workload has.
    pub fn target(&self, workload: &WorkloadSpec) -> Option<u16> {
        match &self.target_port {
            None => Some(self.port),
            Some(TargetPort::Number(number)) => Some(*number),
            Some(TargetPort::Name(name)) => workload.port_named(name),
        }
    }
}

impl ServiceSpec {
    /// Whether callers prefer endpoints of their own node, and those of their own zone.
    pub fn prefers(&self) -> (bool, bool) {
        match self.traffic_distribution.as_deref() {
            Some("PreferSameNode") => (true, true),
            Some("PreferSameZone" | "PreferClose") => (false, true),
            _ => (false, false),
        }
    }

    /// The ports that the mesh carries.
    pub fn carried(&self) -> impl Iterator<Item = &ServicePort> + Clone {
        self.ports.iter().filter(|port| port.transport() == Transport::Tcp)
    }

    /// What a policy of this service means by a port: that of the application where it has one of that number, else that which
    /// the port of the service leads to.
    pub fn application_port(&self, number: u16, workload: &WorkloadSpec) -> u16 {
        let is_listed = workload.ports.iter().any(|port| port.port == number);
        let mut targets = self.carried().map(|port| (port.port, port.target(workload)));
        if is_listed || targets.clone().any(|(_, target)| target == Some(number)) {
            return number;
        }
        targets.find(|(port, _)| *port == number).and_then(|(_, target)| target).unwrap_or(number)
    }

    /// True for a service whose own address, the first of them, is of IPv6.
    pub fn is_first_ipv6(&self) -> bool {
        let first = self.cluster_ip.iter().chain(&self.cluster_ips).find_map(|address| address.parse::<IpAddr>().ok());
        first.is_some_and(|address| address.is_ipv6())
    }

    /// The cluster addresses, each once; none of a headless service.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.cluster_ip.iter().chain(&self.cluster_ips).filter_map(|address| address.parse().ok()).collect()
    }
}

fn check(spec: &ServiceSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let all = spec.cluster_ips.iter().enumerate().map(|(n, address)| (format!("clusterIPs[{n}]"), address));
    for (path, given) in spec.cluster_ip.iter().map(|address| ("clusterIP".to_owned(), address)).chain(all) {
        if !matches!(&**given, "" | "None") && given.parse::<IpAddr>().is_err() {
            let why = format!("'{given}' is not an IP address: expected one, or None for a headless service");
            problems.push(Problem::new(path, why));
        }
    }
    if spec.ports.is_empty() {
        problems.push(Problem::new("ports", "a service without ports cannot be called: expected at least one"));
    }
    for (n, port) in spec.ports.iter().enumerate() {
        super::workload::check_port(port.port, format!("ports[{n}].port"), &mut problems);
        let target = format!("ports[{n}].targetPort");
        match &port.target_port {
            Some(TargetPort::Number(number)) => super::workload::check_port(*number, target, &mut problems),
            Some(TargetPort::Name(name)) => super::workload::check_port_name(name, target, &mut problems),
            None => {}
        }
        if let Some(first) = spec.ports[..n].iter().position(|other| other.is_same(port)) {
            let why = format!("port {} is already that of ports[{first}]", port.port);
            problems.push(Problem::new(format!("ports[{n}].port"), why));
        }
        let named =
            port.name.as_ref().and_then(|name| spec.ports[..n].iter().position(|o| o.name.as_ref() == Some(name)));
        if let Some(first) = named {
            let why = format!("the name is already that of ports[{first}]");
            problems.push(Problem::new(format!("ports[{n}].name"), why));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_protocol_has_its_word_and_no_other() {
        let schema = schemars::schema_for!(AppProtocol).to_value().to_string();
        for word in PROTOCOLS {
            assert!(serde_json::from_value::<AppProtocol>(word.into()).is_ok(), "{word}");
        }
        assert_eq!(schema.matches("\"const\"").count(), PROTOCOLS.len(), "{schema}");
    }

    #[test]
    fn of_the_names_of_ports_only_that_of_tcp_says_what_is_spoken() {
        for (name, app_protocol, expected) in [
            (Some("tcp"), None, Some(AppProtocol::Tcp)),
            (Some("tcp-redis"), None, Some(AppProtocol::Tcp)),
            (Some("tcp-tls"), Some("tls"), Some(AppProtocol::Tls)),
            (Some("tcp-web"), Some("http"), Some(AppProtocol::Http)),
            (Some("web"), Some("grpc"), Some(AppProtocol::Grpc)),
            // What these speak is found out, so a name that is wrong breaks nothing.
            (Some("http"), None, None),
            (Some("http-web"), None, None),
            (Some("http2-web"), None, None),
            (Some("grpc-web"), None, None),
            (Some("grpc"), None, None),
            (Some("tls-web"), None, None),
            (Some("https-web"), None, None),
            (Some("tcpdump"), None, None),
            (Some("my-tcp"), None, None),
            (None, None, None),
        ] {
            let mut port = json!({ "port": 80 });
            for (field, value) in [("name", name), ("appProtocol", app_protocol)] {
                if let Some(value) = value {
                    port[field] = value.into();
                }
            }
            let port: ServicePort = serde_json::from_value(port).unwrap();
            assert_eq!(port.spoken(), expected, "{name:?} {app_protocol:?}");
        }
    }

    #[test]
    fn a_protocol_of_somebody_else_is_read_over_and_a_misspelt_one_is_told_of() {
        for (written, read, told) in [
            ("HTTP", Some("http"), false),
            ("kubernetes.io/h2c", Some("kubernetes.io/h2c"), false),
            ("postgresql", None, false),
            ("example.com/mongo", None, false),
            ("smtp", None, false),
            ("htpp", None, true),
            ("kubernetes.io/wsss", None, true),
        ] {
            let mut spec = json!({ "ports": [{ "port": 80 }, { "port": 81, "appProtocol": written }] });
            let problems = read_protocols(&mut spec);
            assert_eq!(spec["ports"][1]["appProtocol"].as_str(), read, "{written}");
            let paths: Vec<&str> = problems.iter().map(|problem| &*problem.path).collect();
            assert_eq!(paths, if told { vec!["ports[1].appProtocol"] } else { vec![] }, "{written}");
        }
    }

    #[test]
    fn a_service_without_anything_behind_it_is_a_name_only() {
        for (spec, expected) in [
            (json!({ "type": "ExternalName", "externalName": "api.example.com", "ports": [{ "port": 80 }] }), true),
            (json!({ "clusterIP": "None", "selector": { "app": "a" } }), true),
            (json!({ "clusterIP": "None", "ports": [{ "port": 80 }] }), false),
            (json!({ "ports": [] }), false),
        ] {
            assert_eq!(is_name_only(&spec), expected, "{spec}");
        }
    }
}
