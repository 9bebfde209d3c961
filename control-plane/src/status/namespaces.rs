//! Which namespaces can be made `STRICT`, and for the others who stands in the way.
//!
//! That a pod has a sidecar the pod says. Who calls in plaintext the sidecars say that are called, for as long as they are
//! connected: a namespace of which one is not connected is not known well enough.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use selvedge_policies::names::{self, WorkloadName};
use serde::Serialize;

use super::SidecarReport;
use crate::model::pods::{Bare, Pods};

/// How many pods and callers are named.
const MOST_NAMED: usize = 20;

/// A namespace as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NamespaceReport {
    /// The namespace, as its `metadata.name` calls it.
    pub(crate) namespace: String,
    /// True when every pod has a sidecar, all of these are connected, and none of them is called in plaintext.
    pub(crate) can_be_strict: bool,
    /// How many pods it has that have an address.
    pub(crate) pods: usize,
    /// How many of them have no sidecar.
    pub(crate) without_sidecar: usize,
    /// The first of those, by name.
    pub(crate) bare: Vec<String>,
    /// How many of its sidecars are connected.
    pub(crate) sidecars: usize,
    /// Who called its workloads in plaintext lately: pods as `namespace/name (address)`, others by address.
    pub(crate) plaintext_callers: Vec<String>,
    /// Where policies are not enforced because the application is called past its sidecar, as `name port`.
    pub(crate) not_enforced: Vec<String>,
}

/// Every namespace that has pods, by name.
pub(crate) fn namespaces(pods: &Pods, sidecars: &[SidecarReport]) -> Vec<NamespaceReport> {
    let mut connected: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut callers: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
    let mut past: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for sidecar in sidecars {
        let Some((namespace, name)) = names::parts(&sidecar.workload) else { continue };
        connected.entry(namespace).or_default().insert(name);
        callers.entry(namespace).or_default().extend(&sidecar.plaintext_callers);
        let open = sidecar.ports.iter().filter(|port| port.policies == "not enforced");
        past.entry(namespace).or_default().extend(open.map(|port| format!("{name} {}", port.port)));
    }
    let mut bare: Vec<Bare<'_>> = pods.bare().collect();
    bare.sort_unstable();
    let report = |(namespace, counts): (&str, crate::model::pods::Counts)| {
        let sidecars = connected.get(namespace).map_or(0, BTreeSet::len);
        let called_by = callers.get(namespace).into_iter().flatten();
        let plaintext_callers: Vec<String> = called_by.take(MOST_NAMED).map(|caller| named(*caller, &bare)).collect();
        let without = bare.iter().filter(|pod| pod.namespace == namespace);
        NamespaceReport {
            namespace: namespace.to_owned(),
            can_be_strict: counts.bare == 0 && sidecars >= counts.meshed && plaintext_callers.is_empty(),
            pods: counts.meshed + counts.bare,
            without_sidecar: counts.bare,
            bare: without.take(MOST_NAMED).map(|pod| pod.name.to_owned()).collect(),
            sidecars,
            plaintext_callers,
            not_enforced: past.get(namespace).into_iter().flatten().take(MOST_NAMED).cloned().collect(),
        }
    };
    pods.namespaces().into_iter().map(report).collect()
}

/// A caller in words: the pod that has the address to itself, or the address.
fn named(caller: IpAddr, bare: &[Bare<'_>]) -> String {
    let mut there = bare.iter().filter(|pod| pod.address == caller);
    match (there.next(), there.next()) {
        (Some(pod), None) => format!("{} ({caller})", WorkloadName::new(pod.namespace, pod.name)),
        (Some(_), Some(_)) => format!("{caller}, which several pods have, as those of a node"),
        (None, _) => caller.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Model, Object, ObjectId, Spec};

    fn model(pods: &[(&str, &str, bool)]) -> Model {
        let mut model = Model::default();
        for (path, address, sidecar) in pods {
            let (namespace, name) = names::parts(path).unwrap();
            let spec =
                serde_json::json!({ "serviceAccount": "a", "address": address, "sidecar": sidecar, "pod": true });
            let object = Object {
                id: ObjectId::new("Workload", namespace, name),
                generation: 1,
                labels: BTreeMap::new(),
                created: None,
                spec: Spec::Workload(serde_json::from_value(spec).unwrap()),
            };
            model.put(Arc::new(object));
        }
        model
    }

    fn sidecar(workload: &str, callers: &[&str]) -> SidecarReport {
        SidecarReport {
            workload: workload.to_owned(),
            identity: String::new(),
            address: ([127, 0, 0, 1], 1).into(),
            connected_since: 0,
            acknowledged: BTreeMap::new(),
            refused: Vec::new(),
            cannot_enforce: BTreeMap::new(),
            plaintext_callers: callers.iter().map(|caller| caller.parse().unwrap()).collect(),
            ports: Vec::new(),
            problem: None,
        }
    }

    #[test]
    fn a_namespace_can_be_strict_when_every_pod_has_a_connected_sidecar_that_nobody_calls_in_plaintext() {
        let model = model(&[
            ("shop/web-1", "10.0.0.1", true),
            ("shop/api-1", "10.0.0.2", true),
            ("batch/job-1", "10.0.0.3", false),
            ("batch/api-1", "10.0.0.4", true),
            ("kube-system/agent-1", "10.9.0.1", false),
            ("kube-system/proxy-1", "10.9.0.1", false),
        ]);
        let strict = |sidecars: &[SidecarReport]| {
            let all = namespaces(model.pods(), sidecars);
            let of = |name: &str| all.iter().find(|found| found.namespace == name).unwrap().clone();
            (of("shop"), of("batch"))
        };
        let (shop, batch) = strict(&[sidecar("shop/web-1", &[]), sidecar("shop/api-1", &[])]);
        assert!(shop.can_be_strict && shop.pods == 2 && shop.without_sidecar == 0);
        assert!(!batch.can_be_strict && batch.pods == 2 && batch.bare == ["job-1"]);
        assert!(!strict(&[sidecar("shop/web-1", &[])]).0.can_be_strict, "of the other nobody knows who calls it");
        let callers = ["10.0.0.3", "10.9.0.1", "192.0.2.7"];
        let (shop, _) = strict(&[sidecar("shop/web-1", &callers), sidecar("shop/api-1", &callers[..1])]);
        let named = ["batch/job-1 (10.0.0.3)", "10.9.0.1, which several pods have, as those of a node", "192.0.2.7"];
        assert_eq!((shop.can_be_strict, shop.plaintext_callers), (false, named.map(str::to_owned).to_vec()));
    }

    #[test]
    fn where_policies_are_not_enforced_is_named() {
        let model = model(&[("shop/web-1", "10.0.0.1", true), ("shop/api-1", "10.0.0.2", true)]);
        let port = |port, policies: &str| crate::status::PortReport { port, policies: policies.into(), why: "".into() };
        let mut web = sidecar("shop/web-1", &[]);
        web.ports = vec![port(80, "not enforced"), port(81, "enforced"), port(82, "unknown")];
        let shop = namespaces(model.pods(), &[web, sidecar("shop/api-1", &[])]).remove(0);
        assert_eq!(shop.not_enforced, ["web-1 80"]);
    }

    #[test]
    fn a_namespace_without_pods_is_none() {
        let mut model = model(&[("shop/web-1", "10.0.0.1", true), ("shop/old", "10.0.0.2", false)]);
        for name in ["web-1", "old"] {
            assert_eq!(namespaces(model.pods(), &[]).len(), 1);
            model.remove(&ObjectId::new("Workload", "shop", name));
        }
        assert_eq!((namespaces(model.pods(), &[]), model.pods().bare().count()), (Vec::new(), 0));
    }
}
