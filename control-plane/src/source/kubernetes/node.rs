//! Nodes: of each its zone and the networks of its pods, which is very little of what a cluster says of a node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::pruned::{Api, Key, Pruned, Version};
use crate::{
    model::node::{self, ZONE},
    source::{ClusterObject, Reading},
};

/// What the mesh needs to know of a node.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Node {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    uid: String,
    resource_version: Version,
    #[serde(default)]
    labels: Labels,
}

/// Those that the mesh looks at.
#[derive(Clone, Debug, Default, Deserialize)]
struct Labels {
    #[serde(rename = "topology.kubernetes.io/zone")]
    zone: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Spec {
    #[serde(default, rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

impl Pruned for Node {
    fn key(&self) -> Key {
        Key::new("", &self.metadata.name)
    }

    fn version(&self) -> Version {
        self.metadata.resource_version.clone()
    }

    fn reading(self, api: &Api) -> Reading {
        let Metadata { name, uid, resource_version, labels } = &self.metadata;
        let labels: BTreeMap<&str, &String> = labels.zone.iter().map(|zone| (ZONE, zone)).collect();
        let document: Value = json!({
            "apiVersion": node::KIND.api_version, "kind": node::KIND.name,
            "metadata": { "name": name, "labels": labels },
            "spec": self.spec,
        });
        let of = ClusterObject {
            name: self.key().of(api.kind),
            uid: uid.as_str().into(),
            resource_version: resource_version.as_str().into(),
            manager: "".into(),
            generation: 0,
        };
        Reading::of_cluster(&document, of)
    }
}
