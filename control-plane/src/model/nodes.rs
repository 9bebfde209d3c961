//! What is known of the nodes of a cluster, and what is on each.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::{Object, ObjectId, Spec, claims::set, node::NodeSpec};

/// The nodes, by name.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    known: HashMap<Arc<str>, Known>,
    /// What says that it is on the node of that name, also where the node itself is not known.
    there: HashMap<String, BTreeSet<ObjectId>>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    zone: String,
    first_addresses: Vec<IpAddr>,
}

impl Nodes {
    /// The zone of the node of that name; empty where it is not known.
    pub fn zone(&self, node: Option<&str>) -> &str {
        self.get(node).map_or("", |known| &known.zone)
    }

    /// The first address of each pod network of the node of that name.
    pub fn first_addresses(&self, node: Option<&str>) -> &[IpAddr] {
        self.get(node).map_or(&[], |known| &known.first_addresses)
    }

    /// The workloads on the node of that name, and the slices with an endpoint there of which no more is known.
    pub fn there(&self, node: &str) -> impl Iterator<Item = &ObjectId> {
        self.there.get(node).into_iter().flatten()
    }

    fn get(&self, node: Option<&str>) -> Option<&Known> {
        self.known.get(node?)
    }

    /// Adds what `object` says of a node, or that it is on one, or takes it away.
    pub(super) fn index(&mut self, object: &Object, add: bool) {
        match &object.spec {
            Spec::Node(spec) if add => {
                let zone = NodeSpec::zone(&object.labels).unwrap_or_default().to_owned();
                let known = Known { zone, first_addresses: spec.first_addresses() };
                self.known.insert(object.id.name.clone(), known);
            }
            Spec::Node(_) => drop(self.known.remove(&object.id.name)),
            Spec::Workload(spec) => {
                if let Some(node) = &spec.node {
                    set(&mut self.there, node.clone(), object.id.clone(), add);
                }
            }
            Spec::EndpointSlice(spec) => {
                let bare = spec.endpoints.iter().filter(|endpoint| endpoint.pod().is_none());
                let nodes: BTreeSet<&String> = bare.filter_map(|endpoint| endpoint.node_name.as_ref()).collect();
                for node in nodes {
                    set(&mut self.there, node.clone(), object.id.clone(), add);
                }
            }
            _ => {}
        }
    }
}
