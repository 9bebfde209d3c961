//! What a rule leaves out, a rehearsal of a posture and a policy for the mesh at sidecars that know none of it: nothing that is
//! told means more there than it does here.

use std::sync::Arc;

use prost::Message;
use selvedge_control_plane::{
    skew::{self, Forms},
    snapshot::Snapshot,
    source::{Change, Document},
    store::Store,
};
use selvedge_policies::{
    kind::Attached,
    policy::{Place, Posture},
    registry,
    request::PolicySet,
    testing::{Clock, Request},
    verdict::Verdict,
};
use selvedge_xds::{
    capability::Capabilities,
    kinds::INBOUND,
    proto::mesh::{Attachment, Inbound},
    resource::Encoded,
};
use serde_json::{Value, json};

use crate::skew::assert_old_sidecars_know;

/// What a rule can leave out, each with the field that a sidecar of an earlier release does not know.
fn exceptions() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"notMethods": ["GET"]}), "notMethods"),
        (json!({"notPaths": ["/healthz"]}), "notPaths"),
        (json!({"notHosts": ["a.example"]}), "notHosts"),
        (json!({"notPorts": [8080]}), "notPorts"),
        (json!({"absentHeaders": ["x-debug"]}), "absentHeaders"),
        (json!({"paths": ["/*"], "notPaths": ["/healthz"]}), "notPaths"),
        (json!({"methods": ["GET"], "absentHeaders": ["x-debug"]}), "absentHeaders"),
    ]
}

/// Sidecars of earlier releases: the last that says nothing of what it knows, and one that knows all but these fields.
fn earlier() -> [Capabilities; 2] {
    let mut lately = skew::everything();
    for words in lately.0.values_mut() {
        words.retain(|word| !word.contains(".to[].not") && !word.contains("absentHeaders"));
        words.retain(|word| !word.starts_with("defaultPosture=audit") && !word.contains("=Mesh"));
    }
    [skew::silent(), lately]
}

fn requests() -> Vec<Request> {
    let paths = ["/", "/healthz", "/admin"];
    let of_path = |path: &'static str| {
        ["GET", "POST"].into_iter().flat_map(move |method| {
            let request = move || Request::new(method, path).host("a.example");
            [
                request().port(8080),
                request().port(9090),
                request().port(8080).from("shop/web"),
                request().from("other/a"),
            ]
        })
    };
    paths.into_iter().flat_map(of_path).collect()
}

fn set(policies: &[Attachment], posture: Posture) -> PolicySet {
    let documents = policies.iter().map(|policy| {
        let origin = policy.origin.as_ref().unwrap();
        let spec = serde_json::from_str(&policy.document).unwrap();
        (origin.kind.clone(), Attached { name: format!("{}/{}", origin.namespace, origin.name).into(), spec })
    });
    let documents: Vec<(String, Attached<Value>)> = documents.collect();
    registry::compile(Place::Called, &documents, posture, &PolicySet::new()).unwrap()
}

fn passes(set: &PolicySet, request: &Request) -> [bool; 2] {
    let clock = Clock::default();
    [
        set.on_request(&request.facts(), &mut clock.context()) == Verdict::Continue,
        set.on_connection(&request.connection(), &mut clock.context()) == Verdict::Continue,
    ]
}

/// Nobody passes by what is told who does not pass by what is meant.
fn assert_no_wider(meant: &[Attachment], told: &[Attachment], posture: Posture) {
    let (here, there) = (set(meant, posture), set(told, posture));
    for request in requests() {
        let allowed = passes(&here, &request).into_iter().zip(passes(&there, &request));
        for (here, there) in allowed {
            assert!(here || !there, "{:?} passes {told:?} and not {meant:?}", request.facts());
        }
    }
}

fn put(store: &mut Store, file: &str, text: &str) -> Arc<Snapshot> {
    let document = Document { origin: file.into(), text: Ok(text.into()) };
    for change in [document.put(), Change::Complete] {
        store.take("files", change);
    }
    let (snapshot, report) = store.commit();
    assert_eq!(report.errors(), 0, "{:?}", report.findings);
    snapshot
}

fn view(resource: &Encoded) -> Inbound {
    Inbound::decode(resource.body.clone()).unwrap()
}

/// What the workload is told here, and what a sidecar is told that knows no more than this.
fn views(snapshot: &Snapshot, workload: &str, knows: &Capabilities) -> [Inbound; 2] {
    let meant = snapshot.get(INBOUND, workload).unwrap();
    let told = skew::tell(&meant, knows, &Forms::default()).resource;
    if let Some(told) = told.as_ref().filter(|_| *knows == skew::silent()) {
        assert_old_sidecars_know(told);
    }
    [view(&meant), view(told.as_ref().unwrap_or(&meant))]
}

const MESH: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop}
spec: {serviceAccount: web, address: 10.0.0.1}
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: cards, namespace: pay}
spec: {serviceAccount: cards, address: 10.0.0.2}
";

fn policy(name: &str, namespace: &str, spec: &Value) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {spec}\n"
    )
}

fn posture(word: &str) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{defaultPosture: {word}}}\n"
    )
}

#[test]
fn a_rule_that_leaves_something_out_lets_nobody_pass_where_that_is_not_known() {
    for knows in earlier() {
        for (operation, unknown) in exceptions() {
            for action in ["ALLOW", "DENY", "AUDIT"] {
                let mut store = Store::new("mesh.local");
                put(&mut store, "mesh.yaml", MESH);
                let known = json!({"action": "ALLOW", "rules": [{"from": [{"serviceAccounts": ["shop/web"]}]}]});
                put(&mut store, "known.yaml", &policy("known", "shop", &known));
                let rules = json!([{"from": [{"namespaces": ["other"]}]}, {"to": [operation]}]);
                let newer = policy("newer", "shop", &json!({"action": action, "rules": rules}));
                let snapshot = put(&mut store, "newer.yaml", &newer);
                let [meant, told] = views(&snapshot, "shop/web-1", &knows);
                for posture in [Posture::Allow, Posture::Deny] {
                    assert_no_wider(&meant.policies, &told.policies, posture);
                }
                let [note] = &*told.unenforceable else { panic!("it is said: {:?}", told.unenforceable) };
                assert_eq!(note.unknown, format!("rules[1].to[0].{unknown}"));
                assert_eq!(note.origin.as_ref().unwrap().name, "newer");
            }
        }
    }
}

#[test]
fn a_policy_for_the_mesh_that_leaves_something_out_closes_every_workload_where_that_is_not_known() {
    for knows in earlier() {
        let mut store = Store::new("mesh.local");
        put(&mut store, "mesh.yaml", MESH);
        let spec =
            json!({"targetRef": {"kind": "Mesh"}, "action": "DENY", "rules": [{"to": [{"notPaths": ["/healthz"]}]}]});
        let snapshot = put(&mut store, "wide.yaml", &policy("wide", "selvedge-system", &spec));
        for workload in ["shop/web-1", "pay/cards"] {
            let [meant, told] = views(&snapshot, workload, &knows);
            assert_no_wider(&meant.policies, &told.policies, Posture::Allow);
            let refuses = |request: &Request| passes(&set(&told.policies, Posture::Allow), request) == [false; 2];
            assert!(requests().iter().all(refuses), "{workload}: {:?}", told.policies);
        }
    }
}

#[test]
fn a_rehearsal_of_a_posture_is_told_as_what_it_does_and_never_takes_the_place_of_deny() {
    for knows in earlier() {
        let mut store = Store::new("mesh.local");
        put(&mut store, "mesh.yaml", MESH);
        for (word, expected) in [("deny", "deny"), ("audit", "allow"), ("deny", "deny"), ("allow", "allow")] {
            let snapshot = put(&mut store, "posture.yaml", &posture(word));
            let [meant, told] = views(&snapshot, "shop/web-1", &knows);
            assert_eq!([meant.posture, told.posture.clone()], [expected; 2], "{word}");
            assert!(!told.settings.contains("audit"), "{word}: {}", told.settings);
            let unknown: Vec<&str> = told.unenforceable.iter().map(|note| &*note.unknown).collect();
            let is_said = unknown.iter().any(|unknown| unknown.contains("defaultPosture"));
            assert_eq!(is_said, word == "audit", "{word}: {unknown:?}");
        }
    }
}
