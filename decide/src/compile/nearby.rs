//! Which endpoints of a port a workload uses, by where it is and where they are: what `internalTrafficPolicy` of a Service
//! and the hints of its slices say, read as kube-proxy reads them. Worked out when either changes, so that no request asks.

use selvedge_xds::proto::mesh::{Endpoint, Endpoints, Inbound, InternalTrafficPolicy};

use crate::config::Locality;

impl Locality {
    /// This, and what the control plane says where this says nothing.
    pub(super) fn or(&self, told: &Inbound) -> Self {
        let known = |own: &str, told: &str| if own.is_empty() { told.to_owned() } else { own.to_owned() };
        Self { zone: known(&self.zone, &told.zone), node: known(&self.node, &told.node) }
    }
}

/// The endpoints that a workload uses which is `here`, and why there are none where that is the reason.
///
/// With `internalTrafficPolicy: Local` those on its own node, or when none is there those that are about to end there;
/// hints do not count. Else those that hints name for its node, or for its zone, if every endpoint has such a hint and one
/// of them is for here. Else all.
pub(crate) fn used<'a>(told: &'a Endpoints, here: &Locality) -> (Vec<&'a Endpoint>, Option<String>) {
    let all: Vec<&Endpoint> = told.endpoints.iter().collect();
    if told.internal_traffic_policy() == InternalTrafficPolicy::Local {
        return on_node(told, &here.node);
    }
    let hinted = meant_for(&all, &here.node, |endpoint| &endpoint.for_nodes)
        .or_else(|| meant_for(&all, &here.zone, |endpoint| &endpoint.for_zones));
    (hinted.unwrap_or(all), None)
}

fn on_node<'a>(told: &'a Endpoints, node: &str) -> (Vec<&'a Endpoint>, Option<String>) {
    let on_node = |endpoints: &'a [Endpoint]| -> Vec<&'a Endpoint> {
        endpoints.iter().filter(|endpoint| !node.is_empty() && endpoint.node == node).collect()
    };
    let ready = on_node(&told.endpoints);
    let used = if ready.is_empty() { on_node(&told.leaving) } else { ready };
    let elsewhere = told.endpoints.len() + told.leaving.len();
    if !used.is_empty() || elsewhere == 0 {
        return (used, None);
    }
    let why = match node {
        "" => "the Service has internalTrafficPolicy Local and this sidecar does not know its node: say locality.node \
               in its file"
            .to_owned(),
        node => format!("the Service has internalTrafficPolicy Local and none of its {elsewhere} is on node {node}"),
    };
    (used, Some(why))
}

/// Those whose hints name `here`; `None` unless all have hints and one of them does.
fn meant_for<'a>(
    all: &[&'a Endpoint],
    here: &str,
    hints: impl Fn(&Endpoint) -> &Vec<String>,
) -> Option<Vec<&'a Endpoint>> {
    if here.is_empty() || all.iter().any(|endpoint| hints(endpoint).is_empty()) {
        return None;
    }
    let meant = all.iter().filter(|endpoint| hints(endpoint).iter().any(|hint| hint == here));
    let meant: Vec<&Endpoint> = meant.copied().collect();
    (!meant.is_empty()).then_some(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `address node zone hint`: the hint is a zone, or a node after `@`; `-` is nothing.
    fn endpoint(text: &str) -> Endpoint {
        let part = |n: usize| text.split(' ').nth(n).filter(|part| *part != "-").unwrap_or_default().to_owned();
        let hint = part(3);
        let (nodes, zones) = match hint.strip_prefix('@') {
            Some(node) => (vec![node.to_owned()], vec![part(2)]),
            None => (vec![], Some(hint).filter(|hint| !hint.is_empty()).into_iter().collect()),
        };
        Endpoint {
            address: part(0),
            node: part(1),
            zone: part(2),
            for_nodes: nodes,
            for_zones: zones,
            ..Default::default()
        }
    }

    fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
        texts.iter().map(|text| endpoint(text)).collect()
    }

    fn names(told: &Endpoints, node: &str, zone: &str) -> String {
        let here = Locality { node: node.into(), zone: zone.into() };
        used(told, &here).0.iter().map(|endpoint| &*endpoint.address).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn hints_hold_where_every_endpoint_has_some_and_one_is_for_here() {
        let cases: [(&[&str], &str); 7] = [
            (&["1 one a a", "2 two a a", "3 three b b"], "1 2"),
            (&["1 one a a", "2 two a -", "3 three b b"], "1 2 3"),
            (&["1 three b b", "2 four c c"], "1 2"),
            (&["1 one a @one", "2 two a @two", "3 three b @three"], "1"),
            (&["1 two a @two", "2 four a @four", "3 three b @three"], "1 2"),
            (&["1 four c @four", "2 three b @three"], "1 2"),
            (&["1 one a @one", "2 two a a", "3 three b b"], "1 2"),
        ];
        for (told, expected) in cases {
            let told = Endpoints { endpoints: endpoints(told), ..Default::default() };
            assert_eq!(names(&told, "one", "a"), expected, "{told:?}");
            let all = told.endpoints.iter().map(|endpoint| &*endpoint.address).collect::<Vec<_>>().join(" ");
            assert_eq!(names(&told, "", ""), all, "who does not know where it is uses all");
        }
    }

    #[test]
    fn local_calls_stay_on_their_node_or_go_nowhere() {
        let local = |ready: &[&str], leaving: &[&str]| Endpoints {
            endpoints: endpoints(ready),
            leaving: endpoints(leaving),
            internal_traffic_policy: InternalTrafficPolicy::Local.into(),
        };
        let some = local(&["1 one a b", "2 two a a"], &["3 one a -"]);
        assert_eq!(names(&some, "one", "a"), "1", "whatever the hints say");
        assert_eq!(names(&local(&["2 two a -"], &["3 one a -", "4 two a -"]), "one", "a"), "3");
        let here = |node: &str| Locality { node: node.into(), zone: "a".into() };
        let why = |told: &Endpoints, node: &str| used(told, &here(node)).1.unwrap_or_default();
        assert!(why(&some, "three").ends_with("none of its 3 is on node three"), "{}", why(&some, "three"));
        assert!(why(&some, "").contains("does not know its node"));
        assert_eq!((why(&some, "one"), why(&local(&[], &[]), "one")), Default::default());
    }
}
