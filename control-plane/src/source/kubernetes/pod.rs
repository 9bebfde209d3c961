//! Pods: of each a `Workload`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use selvedge_inject::{
    annotation::{EXCLUDE_INBOUND_PORTS, PREFIX},
    pod::Namespace,
    switch::{self, ENABLED, LABEL},
    warning::{self, Warning},
};
use selvedge_policies::kind::SELVEDGE;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, json};

use super::pruned::{Api, Aside, Key, Known, Lacking, Misspelt, Named, Pruned, Version};
use crate::source::{ClusterObject, Reading};

/// The name of the sidecar's container.
pub const SIDECAR: &str = "selvedge-proxy";

/// The name of the port where the sidecar serves its metrics, and its number where no port has that name.
const METRICS: &str = "mesh-metrics";
const METRICS_PORT: u16 = 15020;

/// The annotation of a pod that mirrors a static one.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Of how many annotations of a pod that nobody reads there is something to say.
const MISSPELT: usize = 10;

/// What the mesh needs to know of a pod.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pod {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    resource_version: Version,
    creation_timestamp: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: Annotations,
}

/// Those that the mesh looks at. Others may be long, and are not kept.
#[derive(Clone, Debug, Default)]
struct Annotations(Map<String, Value>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Kept)
    }
}

struct Kept;

impl<'de> Visitor<'de> for Kept {
    type Value = Annotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Annotations, A::Error> {
        let mut kept = Map::new();
        while let Some(key) = all.next_key::<String>()? {
            if key.starts_with(PREFIX) || key == MIRROR {
                kept.insert(key, all.next_value()?);
            } else {
                all.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Annotations(kept))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    service_account_name: Option<String>,
    node_name: Option<String>,
    #[serde(default)]
    host_network: bool,
    #[serde(default)]
    os: System,
    #[serde(default)]
    node_selector: System,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    init_containers: Vec<Container>,
}

/// The operating system that a pod is for, empty where it does not say.
#[derive(Clone, Debug, Default, Deserialize)]
struct System {
    #[serde(default, alias = "kubernetes.io/os")]
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Container {
    name: String,
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: Option<String>,
    container_port: u16,
    protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    /// Of both IP versions, where it has both.
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodIp {
    ip: String,
}

impl Pod {
    /// True while something in it may call or be called.
    fn is_alive(&self) -> bool {
        !matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// The name of its service account.
    fn account(&self) -> &str {
        self.spec.service_account_name.as_deref().unwrap_or("default")
    }

    /// True when a sidecar of its own stands before it. One that shares its node's network has none.
    pub(super) fn has_sidecar(&self) -> bool {
        let mut containers = self.spec.containers.iter().chain(&self.spec.init_containers);
        !self.spec.host_network && containers.any(|container| container.name == SIDECAR)
    }

    /// What there is to say when an injector would put a sidecar into it, here or in an enabled namespace.
    fn lacks_sidecar(&self, uid: &Arc<str>) -> Option<Lacking> {
        let Spec { host_network, os, node_selector, containers, init_containers, .. } = &self.spec;
        let names: Vec<Value> =
            containers.iter().chain(init_containers).map(|container| json!({ "name": container.name })).collect();
        let pod = json!({
            "metadata": {
                "labels": self.metadata.labels,
                "annotations": self.metadata.annotations.0,
            },
            "spec": {
                "hostNetwork": host_network, "os": { "name": os.name }, "containers": names,
                "nodeSelector": { "kubernetes.io/os": node_selector.name },
            },
        });
        let mut around = Namespace { name: self.metadata.namespace.clone(), labels: Map::new() };
        let asks = switch::decide(&pod, &around) == Ok(true);
        around.labels.insert(LABEL.to_owned(), ENABLED.into());
        let may_lack = asks || switch::decide(&pod, &around) == Ok(true);
        may_lack.then(|| Lacking { pod: self.named(uid), asks })
    }

    /// What there is to say of annotations that nobody reads.
    fn misspelt(&self, uid: &Arc<str>) -> Option<Misspelt> {
        let annotations = &self.metadata.annotations.0;
        let said: Vec<Warning> =
            warning::misspelt(&json!({ "metadata": { "annotations": annotations } })).take(MISSPELT).collect();
        (!said.is_empty()).then(|| Misspelt { pod: self.named(uid), said })
    }

    fn named(&self, uid: &Arc<str>) -> Named {
        let Metadata { namespace, name, .. } = &self.metadata;
        Named { namespace: namespace.clone(), name: name.clone(), uid: Arc::clone(uid) }
    }

    /// The workload it is; `None` while it has no address.
    fn workload(&self) -> Option<Value> {
        let address = self.status.pod_ip.as_ref().filter(|_| self.is_alive())?;
        let Metadata { namespace, name, labels, creation_timestamp, .. } = &self.metadata;
        let mut spec = json!({
            "serviceAccount": self.account(),
            "address": address,
            "addresses": self.further_addresses(),
            "ports": self.ports(),
            "sidecar": self.has_sidecar(),
            "pod": true,
            "hostNetwork": self.spec.host_network,
            "directPorts": self.direct_ports(),
        });
        if let Some(node) = &self.spec.node_name {
            spec["node"] = node.as_str().into();
        }
        let metadata =
            json!({ "namespace": namespace, "name": name, "labels": labels, "creationTimestamp": creation_timestamp });
        Some(json!({ "apiVersion": SELVEDGE, "kind": "Workload", "metadata": metadata, "spec": spec }))
    }

    /// The ports that are reached past the sidecar: those of the annotation, and where the sidecar serves its metrics.
    fn direct_ports(&self) -> Vec<u16> {
        let sidecars = self.spec.containers.iter().chain(&self.spec.init_containers).filter(|one| one.name == SIDECAR);
        let metrics = sidecars.flat_map(|sidecar| &sidecar.ports).find(|port| port.name.as_deref() == Some(METRICS));
        let excluded = self.metadata.annotations.0.get(&EXCLUDE_INBOUND_PORTS.name()).and_then(Value::as_str);
        let excluded = excluded.unwrap_or_default().split(',');
        let excluded = excluded.filter_map(|port| port.trim().parse().ok()).filter(|port| *port != 0);
        excluded.chain([metrics.map_or(METRICS_PORT, |port| port.container_port)]).collect()
    }

    /// The addresses that it has beside the one that counts.
    fn further_addresses(&self) -> Vec<&str> {
        let all = self.status.pod_ips.iter().map(|address| &*address.ip);
        all.filter(|address| Some(*address) != self.status.pod_ip.as_deref()).collect()
    }

    /// The TCP ports that have a name, each number and each name once: of several containers that give a name the first
    /// counts, as for whoever looks one up in Kubernetes.
    fn ports(&self) -> Vec<Value> {
        let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
        let ports = self.spec.containers.iter().flat_map(|container| &container.ports);
        let tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
        let named = tcp.filter_map(|port| Some((port.name.as_deref()?, port.container_port)));
        let first =
            named.filter(|(name, port)| !numbers.contains(port) && names.insert(*name) && numbers.insert(*port));
        first.map(|(name, port)| json!({ "name": name, "port": port })).collect()
    }
}

impl Pruned for Pod {
    fn key(&self) -> Key {
        Key::new(&self.metadata.namespace, &self.metadata.name)
    }

    fn version(&self) -> Version {
        self.metadata.resource_version.clone()
    }

    fn aside(&self) -> Option<Aside> {
        let account = self.account().into();
        let uid: Arc<str> = self.metadata.uid.as_str().into();
        let lacks_sidecar = self.lacks_sidecar(&uid).map(Arc::new);
        let misspelt = self.misspelt(&uid).map(Arc::new);
        Some(Aside::Pod(Known { uid, account, is_alive: self.is_alive(), lacks_sidecar, misspelt }))
    }

    fn reading(self, api: &Api) -> Reading {
        let Some(workload) = self.workload() else { return Reading::default() };
        let of = ClusterObject {
            name: self.key().of(api.kind),
            uid: self.metadata.uid.as_str().into(),
            resource_version: self.metadata.resource_version.as_str().into(),
            manager: Arc::default(),
            generation: 0,
        };
        Reading::of_cluster(&workload, of)
    }
}
