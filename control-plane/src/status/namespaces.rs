//! Which namespaces can be made `STRICT`, and for the others why not.
//!
//! That a pod has a sidecar, or is to have none, the pod says. Who calls in plaintext the sidecars say that are called. That
//! nobody does is known only once every sidecar of the namespace has been looking for long enough without a gap.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use selvedge_policies::names::{self, WorkloadName};
use serde::Serialize;

use super::{
    observation::Observation,
    plaintext::{Callers, LATELY},
};
use crate::model::pods::{Pod, Pods, Standing};

/// How many pods and callers are named.
const MOST_NAMED: usize = 20;
/// How many seconds before a pod its sidecar may seem to have connected, for clocks differ. One that did so earlier stands
/// beside a pod of the same name that was there before.
const SKEW: u64 = 60;

/// A namespace as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NamespaceReport {
    /// The namespace, as its `metadata.name` calls it.
    pub(crate) namespace: String,
    /// True when nothing speaks against it: refusing plaintext would refuse nobody who called lately.
    pub(crate) can_be_strict: bool,
    /// What speaks against it, in words.
    pub(crate) because: Vec<String>,
    /// How many pods it has that have an address.
    pub(crate) pods: usize,
    /// How many of them have no sidecar and should have one.
    pub(crate) without_sidecar: usize,
    /// The first of those, by name.
    pub(crate) bare: Vec<String>,
    /// The first of those that are to have none, by name, and why. They are called in plaintext whatever holds for the others.
    pub(crate) left_out: BTreeMap<String, &'static str>,
    /// How many pods there are whose sidecar is connected.
    pub(crate) sidecars: usize,
    /// The first of those whose sidecar is not, by name.
    pub(crate) not_connected: Vec<String>,
    /// For how many seconds all of its sidecars have been looking, at most those in which a caller is remembered.
    pub(crate) observed_seconds: u64,
    /// Who called its workloads in plaintext lately: pods as `namespace/name (address)`, others by address.
    pub(crate) plaintext_callers: Vec<String>,
    /// How many more there were, at least.
    pub(crate) plaintext_callers_more: usize,
    /// Where policies are not enforced because the application is called past its sidecar, as `name port`.
    pub(crate) not_enforced: Vec<String>,
}

/// The sidecar of a workload, connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    /// Since when, in seconds since the Unix epoch.
    pub(super) connected: u64,
    /// Whether it says who calls in plaintext, which sidecars of earlier releases do not.
    pub(super) tells: bool,
}

/// What sidecars have seen.
pub(super) struct Seeing<'a> {
    /// Those that are connected, by the name of their workload.
    pub(super) beside: BTreeMap<String, Beside>,
    /// Who called in plaintext lately, by namespace.
    pub(super) callers: BTreeMap<String, Callers>,
    /// Where policies are not enforced, by namespace, as `name port`.
    pub(super) past: BTreeMap<String, BTreeSet<String>>,
    /// Since when all sidecars of a namespace are looking.
    pub(super) observation: &'a Observation,
}

/// The pods of one namespace, by how they stand. All lists are in order of names.
#[derive(Default)]
struct Sorted<'a> {
    pods: usize,
    looking: usize,
    bare: BTreeSet<&'a str>,
    left_out: BTreeMap<&'a str, &'static str>,
    not_connected: BTreeSet<&'a str>,
    /// Those whose sidecar is connected and does not say who calls.
    silent: BTreeSet<&'a str>,
}

/// The namespaces in which every pod with a sidecar, of which there are some, has it connected and looking.
pub(super) fn whole(pods: &Pods, beside: &BTreeMap<String, Beside>) -> BTreeSet<String> {
    let is_whole = |of: &Sorted<'_>| of.looking > 0 && of.not_connected.is_empty() && of.silent.is_empty();
    let whole = sorted(pods, beside).into_iter().filter(|(_, of)| is_whole(of));
    whole.map(|(namespace, _)| namespace.to_owned()).collect()
}

/// Every namespace that has pods, by name, as it is at the second `unix` of Unix time, which is `now` for the observation.
pub(super) fn namespaces(pods: &Pods, seeing: &Seeing<'_>, unix: u64, now: Duration) -> Vec<NamespaceReport> {
    let without = pods.iter().filter(|(_, _, pod)| pod.standing != Standing::Meshed);
    let mut addresses: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for (namespace, name, pod) in without {
        addresses.entry(pod.address).or_default().push(WorkloadName::new(namespace, name).to_string());
    }
    let nobody = Callers::default();
    let report = |(namespace, of): (&str, Sorted<'_>)| {
        let callers = seeing.callers.get(namespace).unwrap_or(&nobody);
        let known: Vec<IpAddr> = callers.lately(unix).collect();
        let observed_seconds = seeing.observation.of(namespace, now).as_secs().min(LATELY);
        let more = callers.lately_more(unix) + known.len().saturating_sub(MOST_NAMED);
        let plaintext_callers: Vec<String> =
            known.into_iter().take(MOST_NAMED).map(|caller| named(caller, &addresses)).collect();
        let because = of.against(plaintext_callers.len() + more, observed_seconds);
        NamespaceReport {
            namespace: namespace.to_owned(),
            can_be_strict: because.is_empty(),
            because,
            pods: of.pods,
            without_sidecar: of.bare.len(),
            bare: first(&of.bare),
            left_out: of.left_out.iter().take(MOST_NAMED).map(|(name, why)| ((*name).to_owned(), *why)).collect(),
            sidecars: of.looking + of.silent.len(),
            not_connected: first(&of.not_connected),
            observed_seconds,
            plaintext_callers,
            plaintext_callers_more: more,
            not_enforced: seeing.past.get(namespace).into_iter().flatten().take(MOST_NAMED).cloned().collect(),
        }
    };
    sorted(pods, &seeing.beside).into_iter().map(report).collect()
}

fn sorted<'a>(pods: &'a Pods, beside: &BTreeMap<String, Beside>) -> BTreeMap<&'a str, Sorted<'a>> {
    let mut all: BTreeMap<&str, Sorted<'_>> = BTreeMap::new();
    for (namespace, name, pod) in pods.iter() {
        all.entry(namespace).or_default().take(name, pod, beside.get(&names::object(namespace, name)));
    }
    all
}

impl<'a> Sorted<'a> {
    fn take(&mut self, name: &'a str, pod: Pod, beside: Option<&Beside>) {
        self.pods += 1;
        let is_its_own = |beside: &&Beside| pod.created.is_none_or(|created| created <= beside.connected + SKEW);
        match (pod.standing, beside.filter(is_its_own)) {
            (Standing::Meshed, Some(Beside { tells: true, .. })) => self.looking += 1,
            (Standing::Meshed, Some(_)) => drop(self.silent.insert(name)),
            (Standing::Meshed, None) => drop(self.not_connected.insert(name)),
            (Standing::Bare, _) => drop(self.bare.insert(name)),
            (standing @ (Standing::HostNetwork | Standing::Disabled), _) => {
                self.left_out.insert(name, standing.why_left_out().unwrap_or_default());
            }
        }
    }

    /// What speaks against refusing plaintext, with so many who call in plaintext.
    fn against(&self, callers: usize, observed: u64) -> Vec<String> {
        let mut because = Vec::new();
        if self.looking + self.silent.len() + self.not_connected.len() == 0 {
            because.push("none of its pods has a sidecar".to_owned());
        }
        if !self.bare.is_empty() {
            because.push(format!(
                "{} without a sidecar: {}; begun anew they get one where their namespace is enabled, and the label \
                 selvedge.dev/inject: disabled says that they are to have none",
                pods(self.bare.len()),
                listed(&self.bare)
            ));
        }
        if !self.not_connected.is_empty() {
            let count = pods(self.not_connected.len());
            because.push(format!("{count} whose sidecar is not connected here: {}", listed(&self.not_connected)));
        }
        if !self.silent.is_empty() {
            because.push(format!(
                "{} whose sidecar is of a release that does not say who calls in plaintext: {}",
                pods(self.silent.len()),
                listed(&self.silent)
            ));
        }
        if callers > 0 {
            because.push(format!("{callers} called in plaintext in the last {LATELY} seconds (plaintextCallers)"));
        }
        if observed < LATELY {
            because
                .push(format!("its sidecars have all been looking for {observed} seconds, and {LATELY} are asked for"));
        }
        because
    }
}

fn pods(count: usize) -> String {
    if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") }
}

fn first(names: &BTreeSet<&str>) -> Vec<String> {
    names.iter().take(MOST_NAMED).map(|name| (*name).to_owned()).collect()
}

/// A few of the names, and how many there are beside them.
fn listed(names: &BTreeSet<&str>) -> String {
    const FEW: usize = 3;
    let few: Vec<&str> = names.iter().take(FEW).copied().collect();
    match names.len().saturating_sub(FEW) {
        0 => few.join(", "),
        more => format!("{} and {more} more", few.join(", ")),
    }
}

/// A caller in words: the pod that has the address to itself, or the address.
fn named(caller: IpAddr, without_sidecar: &BTreeMap<IpAddr, Vec<String>>) -> String {
    match without_sidecar.get(&caller).map(Vec::as_slice) {
        Some([pod]) => format!("{pod} ({caller})"),
        Some(_) => format!("{caller}, which several pods have, as those of a node"),
        None => caller.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use selvedge_xds::plaintext::Seen;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Model, Object, ObjectId, Spec};

    /// The second of Unix time in which everything here is.
    const NOW: u64 = 10_000;

    fn pod(path: &str, address: &str, more: Value) -> Object {
        let (namespace, name) = names::parts(path).unwrap();
        let mut spec = json!({ "serviceAccount": "a", "address": address, "pod": true });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Object {
            id: ObjectId::new("Workload", namespace, name),
            generation: 1,
            labels: BTreeMap::new(),
            created: Some(1_000),
            spec: Spec::Workload(serde_json::from_value(spec).unwrap()),
        }
    }

    fn model(pods: &[(&str, &str, bool)]) -> Model {
        let mut model = Model::default();
        for (path, address, sidecar) in pods {
            model.put(Arc::new(pod(path, address, json!({ "sidecar": sidecar }))));
        }
        model
    }

    /// Sidecars that have been connected and looking for as long as anybody asks.
    fn beside(workloads: &[&str]) -> BTreeMap<String, Beside> {
        workloads.iter().map(|name| ((*name).to_owned(), Beside { connected: 2_000, tells: true })).collect()
    }

    fn callers(namespace: &str, addresses: &[&str]) -> BTreeMap<String, Callers> {
        let mut callers = Callers::default();
        let named = addresses.iter().map(|address| address.parse().unwrap()).collect();
        callers.add(Seen { callers: named, more: 0 }, NOW);
        [(namespace.to_owned(), callers)].into()
    }

    /// The namespace `shop` after these sidecars have been connected for so long.
    fn shop_after(
        model: &Model,
        beside: &BTreeMap<String, Beside>,
        callers: BTreeMap<String, Callers>,
        seconds: u64,
    ) -> NamespaceReport {
        let mut observation = Observation::default();
        for second in (0..=seconds).step_by(5) {
            observation.note(whole(model.pods(), beside), Duration::from_secs(second));
        }
        let seeing = Seeing { beside: beside.clone(), callers, past: BTreeMap::new(), observation: &observation };
        let all = namespaces(model.pods(), &seeing, NOW, Duration::from_secs(seconds));
        all.into_iter().find(|found| found.namespace == "shop").unwrap()
    }

    /// What speaks against `shop`.
    fn against(model: &Model, beside: &BTreeMap<String, Beside>, callers: BTreeMap<String, Callers>) -> String {
        let shop = shop_after(model, beside, callers, LATELY);
        assert_eq!(shop.can_be_strict, shop.because.is_empty());
        shop.because.join("; ")
    }

    #[test]
    fn a_namespace_can_be_strict_when_every_sidecar_has_looked_for_long_and_seen_nobody() {
        let model = model(&[("shop/web-1", "10.0.0.1", true), ("shop/api-1", "10.0.0.2", true)]);
        let both = beside(&["shop/web-1", "shop/api-1"]);
        let shop = shop_after(&model, &both, BTreeMap::new(), LATELY);
        assert!(shop.can_be_strict && shop.because.is_empty(), "{shop:?}");
        assert_eq!((shop.pods, shop.sidecars, shop.observed_seconds), (2, 2, LATELY));

        let early = shop_after(&model, &both, BTreeMap::new(), LATELY - 1);
        assert_eq!((early.can_be_strict, early.observed_seconds), (false, LATELY - 1));
        assert_eq!(early.because, ["its sidecars have all been looking for 599 seconds, and 600 are asked for"]);
    }

    #[test]
    fn sidecars_count_by_the_pods_they_stand_beside() {
        let model = model(&[("shop/web-1", "10.0.0.1", true), ("shop/api-1", "10.0.0.2", true)]);
        let others = beside(&["shop/web-1", "shop/vm", "shop/web-0", "batch/api-1"]);
        let why = against(&model, &others, BTreeMap::new());
        assert!(why.contains("1 pod whose sidecar is not connected here: api-1"), "{why}");
        let shop = shop_after(&model, &others, BTreeMap::new(), LATELY);
        assert_eq!((shop.sidecars, shop.not_connected, shop.observed_seconds), (1, vec!["api-1".to_owned()], 0));

        let mut earlier = beside(&["shop/web-1", "shop/api-1"]);
        earlier.insert("shop/api-1".to_owned(), Beside { connected: 900, tells: true });
        let why = against(&model, &earlier, BTreeMap::new());
        assert!(why.contains("not connected here: api-1"), "beside the pod that had the name before: {why}");
        earlier.insert("shop/api-1".to_owned(), Beside { connected: 2_000, tells: false });
        let why = against(&model, &earlier, BTreeMap::new());
        assert!(why.contains("1 pod whose sidecar is of a release that does not say"), "{why}");
    }

    #[test]
    fn pods_that_are_to_have_no_sidecar_are_named_and_stand_in_nobodys_way() {
        let mut model = model(&[("shop/web-1", "10.0.0.1", true)]);
        model.put(Arc::new(pod("shop/agent", "10.9.0.1", json!({ "sidecar": false, "hostNetwork": true }))));
        let mut cron = pod("shop/cron", "10.0.0.9", json!({ "sidecar": false }));
        cron.labels.insert("selvedge.dev/inject".into(), "disabled".into());
        model.put(Arc::new(cron));
        let web = beside(&["shop/web-1"]);
        let shop = shop_after(&model, &web, BTreeMap::new(), LATELY);
        assert!(shop.can_be_strict, "{shop:?}");
        assert_eq!((shop.pods, shop.without_sidecar), (3, 0));
        assert_eq!(shop.left_out.keys().collect::<Vec<_>>(), ["agent", "cron"]);
        let why = against(&model, &web, callers("shop", &["10.0.0.9"]));
        assert!(why.contains("1 called in plaintext"), "what it calls counts as anybody's: {why}");

        model.put(Arc::new(pod("shop/old", "10.0.0.8", json!({ "sidecar": false }))));
        let why = against(&model, &web, BTreeMap::new());
        assert!(why.starts_with("1 pod without a sidecar: old; "), "{why}");
    }

    #[test]
    fn callers_are_named_by_the_pod_they_are_and_those_without_room_are_counted() {
        let model = model(&[
            ("shop/web-1", "10.0.0.1", true),
            ("batch/job-1", "10.0.0.3", false),
            ("kube-system/agent-1", "10.9.0.1", false),
            ("kube-system/proxy-1", "10.9.0.1", false),
        ]);
        let web = beside(&["shop/web-1"]);
        let shop = shop_after(&model, &web, callers("shop", &["10.0.0.3", "10.9.0.1", "192.0.2.7"]), LATELY);
        let named = ["batch/job-1 (10.0.0.3)", "10.9.0.1, which several pods have, as those of a node", "192.0.2.7"];
        assert_eq!((shop.can_be_strict, shop.plaintext_callers), (false, named.map(str::to_owned).to_vec()));

        let many: Vec<String> = (0..25).map(|n| format!("192.0.2.{n}")).collect();
        let mut many = callers("shop", &many.iter().map(String::as_str).collect::<Vec<_>>());
        many.get_mut("shop").unwrap().add(Seen { more: 7, ..Seen::default() }, NOW);
        let shop = shop_after(&model, &web, many, LATELY);
        assert_eq!((shop.plaintext_callers.len(), shop.plaintext_callers_more), (MOST_NAMED, 5 + 7));
        assert_eq!(shop.because, ["32 called in plaintext in the last 600 seconds (plaintextCallers)"]);

        let mut nameless = Callers::default();
        nameless.add(Seen { more: 1, ..Seen::default() }, NOW);
        let shop = shop_after(&model, &web, [("shop".to_owned(), nameless)].into(), LATELY);
        assert!(!shop.can_be_strict && shop.plaintext_callers.is_empty(), "one that has no name is one");
    }

    #[test]
    fn where_policies_are_not_enforced_is_named() {
        let model = model(&[("shop/web-1", "10.0.0.1", true)]);
        let past = [("shop".to_owned(), ["web-1 80".to_owned()].into())].into();
        let (beside, callers, observation) = (BTreeMap::new(), BTreeMap::new(), &Observation::default());
        let seeing = Seeing { beside, callers, past, observation };
        let shop = namespaces(model.pods(), &seeing, NOW, Duration::ZERO).remove(0);
        assert_eq!(shop.not_enforced, ["web-1 80"]);
    }

    #[test]
    fn a_namespace_without_sidecars_says_so_and_one_without_pods_is_none() {
        let mut model = model(&[("shop/old", "10.0.0.2", false)]);
        let why = against(&model, &BTreeMap::new(), BTreeMap::new());
        assert!(why.starts_with("none of its pods has a sidecar; "), "{why}");
        model.remove(&ObjectId::new("Workload", "shop", "old"));
        let observation = Observation::default();
        let seeing = Seeing {
            beside: BTreeMap::new(),
            callers: BTreeMap::new(),
            past: BTreeMap::new(),
            observation: &observation,
        };
        assert_eq!(namespaces(model.pods(), &seeing, NOW, Duration::ZERO), []);
    }
}
