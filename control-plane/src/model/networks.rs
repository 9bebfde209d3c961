//! Where something that has a sidecar may be, as networks: a sidecar that cannot ask what is at an address of theirs does
//! not call it in plaintext.
//!
//! Guarantees: every address of a workload with a sidecar is in one of them, and every address of a service with a selector.
//! They are few and change seldom: not with every pod, and not with most services.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    ops::Bound,
};

use ipnet::IpNet;

use super::{Object, Spec};

/// How wide the network is that the address of a pod stands for, of IPv4 and of IPv6: that of the pods of one node, as it is
/// dealt out most often.
const OF_PODS: [u8; 2] = [24, 64];
/// The same of what somebody has described: that address alone. Whoever may write a workload in one namespace must not decide
/// what those of others call.
const OF_OTHERS: [u8; 2] = [32, 128];
/// So many networks are told at most. Where there are more, they are told as fewer and wider ones.
const MAX_NETWORKS: usize = 1_000;
/// How far the addresses of services may be apart that count as of one range, of IPv4 and of IPv6. Nothing else is in their
/// range, which is as wide as these addresses tell.
const OF_SERVICES: [u8; 2] = [16, 108];

/// The networks of a mesh.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    /// How many addresses of workloads are in each.
    workloads: BTreeMap<IpNet, usize>,
    /// How many services have each address.
    services: BTreeMap<IpAddr, usize>,
}

impl Networks {
    /// All of them, as few as can be, in order.
    pub fn all(&self) -> Vec<IpNet> {
        let mut networks: Vec<IpNet> = self.workloads.keys().copied().collect();
        let mut after = Bound::Included(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        while let Some((first, _)) = self.services.range((after, Bound::Unbounded)).next() {
            let end = wide(*first, OF_SERVICES).broadcast();
            let last = self.services.range(first..=&end).next_back().map_or(first, |(last, _)| last);
            networks.push(around(*first, *last));
            after = Bound::Excluded(end);
        }
        let mut networks = IpNet::aggregate(&networks);
        while networks.len() > MAX_NETWORKS {
            let wider: Vec<IpNet> = networks.iter().map(|one| one.supernet().unwrap_or(*one)).collect();
            networks = IpNet::aggregate(&wider);
        }
        networks
    }

    /// Adds where `object` may be, or takes it away.
    pub(super) fn index(&mut self, object: &Object, add: bool) {
        match &object.spec {
            Spec::Workload(spec) if spec.sidecar => {
                let width = if spec.pod { OF_PODS } else { OF_OTHERS };
                spec.ips().for_each(|ip| count(&mut self.workloads, wide(ip, width), add));
            }
            Spec::Service(spec) if !spec.selector.is_empty() => {
                spec.addresses().into_iter().for_each(|ip| count(&mut self.services, ip, add));
            }
            _ => {}
        }
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K, add: bool) {
    match (counts.get_mut(&key), add) {
        (Some(count), true) => *count += 1,
        (Some(count), false) if *count > 1 => *count -= 1,
        (None, true) => drop(counts.insert(key, 1)),
        (_, false) => drop(counts.remove(&key)),
    }
}

/// The network of that width around an address.
fn wide(address: IpAddr, [v4, v6]: [u8; 2]) -> IpNet {
    IpNet::new_assert(address, if address.is_ipv4() { v4 } else { v6 }).trunc()
}

/// The smallest network with both addresses, which are of one version.
fn around(first: IpAddr, last: IpAddr) -> IpNet {
    let common = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        _ => 0,
    };
    IpNet::new_assert(first, u8::try_from(common).unwrap_or(0)).trunc()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Model, ObjectId, read, service, workload};

    fn put(model: &mut Model, kind: &'static selvedge_policies::kind::Kind, name: &str, spec: &Value) -> ObjectId {
        let id = ObjectId::new(kind.name, "shop", name);
        let spec = read(kind, "shop", spec).unwrap();
        let object = Object { id: id.clone(), generation: 1, labels: Default::default(), created: None, spec };
        model.put(Arc::new(object));
        id
    }

    fn all(model: &Model) -> Vec<String> {
        model.networks().all().iter().map(ToString::to_string).collect()
    }

    fn pod(addresses: &[&str], sidecar: bool) -> Value {
        let (address, others) = (addresses[0], &addresses[1..]);
        json!({ "serviceAccount": "web", "address": address, "addresses": others, "sidecar": sidecar, "pod": true })
    }

    #[test]
    fn whoever_describes_a_workload_says_nothing_of_the_addresses_beside_it() {
        let mut model = Model::default();
        put(&mut model, &workload::KIND, "vm", &json!({ "serviceAccount": "vm", "address": "203.0.113.10" }));
        assert_eq!(all(&model), ["203.0.113.10/32"]);
        for one in 0..3_000 {
            let address = format!("10.{}.{}.1", one / 100, 2 * (one % 100));
            put(
                &mut model,
                &workload::KIND,
                &format!("vm-{one}"),
                &json!({ "serviceAccount": "vm", "address": address }),
            );
        }
        let networks = model.networks().all();
        assert!(networks.len() <= MAX_NETWORKS, "{}", networks.len());
        let inside =
            |address: &str| networks.iter().any(|network| network.contains(&address.parse::<IpAddr>().unwrap()));
        assert!(inside("203.0.113.10") && inside("10.29.198.1") && !inside("192.0.2.1"));
    }

    #[test]
    fn workloads_with_a_sidecar_stand_for_the_network_around_them() {
        let mut model = Model::default();
        let first = put(&mut model, &workload::KIND, "a", &pod(&["10.244.2.7", "fd00:1:2:3::7"], true));
        put(&mut model, &workload::KIND, "b", &pod(&["10.244.2.8"], true));
        put(&mut model, &workload::KIND, "bare", &pod(&["10.244.9.1"], false));
        assert_eq!(all(&model), ["10.244.2.0/24", "fd00:1:2:3::/64"]);
        let third = put(&mut model, &workload::KIND, "c", &pod(&["10.244.3.1"], true));
        assert_eq!(all(&model), ["10.244.2.0/23", "fd00:1:2:3::/64"], "neighbours are one");
        model.remove(&first);
        model.remove(&third);
        assert_eq!(all(&model), ["10.244.2.0/24"], "another one is still there");
    }

    #[test]
    fn services_stand_for_the_range_that_they_are_in() {
        let mut model = Model::default();
        let service = |model: &mut Model, name: &str, addresses: &[&str], app: &str| {
            let selector = if app.is_empty() { json!({}) } else { json!({ "app": app }) };
            let spec = json!({ "clusterIPs": addresses, "selector": selector, "ports": [{ "port": 80 }] });
            put(model, &service::KIND, name, &spec)
        };
        service(&mut model, "kubernetes", &["10.96.0.1"], "");
        assert!(all(&model).is_empty(), "a service without a selector has no sidecar before it");
        service(&mut model, "a", &["10.96.0.9", "fd00:96::9"], "a");
        assert_eq!(all(&model), ["10.96.0.9/32", "fd00:96::9/128"]);
        service(&mut model, "b", &["10.96.3.1", "fd00:96::1:1"], "b");
        let far = service(&mut model, "c", &["172.20.1.1"], "c");
        assert_eq!(all(&model), ["10.96.0.0/22", "172.20.1.1/32", "fd00:96::/111"]);
        service(&mut model, "between", &["10.96.2.200"], "b");
        model.remove(&far);
        service(&mut model, "headless", &["None"], "b");
        assert_eq!(all(&model), ["10.96.0.0/22", "fd00:96::/111"]);
    }
}
