//! `Workload`: one process with a sidecar, where it is and who it is.

use std::net::IpAddr;

use schemars::JsonSchema;
use selvedge_policies::kind::{self, Kind, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the kind `Workload` says of itself.
pub const KIND: Kind = Kind {
    name: "Workload",
    api_version: kind::SELVEDGE,
    summary: "One process of the mesh: its identity, address and ports.",
    schema: || schemars::schema_for!(WorkloadSpec),
    check: |document| kind::check(document, check),
    close: kind::as_written,
};

/// `spec` of a `Workload`. A `Service` of the namespace selects it by `metadata.labels`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "!(has(self.pod) && self.pod == true) && !(has(self.hostNetwork) && self.hostNetwork == true)",
          "message": "pod and hostNetwork are said by the cluster, of pods of its own: leave them out" },
    ])
)]
pub struct WorkloadSpec {
    /// The service account that names its identity, `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub service_account: String,
    /// The IP address peers dial.
    pub address: String,
    /// Further IP addresses that it has, such as that of the other IP version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The ports that have a name, or that peers dial elsewhere than on the application's own number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"]))]
    pub ports: Vec<WorkloadPort>,
    /// Its share of the traffic in proportion to the other workloads of a service; 0 takes it out of balancing.
    #[serde(default = "one")]
    pub weight: u32,
    /// False where no sidecar stands before it: it is called in plaintext, and no policy of its own holds.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub sidecar: bool,
    /// True for a pod of a cluster: where no `MeshPolicy` says, plaintext passes there in both directions.
    #[serde(default, skip_serializing_if = "is_no")]
    pub pod: bool,
    /// True for a pod that shares its node's network, where no sidecar of its own can be.
    #[serde(default, skip_serializing_if = "is_no")]
    pub host_network: bool,
    /// The application's ports that are reached directly, past the sidecar, as its capture rules exclude them.
    #[serde(default = "metrics_port", skip_serializing_if = "is_metrics_port")]
    pub direct_ports: Vec<u16>,
    /// The zone of its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The name of its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// One port of a `Workload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadPort {
    /// What a `targetPort` of a service calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The application's port, as services and policies name it.
    pub port: u16,
    /// The port peers dial: that of the sidecar's declared listener. The same as `port` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial: Option<u16>,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// Where a sidecar serves its own metrics, which rules exclude that say nothing else.
fn metrics_port() -> Vec<u16> {
    vec![15020]
}

fn is_metrics_port(ports: &[u16]) -> bool {
    ports == [15020]
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_yes(flag: &bool) -> bool {
    *flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_no(flag: &bool) -> bool {
    !*flag
}

/// The fields that are said of a pod by its cluster.
const OF_PODS: [&str; 2] = ["pod", "hostNetwork"];

/// What a `spec` says that somebody has written, and only a cluster can say, of a pod of its own.
pub fn said_of_pods(spec: &Value) -> Vec<Problem> {
    let said = OF_PODS.into_iter().filter(|field| spec.get(field) == Some(&Value::Bool(true)));
    said.map(|field| Problem::new(field, "only a cluster says this, of a pod of its own: leave it out")).collect()
}

/// Takes out of a `spec` what only a cluster can say.
pub fn disown(spec: &mut Map<String, Value>) {
    spec.retain(|field, _| !OF_PODS.contains(&field.as_str()));
}

impl WorkloadSpec {
    /// The address peers dial; unspecified when it is not sound, which a checked spec never is.
    pub fn ip(&self) -> IpAddr {
        self.address.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    }

    /// All its addresses, first the one peers dial.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.ip()).chain(self.addresses.iter().filter_map(|address| address.parse().ok()))
    }

    /// Where it stands among those that claim one port of one address, from 0: what a cluster says of a pod goes before what
    /// somebody writes, and mTLS before plaintext. Of two of one rank the first by namespace and name goes before.
    pub fn rank(&self) -> u8 {
        match (self.pod, self.sidecar) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        }
    }

    /// True when each of its ports is dialled on its own number, as under transparent capture.
    pub fn is_captured(&self) -> bool {
        self.ports.iter().all(|port| port.dial.is_none())
    }

    /// The application's port of that name.
    pub fn port_named(&self, name: &str) -> Option<u16> {
        self.ports.iter().find(|port| port.name.as_deref() == Some(name)).map(|port| port.port)
    }

    /// The port peers dial to reach the application's `port`.
    pub fn dial(&self, port: u16) -> u16 {
        let declared = self.ports.iter().find(|declared| declared.port == port);
        declared.and_then(|declared| declared.dial).unwrap_or(port)
    }
}

/// Addresses beside the first one that a workload may have.
const MAX_ADDRESSES: usize = 16;
/// Largest weight, so that sums of weights stay small numbers.
const MAX_WEIGHT: u32 = 10_000;

fn check(spec: &WorkloadSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let account = kind::name_problem(&spec.service_account);
    problems.extend(account.map(|why| Problem::new("serviceAccount", why)));
    problems.extend(address_problem(&spec.address).map(|why| Problem::new("address", why)));
    if spec.addresses.len() > MAX_ADDRESSES {
        let why = format!("{} of them: a workload has {MAX_ADDRESSES} at most", spec.addresses.len());
        problems.push(Problem::new("addresses", why));
    }
    for (n, address) in spec.addresses.iter().enumerate() {
        problems.extend(address_problem(address).map(|why| Problem::new(format!("addresses[{n}]"), why)));
    }
    for (n, port) in spec.ports.iter().enumerate() {
        check_port(port.port, format!("ports[{n}].port"), &mut problems);
        check_port(port.dial.unwrap_or(1), format!("ports[{n}].dial"), &mut problems);
        if let Some(first) = spec.ports[..n].iter().position(|other| other.port == port.port) {
            let why = format!("port {} is already that of ports[{first}]", port.port);
            problems.push(Problem::new(format!("ports[{n}].port"), why));
        }
        let Some(name) = &port.name else { continue };
        check_port_name(name, format!("ports[{n}].name"), &mut problems);
        if let Some(first) = spec.ports[..n].iter().position(|other| other.name.as_ref() == Some(name)) {
            let why = format!("the name is already that of ports[{first}]");
            problems.push(Problem::new(format!("ports[{n}].name"), why));
        }
    }
    if spec.weight > MAX_WEIGHT {
        problems.push(Problem::new("weight", format!("{} is out of range: expected 0 to {MAX_WEIGHT}", spec.weight)));
    }
    problems
}

/// Why this is not the address of one host, if so.
fn address_problem(written: &str) -> Option<String> {
    match written.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() || address.is_multicast() => {
            Some(format!("{address} cannot be dialled: expected the address of one host"))
        }
        Ok(_) => None,
        Err(_) => Some(format!("'{written}' is not an IP address: expected one such as 10.0.0.7 or fd00::7")),
    }
}

/// Complains of port 0.
pub(super) fn check_port(port: u16, path: String, problems: &mut Vec<Problem>) {
    if port == 0 {
        problems.push(Problem::new(path, "0 is out of range: expected 1 to 65535"));
    }
}

/// Complains of what is not the name of a port (RFC 6335 section 5.1).
pub(super) fn check_port_name(name: &str, path: String, problems: &mut Vec<Problem>) {
    let has_letter = name.bytes().any(|byte| byte.is_ascii_lowercase());
    if super::label_problem(name).is_some() || !has_letter || name.len() > 15 {
        let shown: String = name.chars().take(80).collect();
        let why = format!(
            "'{shown}' is not the name of a port: expected up to 15 characters a-z, 0-9 and '-', not only \
                           digits, or a number without quotes"
        );
        problems.push(Problem::new(path, why));
    }
}
