//! `EndpointSlice`: where the calls of a `Service` go, as a cluster tells it (Kubernetes discovery v1).

use std::net::IpAddr;

use schemars::JsonSchema;
use selvedge_policies::kind::{self, Kind, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Labels;

/// What the kind `EndpointSlice` says of itself.
pub const KIND: Kind = Kind {
    name: "EndpointSlice",
    api_version: "discovery.k8s.io/v1",
    summary: "Where the calls of a Service go, as a cluster tells it.",
    schema: || schemars::schema_for!(EndpointSliceSpec),
    check: |document| kind::check(document, check),
    close: kind::as_written,
};

/// The label that names the service.
const SERVICE: &str = "kubernetes.io/service-name";

/// The fields of an `EndpointSlice` that mean something in the mesh. They stand beside `metadata`, not in a `spec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSliceSpec {
    /// What the addresses are.
    pub address_type: AddressType,
    /// The places that calls of the service go to.
    #[serde(default)]
    pub endpoints: Vec<SliceEndpoint>,
    /// The ports of all endpoints, by the names that the service gives to its ports.
    #[serde(default)]
    pub ports: Vec<SlicePort>,
}

/// What the addresses of a slice are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddressType {
    /// Of IPv4.
    IPv4,
    /// Of IPv6.
    IPv6,
    /// Host names, which the mesh leaves alone.
    FQDN,
}

/// One place to call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// Its addresses, of which the first counts.
    pub addresses: Vec<String>,
    /// Whether it may be called.
    #[serde(default, skip_serializing_if = "is_default")]
    pub conditions: Conditions,
    /// The pod that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// The zone it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The name of the node it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Whose calls it is for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hints: Hints,
}

/// Whose calls an endpoint is for; nothing where it is for everybody's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Hints {
    /// Those from these zones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<Hint>,
    /// Those from these nodes, which go first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub for_nodes: Vec<Hint>,
}

/// A zone or node of a hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hint {
    /// Its name, as endpoints have it.
    pub name: String,
}

/// Whether an endpoint may be called; what is not known counts as the API says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conditions {
    /// It takes new calls; unknown is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// It would take calls if it were not about to end; unknown is what `ready` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// It is about to end; unknown is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

/// What is at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetRef {
    /// The kind of it; only of a `Pod` is more known.
    pub kind: String,
    /// Its name in the namespace of the slice.
    pub name: String,
}

/// A port of all endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlicePort {
    /// The name of the service's port; empty when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number at the endpoints; absent for all ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The transport, `TCP` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A document of a slice in the form of all others: what stands beside `metadata` as its `spec`. An API server writes `null`
/// for a list without an element.
pub fn with_spec(document: &Map<String, Value>) -> Map<String, Value> {
    let is_envelope = |field: &str| matches!(field, "apiVersion" | "kind" | "metadata");
    let said = document.clone().into_iter().filter(|(_, value)| !value.is_null());
    let (envelope, spec): (Map<_, _>, Map<_, _>) = said.partition(|(field, _)| is_envelope(field));
    let mut document = envelope;
    document.insert("spec".to_owned(), spec.into());
    document
}

impl EndpointSliceSpec {
    /// The service of the namespace whose calls go there.
    pub fn service(labels: &Labels) -> Option<&str> {
        labels.get(SERVICE).map(String::as_str)
    }

    /// The number at the endpoints of the service's port of that name.
    pub fn port_named(&self, name: Option<&str>) -> Option<u16> {
        let is_tcp = |port: &&SlicePort| port.protocol.as_deref().unwrap_or("TCP") == "TCP";
        let named = |port: &&SlicePort| port.name.as_deref().unwrap_or_default() == name.unwrap_or_default();
        self.ports.iter().filter(is_tcp).find(named)?.port
    }
}

impl SliceEndpoint {
    /// Its address; `None` for a host name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.addresses.first()?.parse().ok()
    }

    /// The name of the pod that is there.
    pub fn pod(&self) -> Option<&str> {
        self.target_ref.as_ref().filter(|target| target.kind == "Pod").map(|target| target.name.as_str())
    }

    /// True when new calls may go there.
    pub fn is_ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }

    /// True when calls may go there if there is nowhere else, because it ends but still takes them.
    pub fn is_leaving(&self) -> bool {
        let Conditions { ready, serving, terminating } = self.conditions;
        terminating.unwrap_or(false) && serving.or(ready).unwrap_or(true)
    }
}

fn check(spec: &EndpointSliceSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (n, endpoint) in spec.endpoints.iter().enumerate() {
        for (m, address) in endpoint.addresses.iter().enumerate() {
            if spec.address_type != AddressType::FQDN && address.parse::<IpAddr>().is_err() {
                let why = format!("'{address}' is not an IP address, though addressType says so");
                problems.push(Problem::new(format!("endpoints[{n}].addresses[{m}]"), why));
            }
        }
    }
    problems
}
