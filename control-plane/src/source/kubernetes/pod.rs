//! Pods: of each a `Workload`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_inject::{
    pod::Namespace,
    switch::{self, ENABLED, LABEL},
};
use selvedge_policies::kind::SELVEDGE;
use serde::Deserialize;
use serde_json::{Value, json};

use super::pruned::{Api, Aside, Key, Known, Lacking, Pruned, Version};
use crate::source::{ClusterObject, Reading};

/// The name of the sidecar's container.
pub const SIDECAR: &str = "selvedge-proxy";

/// The name of the port where the sidecar serves its metrics, and its number where no port has that name.
const METRICS: &str = "mesh-metrics";
const METRICS_PORT: u16 = 15020;

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

/// Those that the mesh looks at.
#[derive(Clone, Debug, Default, Deserialize)]
struct Annotations {
    #[serde(default, rename = "config.selvedge.dev/exclude-inbound-ports")]
    exclude_inbound_ports: String,
    #[serde(default, rename = "kubernetes.io/config.mirror")]
    mirror: String,
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
                "annotations": { "kubernetes.io/config.mirror": self.metadata.annotations.mirror },
            },
            "spec": {
                "hostNetwork": host_network, "os": { "name": os.name }, "containers": names,
                "nodeSelector": { "kubernetes.io/os": node_selector.name },
            },
        });
        let Metadata { namespace, name, .. } = &self.metadata;
        let mut around = Namespace { name: namespace.clone(), labels: serde_json::Map::new() };
        let asks = switch::decide(&pod, &around) == Ok(true);
        around.labels.insert(LABEL.to_owned(), ENABLED.into());
        let may_lack = asks || switch::decide(&pod, &around) == Ok(true);
        may_lack.then(|| Lacking { namespace: namespace.clone(), name: name.clone(), uid: Arc::clone(uid), asks })
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
        let excluded = self.metadata.annotations.exclude_inbound_ports.split(',');
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
        Some(Aside::Pod(Known { uid, account, is_alive: self.is_alive(), lacks_sidecar }))
    }

    fn reading(self, api: &Api) -> Reading {
        let Some(workload) = self.workload() else { return Reading::default() };
        let of = ClusterObject {
            name: self.key().of(api.kind),
            uid: self.metadata.uid.as_str().into(),
            resource_version: self.metadata.resource_version.as_str().into(),
            generation: 0,
        };
        Reading::of_cluster(&workload, of)
    }
}
