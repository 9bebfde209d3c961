//! `Node`: a machine of a cluster, as far as the pods on it depend on it (Kubernetes core v1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use selvedge_policies::{
    cidr::Cidr,
    kind::{self, Kind},
};
use serde::{Deserialize, Serialize};

use super::Labels;

/// What the kind `Node` says of itself.
pub const KIND: Kind = Kind {
    name: "Node",
    api_version: "v1",
    summary: "A machine of a cluster: its zone, and the networks of its pods.",
    schema: || schemars::schema_for!(NodeSpec),
    check: |document| kind::check::<NodeSpec>(document, |_| Vec::new()),
    close: kind::as_written,
};

/// The label that names the zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// The fields of `spec` of a `Node` that mean something in the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeSpec {
    /// The networks that its pods have their addresses from, one for each IP version.
    #[serde(default, rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<Cidr>,
}

impl NodeSpec {
    /// The zone that a node with these labels is in.
    pub fn zone(labels: &Labels) -> Option<&str> {
        labels.get(ZONE).map(String::as_str)
    }

    /// The first address of each of its pod networks, which is that of the node where a bridge leads to them.
    pub fn first_addresses(&self) -> Vec<IpAddr> {
        self.pod_cidrs.iter().filter_map(first).collect()
    }
}

/// The address after that of the network itself; `None` where the network has none.
fn first(network: &Cidr) -> Option<IpAddr> {
    let first = match network.network().0 {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).checked_add(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).checked_add(1)?).into(),
    };
    network.contains(first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_network_has_its_first_address_unless_it_has_no_other_than_its_own() {
        let firsts = |networks: &[&str]| -> Vec<String> {
            let pod_cidrs = networks.iter().map(|network| network.parse().unwrap()).collect();
            NodeSpec { pod_cidrs }.first_addresses().iter().map(IpAddr::to_string).collect()
        };
        assert_eq!(firsts(&["10.244.3.0/24", "fd00:10:244:3::/64"]), ["10.244.3.1", "fd00:10:244:3::1"]);
        assert_eq!(firsts(&["10.244.3.7/24", "10.0.0.0/31"]), ["10.244.3.1", "10.0.0.1"]);
        assert_eq!(firsts(&["10.0.0.4/32", "255.255.255.255/32", "::1/128"]), [""; 0]);
    }
}
