//! What of a policy is told to whom: one for the whole mesh to everybody, and the port of a service as that of its workload.

use std::sync::Arc;

use prost::Message;
use selvedge_control_plane::{
    snapshot::Snapshot,
    source::{Change, Document},
    store::{Report, Store},
};
use selvedge_policies::finding::Code;
use selvedge_xds::{kinds::INBOUND, proto::mesh::Inbound};
use serde_json::{Value, json};

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: a, port: 80, targetPort: 8080}, {name: b, port: 81}]}
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccount: web, address: 10.0.0.1}
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: cards, namespace: pay}
spec: {serviceAccount: cards, address: 10.0.0.2}
";

fn policy(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: {namespace}}}\n\
         spec: {{{spec}}}\n"
    )
}

fn put(store: &mut Store, file: &str, text: &str) -> (Arc<Snapshot>, Report) {
    let document = Document { origin: file.into(), text: Ok(text.into()) };
    for change in [document.put(), Change::Complete] {
        store.take("files", change);
    }
    store.commit()
}

fn inbound(snapshot: &Snapshot, workload: &str) -> Inbound {
    Inbound::decode(snapshot.get(INBOUND, workload).unwrap().body.clone()).unwrap()
}

/// The documents that cover a whole workload.
fn covering(snapshot: &Snapshot, workload: &str) -> Vec<Value> {
    let policies = inbound(snapshot, workload).policies.into_iter();
    policies.map(|policy| serde_json::from_str(&policy.document).unwrap()).collect()
}

#[test]
fn a_policy_for_the_mesh_covers_every_workload_and_goes_again() {
    let mut store = Store::new("mesh.local");
    put(&mut store, "mesh.yaml", MESH);
    let wide = policy("selvedge-system", "targetRef: {kind: Mesh}, action: DENY, rules: [{to: [{ports: [80]}]}]");
    let (snapshot, report) = put(&mut store, "wide.yaml", &wide);
    assert_eq!(report.findings, []);
    // In words that sidecars of every release know.
    let told = json!({ "action": "DENY", "rules": [{ "to": [{ "ports": [80] }] }] });
    for workload in ["shop/web-1", "pay/cards"] {
        assert_eq!(covering(&snapshot, workload), std::slice::from_ref(&told), "{workload}");
    }
    let late = "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {name: late, namespace: new}\n\
                spec: {serviceAccount: late, address: 10.0.0.3}\n";
    let (snapshot, _) = put(&mut store, "late.yaml", late);
    assert_eq!(covering(&snapshot, "new/late"), [told], "one that comes later, too");
    store.take("files", Change::Confirmed("wide.yaml".into()));
    store.take("files", Change::Complete);
    let (snapshot, _) = store.commit();
    assert_eq!(covering(&snapshot, "pay/cards"), [Value::Null; 0]);
}

#[test]
fn only_who_runs_the_mesh_covers_all_of_it() {
    let mut store = Store::new("mesh.local");
    put(&mut store, "mesh.yaml", MESH);
    for (namespace, target, words) in [
        ("shop", "{kind: Mesh}", "cannot cover the whole mesh"),
        ("selvedge-system", "{kind: Mesh, name: all}", "the mesh has no name and no port"),
        ("shop", "{kind: Service}", "missing field 'name'"),
    ] {
        let wide = policy(namespace, &format!("targetRef: {target}, action: DENY, rules: [{{}}]"));
        let (snapshot, report) = put(&mut store, "wide.yaml", &wide);
        assert!(
            report.findings.iter().any(|finding| finding.message.contains(words)),
            "{words}: {:#?}",
            report.findings
        );
        assert_eq!(covering(&snapshot, "pay/cards"), [Value::Null; 0], "{target}");
    }
}

#[test]
fn the_port_of_a_service_is_told_as_that_of_the_workload() {
    let mut store = Store::new("mesh.local");
    put(&mut store, "mesh.yaml", MESH);
    let rules = "action: DENY, rules: [{to: [{ports: [80, 81, 9000], notPorts: [80]}]}]";
    let on_service = policy("shop", &format!("targetRef: {{kind: Service, name: web}}, {rules}"));
    let (snapshot, _) = put(&mut store, "policy.yaml", &on_service);
    let ports = inbound(&snapshot, "shop/web-1").ports;
    let told: Vec<Value> = ports.iter().map(|port| serde_json::from_str(&port.policies[0].document).unwrap()).collect();
    let expected = json!([{ "to": [{ "ports": [8080, 81, 9000], "notPorts": [8080] }] }]);
    assert_eq!(told.iter().map(|document| &document["rules"]).collect::<Vec<_>>(), [&expected, &expected]);
    let (snapshot, _) = put(&mut store, "policy.yaml", &policy("shop", rules));
    let expected = json!([{ "to": [{ "ports": [80, 81, 9000], "notPorts": [80] }] }]);
    assert_eq!(covering(&snapshot, "shop/web-1")[0]["rules"], expected, "elsewhere they are the workload's own");
}

#[test]
fn what_is_rehearsed_travels_as_a_setting_that_old_sidecars_can_leave_out() {
    let mut store = Store::new("mesh.local");
    put(&mut store, "mesh.yaml", MESH);
    let setting = "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: try, namespace: shop}\n\
                   spec: {defaultPosture: audit}\n";
    let (snapshot, _) = put(&mut store, "setting.yaml", setting);
    let told = inbound(&snapshot, "shop/web-1");
    assert_eq!(told.posture, "allow");
    assert_eq!(serde_json::from_str::<Value>(&told.settings).unwrap(), json!({ "defaultPosture": "audit" }));
    let strict = setting.replace("name: try", "name: strict").replace("audit", "deny");
    let (snapshot, report) = put(&mut store, "strict.yaml", &strict);
    assert_eq!(inbound(&snapshot, "shop/web-1").posture, "deny", "of two the stricter one");
    assert_eq!(report.findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), [Code::Overridden]);
}
