//! `ExternalService`: something outside the mesh that may be called.

use std::net::IpAddr;

use schemars::JsonSchema;
use selvedge_policies::kind::{self, Kind, Problem};
use serde::{Deserialize, Serialize};

use super::service::AppProtocol;

/// What the kind `ExternalService` says of itself.
pub const KIND: Kind = Kind {
    name: "ExternalService",
    api_version: kind::SELVEDGE,
    summary: "Something outside the mesh that may be called, and how.",
    schema: || schemars::schema_for!(ExternalServiceSpec),
    check: |document| kind::check(document, check),
    close: kind::as_written,
};

/// `spec` of an `ExternalService`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalServiceSpec {
    /// The host names callers use.
    #[schemars(length(min = 1))]
    pub hosts: Vec<String>,
    /// The ports callers use.
    #[schemars(length(min = 1))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"]))]
    pub ports: Vec<ExternalPort>,
    /// The addresses at which it is reached; sidecars balance over them.
    #[schemars(length(min = 1))]
    pub endpoints: Vec<ExternalEndpoint>,
}

/// One port of an `ExternalService`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalPort {
    /// The name of the port, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The port callers use.
    pub port: u16,
    /// What is spoken on it; detected when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<AppProtocol>,
    /// The sidecar speaks TLS to the endpoint on behalf of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExternalTls>,
}

/// TLS that the sidecar originates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalTls {
    /// The name to send and to verify; the first host when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// One address of an `ExternalService`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalEndpoint {
    /// The address, IPv4 or IPv6, without port.
    pub address: String,
    /// Port; that of the service's port when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl ExternalServiceSpec {
    /// The name to send and verify in TLS on `port`; empty when the sidecar originates none.
    pub fn tls_server_name(&self, port: &ExternalPort) -> String {
        let Some(tls) = &port.tls else { return String::new() };
        tls.server_name.clone().or_else(|| self.hosts.first().cloned()).unwrap_or_default()
    }
}

fn check(spec: &ExternalServiceSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (n, host) in spec.hosts.iter().enumerate() {
        problems.extend(host_problem(host).map(|why| Problem::new(format!("hosts[{n}]"), why)));
    }
    for (field, is_empty) in
        [("hosts", spec.hosts.is_empty()), ("ports", spec.ports.is_empty()), ("endpoints", spec.endpoints.is_empty())]
    {
        if is_empty {
            problems.push(Problem::new(field, format!("{field} is empty: expected at least one")));
        }
    }
    for (n, port) in spec.ports.iter().enumerate() {
        super::workload::check_port(port.port, format!("ports[{n}].port"), &mut problems);
        if let Some(first) = spec.ports[..n].iter().position(|other| other.port == port.port) {
            let why = format!("port {} is already that of ports[{first}]", port.port);
            problems.push(Problem::new(format!("ports[{n}].port"), why));
        }
        let name = port.tls.as_ref().and_then(|tls| tls.server_name.as_deref()).and_then(host_problem);
        problems.extend(name.map(|why| Problem::new(format!("ports[{n}].tls.serverName"), why)));
    }
    for (n, endpoint) in spec.endpoints.iter().enumerate() {
        if endpoint.address.parse::<IpAddr>().is_err() {
            let why = format!(
                "'{}' is not an IP address: expected one such as 198.51.100.10; host names are not resolved",
                endpoint.address
            );
            problems.push(Problem::new(format!("endpoints[{n}].address"), why));
        }
        super::workload::check_port(endpoint.port.unwrap_or(1), format!("endpoints[{n}].port"), &mut problems);
    }
    problems
}

/// Why `host` is no host name a caller can use, if so.
fn host_problem(host: &str) -> Option<String> {
    if host.starts_with('*') {
        return Some(format!("'{host}' is a wildcard, which is not supported: expected one whole host name"));
    }
    let sound = host.len() <= 253 && host.split('.').all(|label| super::label_problem(label).is_none());
    if sound { None } else { Some(format!("'{host}' is not a host name: expected one such as api.example.com")) }
}
