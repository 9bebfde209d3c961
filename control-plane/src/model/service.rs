//! `Service`: a name that callers use, and the workloads behind it (Kubernetes core v1).

use std::net::IpAddr;

use schemars::JsonSchema;
use selvedge_policies::kind::{self, Kind, Problem};
use serde::{Deserialize, Serialize};

use super::Labels;

/// The kind `Service`.
pub const KIND: Kind = Kind {
    name: "Service",
    summary: "A name that callers use, and the workloads behind it.",
    schema: || schemars::schema_for!(ServiceSpec),
    check: |document| kind::check(document, check),
};

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
    /// The ports callers use.
    pub ports: Vec<ServicePort>,
}

/// The type of a `Service`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Reached by its cluster address.
    ClusterIP,
    /// The same, and from outside; the mesh does not look at that part.
    NodePort,
    /// The same, and from outside; the mesh does not look at that part.
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
    pub target_port: Option<u16>,
    /// What is spoken on it; detected when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<AppProtocol>,
    /// `TCP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Transport>,
}

/// The transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Transport {
    /// The only one the mesh carries.
    #[serde(rename = "TCP")]
    Tcp,
}

/// A protocol the mesh knows, as in `appProtocol`; the names with a prefix are those of Kubernetes (KEP-3726).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AppProtocol {
    /// HTTP/1.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque bytes.
    Tcp,
    /// The application's own TLS, passed through.
    Tls,
    /// HTTP/2 without TLS.
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
    /// The application's port.
    pub fn target(&self) -> u16 {
        self.target_port.unwrap_or(self.port)
    }
}

impl ServiceSpec {
    /// The cluster address, when there is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.cluster_ip.as_deref().and_then(|address| address.parse().ok())
    }
}

fn check(spec: &ServiceSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let address = spec.cluster_ip.as_deref();
    if let Some(given) = address.filter(|given| !matches!(*given, "" | "None") && spec.address().is_none()) {
        let why = format!("'{given}' is not an IP address: expected one, or None for a headless service");
        problems.push(Problem::new("clusterIP", why));
    }
    if spec.ports.is_empty() {
        problems.push(Problem::new("ports", "a service without ports cannot be called: expected at least one"));
    }
    for (n, port) in spec.ports.iter().enumerate() {
        super::workload::check_port(port.port, format!("ports[{n}].port"), &mut problems);
        super::workload::check_port(port.target_port.unwrap_or(1), format!("ports[{n}].targetPort"), &mut problems);
        if let Some(first) = spec.ports[..n].iter().position(|other| other.port == port.port) {
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
