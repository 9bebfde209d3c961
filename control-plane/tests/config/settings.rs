//! Settings that several objects give for one thing: what holds of each field, who is told that it does not, and what is
//! sent to sidecars.

use std::sync::Arc;

use prost::Message;
use selvedge_control_plane::{
    snapshot::Snapshot,
    source::{Change, Document},
    store::{Report, Store},
};
use selvedge_xds::{
    kinds::{DESTINATION, INBOUND},
    proto::mesh::{Destination, Inbound},
};
use serde_json::{Value, json};

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccount: web, address: 10.0.0.1}
";

/// A `TrafficPolicy` of the service, created at that time.
fn traffic(name: &str, created: &str, spec: &str) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: TrafficPolicy\n\
         metadata: {{name: {name}, namespace: shop, creationTimestamp: {created}}}\n\
         spec: {{targetRef: {{kind: Service, name: web}}, {spec}}}\n"
    )
}

fn mesh_policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{{spec}}}\n"
    )
}

fn put(store: &mut Store, file: &str, text: &str) {
    store.take("files", Document { origin: file.into(), text: Ok(text.into()) }.put());
}

fn commit(store: &mut Store) -> (Arc<Snapshot>, Report) {
    store.take("files", Change::Complete);
    store.commit()
}

/// A store with these files, in this order.
fn store(files: &[&str]) -> Store {
    let mut store = Store::new("mesh.local");
    put(&mut store, "web.yaml", WEB);
    for (n, text) in files.iter().enumerate() {
        put(&mut store, &format!("{n}.yaml"), text);
    }
    store
}

/// Object, field and message of every finding.
fn findings(report: &Report) -> Vec<(&str, &str, &str)> {
    report.findings.iter().map(|found| (&*found.object, &*found.field, &*found.message)).collect()
}

fn inbound(snapshot: &Snapshot) -> Inbound {
    Inbound::decode(snapshot.get(INBOUND, "shop/web-1").unwrap().body.clone()).unwrap()
}

#[test]
fn the_author_of_a_field_that_is_not_in_force_is_told_while_it_is_so() {
    let old = traffic("zebra", "'2026-01-01T00:00:00Z'", "timeouts: {request: 1s}");
    let new = traffic("ant", "'2026-01-02T00:00:00Z'", "timeouts: {request: 2s, connect: 2s}, retry: {attempts: 3}");
    let undated = traffic("bee", "null", "retry: {attempts: 3}");
    for files in [[&*old, &*new, &*undated], [&*undated, &*new, &*old]] {
        let mut store = store(&files);
        let (snapshot, report) = commit(&mut store);
        let expected = "this is not in force: TrafficPolicy shop/zebra sets timeouts.request of the same target to \
                        something else and is older";
        assert_eq!(findings(&report), [("TrafficPolicy shop/ant", "spec.timeouts.request", expected)]);
        let found = &report.findings[0];
        assert_eq!(found.hint, "expected one of them to leave it out");
        assert!(found.place.line > 0 && found.related.as_ref().is_some_and(|other| other.place.line > 0));
        let problems = |name: &str| report.objects.iter().find(|o| o.name == name).unwrap().problems.len();
        assert_eq!((problems("ant"), problems("zebra"), problems("bee")), (1, 0, 0));

        let web = Destination::decode(snapshot.get(DESTINATION, "shop/web").unwrap().body.clone()).unwrap();
        let names: Vec<_> = web.policies.iter().map(|policy| &*policy.origin.as_ref().unwrap().name).collect();
        assert_eq!(names, ["zebra", "ant", "bee"], "who wins is first, also for a sidecar that takes the first alone");

        let file = files.iter().position(|text| **text == *old).unwrap();
        put(&mut store, &format!("{file}.yaml"), &traffic("zebra", "null", "timeouts: {request: 1s}"));
        let (_, report) = commit(&mut store);
        let lost: Vec<_> = findings(&report).into_iter().map(|(object, field, _)| (object, field)).collect();
        assert_eq!(lost, [("TrafficPolicy shop/zebra", "spec.timeouts.request")], "it is not the older any more");

        store.take("files", Change::Confirmed(format!("{file}.yaml").into()));
        assert_eq!(findings(&commit(&mut store).1), [], "nobody else sets it any more");
    }
}

#[test]
fn of_mesh_policies_for_one_scope_the_stricter_value_holds() {
    let a = mesh_policy("shop", "a", "mtls: {inbound: PERMISSIVE}, accessLog: all");
    let b = mesh_policy("shop", "b", "mtls: {inbound: STRICT}, accessLog: 'off', defaultPosture: deny");
    for files in [[&*a, &*b], [&*b, &*a]] {
        let (snapshot, report) = commit(&mut store(&files));
        let lost: Vec<_> = findings(&report)
            .into_iter()
            .map(|(object, field, message)| (object, field, message.rsplit(" is ").next().unwrap()))
            .collect();
        let expected = [
            ("MeshPolicy shop/a", "spec.mtls.inbound", "stricter"),
            ("MeshPolicy shop/b", "spec.accessLog", "first by name"),
        ];
        let mut sorted = lost;
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        let inbound = inbound(&snapshot);
        let said: Value = serde_json::from_str(&inbound.settings).unwrap();
        assert_eq!(said, json!({"mtls": {"inbound": "STRICT"}, "accessLog": "all", "defaultPosture": "deny"}));
        let from = inbound.settings_from.iter().map(|from| (&*from.field, &*from.origin.as_ref().unwrap().name));
        assert_eq!(from.collect::<Vec<_>>(), [("accessLog", "a"), ("defaultPosture", "b"), ("mtls.inbound", "b")]);
    }
}

#[test]
fn every_field_that_says_who_calls_holds_and_only_proxies_that_all_trust() {
    let [gateway, edge] = ["gateway", "edge"].map(|name| format!("spiffe://mesh.local/ns/shop/sa/{name}"));
    let a = mesh_policy(
        "shop",
        "a",
        &format!("callerIdentity: {{headers: {{x-caller: SET}}, trustedProxies: ['{gateway}', '{edge}']}}"),
    );
    let b = mesh_policy(
        "shop",
        "b",
        &format!("callerIdentity: {{headers: {{x-other: REMOVE}}, trustedProxies: ['{edge}']}}"),
    );
    let wide = mesh_policy(
        "selvedge-system",
        "wide",
        "targetRef: {kind: Mesh}, callerIdentity: {headers: {x-forwarded-client-cert: SET, x-caller: REMOVE}}",
    );
    let (snapshot, report) = commit(&mut store(&[&a, &b, &wide]));
    let lost: Vec<_> = findings(&report).into_iter().map(|(object, field, _)| (object, field)).collect();
    assert_eq!(lost, [("MeshPolicy shop/a", "spec.callerIdentity.trustedProxies")]);
    let said: Value = serde_json::from_str(&inbound(&snapshot).settings).unwrap();
    let headers = json!({"x-caller": "SET", "x-other": "REMOVE", "x-forwarded-client-cert": "SET"});
    assert_eq!(said, json!({"callerIdentity": {"headers": headers, "trustedProxies": [edge]}}));
}

#[test]
fn a_more_specific_mesh_policy_wins_without_a_word() {
    let mesh = mesh_policy("selvedge-system", "mesh", "targetRef: {kind: Mesh}, mtls: {inbound: STRICT}");
    let workload = mesh_policy("shop", "one", "targetRef: {kind: Workload, name: web-1}, mtls: {inbound: PERMISSIVE}");
    let (snapshot, report) = commit(&mut store(&[&mesh, &workload]));
    assert_eq!(findings(&report), []);
    assert_eq!(inbound(&snapshot).settings, r#"{"mtls":{"inbound":"PERMISSIVE"}}"#);
}

#[test]
fn where_no_mesh_policy_says_plaintext_passes_in_a_pod_and_nowhere_else() {
    let pod = WEB.replace("address: 10.0.0.1", "address: 10.0.0.1, pod: true");
    let modes = |web: &str, files: &[&str]| {
        let mut store = store(files);
        put(&mut store, "web.yaml", web);
        let inbound = inbound(&commit(&mut store).0);
        let from = inbound.settings_from.iter().map(|from| (from.field.clone(), from.origin.is_some()));
        (inbound.mode().as_str_name(), inbound.outbound_mode().as_str_name(), from.collect::<Vec<_>>())
    };
    let said = |inbound: bool, outbound: bool| {
        vec![("mtls.inbound".to_owned(), inbound), ("mtls.outbound".to_owned(), outbound)]
    };
    assert_eq!(modes(WEB, &[]), ("STRICT", "REQUIRE", vec![]));
    assert_eq!(modes(&pod, &[]), ("PERMISSIVE", "PREFER", said(false, false)));
    for (namespace, target) in [
        ("selvedge-system", "targetRef: {kind: Mesh}, "),
        ("shop", ""),
        ("shop", "targetRef: {kind: Workload, name: web-1}, "),
    ] {
        let policy = |said: &str| mesh_policy(namespace, "closed", &format!("{target}mtls: {{{said}}}"));
        assert_eq!(modes(&pod, &[&policy("inbound: STRICT")]), ("STRICT", "PREFER", said(true, false)));
        assert_eq!(modes(&pod, &[&policy("outbound: REQUIRE")]), ("PERMISSIVE", "REQUIRE", said(false, true)));
    }
}

#[test]
fn whoever_removes_a_mesh_policy_is_told_that_pods_are_open_without_it() {
    let closed = mesh_policy("shop", "closed", "mtls: {inbound: STRICT}");
    let mut store = store(&[&closed]);
    put(&mut store, "web.yaml", &WEB.replace("address: 10.0.0.1", "address: 10.0.0.1, pod: true"));
    commit(&mut store);
    store.take("files", Change::Remove("0.yaml".into()));
    let (_, mut report) = commit(&mut store);
    // The file stands for a pod of a cluster.
    report.findings.retain(|finding| finding.field != "spec.pod");
    let [(_, _, message)] = findings(&report)[..] else { panic!("{:?}", report.findings) };
    assert!(message.contains("what it covered has mTLS mode PERMISSIVE"), "{message}");
}

#[test]
fn a_creation_time_that_cannot_be_read_refuses_nothing() {
    for (written, why) in [("yesterday", "'yesterday' is not a timestamp"), ("7", "7 is no timestamp")] {
        let (_, report) = commit(&mut store(&[&traffic("one", written, "timeouts: {request: 1s}")]));
        let [(object, field, message)] = findings(&report)[..] else { panic!("{:?}", report.findings) };
        assert_eq!((object, field), ("TrafficPolicy shop/one", "metadata.creationTimestamp"));
        assert!(message.contains(why), "{message}");
        assert!(report.objects.iter().all(|object| object.current));
    }
}
