//! What is in force after good and bad changes: the last good version of everything, and nothing that is gone.

use std::sync::Arc;

use selvedge_control_plane::{
    diagnostic::{Diagnostic, Severity},
    snapshot::Snapshot,
    source::{Change, Document, Source},
    store::{self, Report, Reports, Store},
};
use selvedge_xds::kinds::{DESTINATION, INBOUND, TRUST_BUNDLE};

use crate::linted::linted;

const A: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
const B: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 80}]}\n";

/// Nobody who saves what is in force.
fn nobody() -> tokio::sync::watch::Sender<Arc<store::InForce>> {
    tokio::sync::watch::channel(Arc::default()).0
}

struct Mesh {
    store: Store,
    snapshot: Arc<Snapshot>,
    report: Report,
}

impl Mesh {
    fn new() -> Self {
        Self { store: Store::new("mesh.local"), snapshot: Arc::default(), report: Report::default() }
    }

    fn put(&mut self, file: &str, text: &str) -> &mut Self {
        self.take(Document { origin: file.into(), text: Ok(text.into()) }.put())
    }

    fn take(&mut self, change: Change) -> &mut Self {
        assert!(!self.store.take("files", change));
        self
    }

    fn commit(&mut self) {
        assert!(self.store.take("files", Change::Complete));
        (self.snapshot, self.report) = self.store.commit();
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.snapshot.resources(DESTINATION).map(|r| r.name.clone()).collect();
        names.sort();
        names
    }

    fn state(&self, name: &str) -> (u64, bool, usize) {
        let object = self.report.objects.iter().find(|object| object.name == name).expect("the object is reported");
        (object.accepted_generation, object.current, object.problems.len())
    }
}

#[test]
fn nothing_takes_effect_before_the_state_is_complete() {
    let mut mesh = Mesh::new();
    mesh.put("a.yaml", A);
    assert_eq!(mesh.names(), [""; 0]);
    mesh.commit();
    assert_eq!(mesh.names(), ["default/a"]);
    assert!(mesh.snapshot.is_complete());
}

#[test]
fn a_bad_object_keeps_its_last_good_version_and_the_others_go_live() {
    let mut mesh = Mesh::new();
    mesh.put("a.yaml", A).commit();
    let before = mesh.snapshot.get(DESTINATION, "default/a").unwrap();
    mesh.put("a.yaml", &format!("{}---\n{B}", A.replace("port: 80", "port: 0"))).commit();
    assert_eq!(mesh.names(), ["default/a", "default/b"]);
    assert!(Arc::ptr_eq(&before, &mesh.snapshot.get(DESTINATION, "default/a").unwrap()));
    assert_eq!(mesh.state("a"), (1, false, 1));
    assert_eq!(mesh.state("b"), (1, true, 0));
    mesh.put("a.yaml", &A.replace("port: 80", "port: 81")).commit();
    assert_eq!(mesh.state("a"), (2, true, 0));
    assert_eq!(mesh.names(), ["default/a"], "what is really gone is taken away");
}

#[test]
fn an_object_that_was_never_good_is_reported_with_its_problem() {
    let mut mesh = Mesh::new();
    mesh.put("a.yaml", &A.replace("port: 80", "port: 0")).commit();
    assert_eq!(mesh.names(), [""; 0]);
    assert_eq!(mesh.state("a"), (0, false, 1));
}

#[test]
fn a_file_that_cannot_be_read_any_more_loses_nothing() {
    let unreadable = Document { origin: "a.yaml".into(), text: Err("no".into()) }.put();
    let texts = [("syntax", "kind: [\n"), ("no name", "kind: Service\n"), ("misspelt kind", "kind: Sevrice\n")];
    let mut bad: Vec<(&str, Change)> = vec![("unreadable", unreadable)];
    let put = |text: &str| Document { origin: "a.yaml".into(), text: Ok(text.into()) }.put();
    bad.extend(texts.iter().map(|(what, text)| (*what, put(text))));
    for (what, change) in bad {
        let mut mesh = Mesh::new();
        mesh.put("a.yaml", &format!("{A}---\n{B}")).commit();
        mesh.take(change).commit();
        assert_eq!(mesh.names(), ["default/a", "default/b"], "{what}");
        assert!(mesh.report.errors() > 0, "{what}");
        mesh.take(Change::Remove("a.yaml".into())).commit();
        assert_eq!(mesh.names(), [""; 0], "{what}: a removed file is no bad file");
    }
}

#[test]
fn an_unavailable_source_keeps_everything_and_says_so() {
    let mut mesh = Mesh::new();
    mesh.put("a.yaml", A).commit();
    mesh.take(Change::Unavailable { origin: "mesh".into(), reason: "gone".into() }).commit();
    assert_eq!(mesh.names(), ["default/a"]);
    assert_eq!(mesh.report.findings[0].message, "gone");
    mesh.commit();
    assert_eq!((mesh.names(), mesh.report.findings.len()), (vec!["default/a".to_owned()], 0), "it is back as it was");
    let mut never = Mesh::new();
    never.take(Change::Unavailable { origin: "mesh".into(), reason: "gone".into() }).commit();
    assert!(!never.snapshot.is_complete(), "nothing was told yet");
}

#[test]
fn objects_move_between_files_and_generations_count_content_only() {
    let mut mesh = Mesh::new();
    mesh.put("a.yaml", A).commit();
    let before = mesh.snapshot.clone();
    mesh.take(Change::Remove("a.yaml".into()));
    mesh.put("b.yaml", &format!("# moved\n{A}")).commit();
    assert_eq!(mesh.state("a"), (1, true, 0));
    assert!(mesh.snapshot.changed_since(&before).is_empty());
    mesh.take(Change::Remove("b.yaml".into())).commit();
    mesh.put("b.yaml", A).commit();
    assert_eq!(mesh.state("a").0, 2, "a generation is never used twice");
}

#[test]
fn of_two_objects_with_one_name_the_one_in_force_stays_and_both_places_are_named() {
    let mut mesh = Mesh::new();
    mesh.put("b.yaml", A).commit();
    mesh.put("a.yaml", &A.replace("port: 80", "port: 81")).commit();
    assert_eq!(mesh.state("a").0, 1, "the copy does not take over");
    let finding = mesh.report.findings.iter().find(|f| f.severity == Severity::Error).unwrap();
    assert_eq!((finding.place.file.as_str(), finding.place.line), ("a.yaml", 3));
    assert_eq!(finding.related.as_ref().unwrap().place.file, "b.yaml");
    mesh.take(Change::Remove("b.yaml".into())).commit();
    assert_eq!(mesh.state("a"), (2, true, 0), "now the copy is the one");
}

#[test]
fn a_copy_does_not_take_over_while_the_file_of_the_one_in_force_is_broken() {
    let copy = A.replace("port: 80", "port: 99");
    for bad in [A.replace("port: 80", "prot: 80"), "kind: [\n".to_owned(), A.replace("Service", "Sevrice")] {
        let mut mesh = Mesh::new();
        mesh.put("policy.yaml", A).commit();
        mesh.put("old-copy.yaml", &copy).commit();
        let before = mesh.snapshot.clone();
        mesh.put("policy.yaml", &bad).commit();
        assert!(mesh.snapshot.changed_since(&before).is_empty(), "the last good version stays: {bad}");
        let object = &mesh.report.objects[0];
        assert_eq!((object.file.as_str(), object.current), ("policy.yaml", false), "{bad}");
        let about_copy = mesh.report.findings.iter().find(|f| f.place.file == "old-copy.yaml").unwrap();
        assert_eq!(about_copy.related.as_ref().unwrap().place.file, "policy.yaml");
        mesh.put("policy.yaml", &A.replace("port: 80", "port: 82")).commit();
        assert_eq!(mesh.state("a").0, 2, "and its own correction takes effect");
        mesh.take(Change::Remove("policy.yaml".into())).commit();
        assert_eq!(mesh.state("a").0, 3, "a file that is gone is not broken");
    }
}

#[test]
fn what_another_system_reads_holds_no_removal_back_and_what_is_held_is_told() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {}\n";
    let mut mesh = Mesh::new();
    mesh.put("a.yaml", &format!("{A}---\n{B}---\n{deployment}")).commit();
    mesh.put("a.yaml", &format!("{B}---\n{deployment}")).commit();
    assert_eq!(mesh.names(), ["default/b"], "a Deployment says nothing of a Service");
    for core in ["ServiceAccount", "ConfigMap", "Secret"] {
        let other = format!("apiVersion: v1\nkind: {core}\nmetadata: {{name: a}}\n");
        mesh.put("a.yaml", &format!("{A}---\n{B}---\n{other}")).commit();
        mesh.put("a.yaml", &format!("{B}---\n{other}")).commit();
        assert_eq!(mesh.names(), ["default/b"], "nor does a {core}");
    }

    let held = |mesh: &Mesh| -> Vec<String> {
        let held = mesh.report.findings.iter().filter(|f| f.severity == Severity::Warning);
        held.map(|f| format!("{}: {}", f.place.file, f.message)).collect()
    };
    assert_eq!(held(&mesh), [""; 0]);
    mesh.put("a.yaml", &B.replace("Service", "Sevrice")).commit();
    assert_eq!(mesh.names(), ["default/b"]);
    let told =
        "a.yaml: it cannot be told whether this still has Service default/b, so the last good version stays in force";
    assert_eq!(held(&mesh), [told]);
    assert_eq!(mesh.state("b"), (1, false, 1), "and so does the object itself");
    mesh.put("a.yaml", &A.replace("Service", "Sevrice")).commit();
    assert_eq!(mesh.names(), [""; 0], "only an object of that name is held");
}

#[test]
fn a_misspelt_name_or_namespace_takes_no_object_away() {
    let mine = A.replace("name: a", "name: a, namespace: shop");
    for (what, typo) in [
        ("a misspelt namespace", mine.replace("namespace", "namespce")),
        ("a namespace that slipped out", A.replace("spec:", "namespace: shop\nspec:")),
        ("a second name", mine.replace("namespace: shop", "namespace: shop, nam: b")),
        ("a misspelt name", mine.replace("{name", "{nmae")),
    ] {
        let mut mesh = Mesh::new();
        mesh.put("a.yaml", &format!("{mine}---\n{B}")).commit();
        mesh.put("a.yaml", &format!("{typo}---\n{B}")).commit();
        assert_eq!(mesh.names(), ["default/b", "shop/a"], "{what}");
        assert_eq!(mesh.state("a"), (1, false, 1), "{what}");
        assert_eq!(mesh.report.objects.len(), 2, "{what} makes no other object");
        mesh.put("a.yaml", &mine.replace("80", "81")).commit();
        assert_eq!((mesh.names(), mesh.state("a").0), (vec!["shop/a".to_owned()], 2), "{what}: corrected");
    }
    let mut mesh = Mesh::new();
    mesh.put("a.yaml", &format!("{mine}---\n{B}")).commit();
    mesh.put("a.yaml", &mine.replace("namespace: shop", "namespace: shop, lables: {}")).commit();
    assert_eq!(mesh.names(), ["shop/a"], "misspelt labels leave no doubt about which object it is");
}

#[test]
fn every_complaint_of_all_files_is_told_at_once() {
    let twice = format!("{}---\n{}", B.replace("name: b", "name: B"), A.replace("Service", "Sevrice"));
    let port = A.replace("port: 80", "port: 0");
    let findings = linted(&[("a.yaml", &port), ("b.yaml", "kind: [\n"), ("sub/c.yaml", &twice)]);
    let told = |file: &str, line: usize| {
        findings.iter().any(|f| f.place.file.ends_with(file) && f.place.line == line && f.severity == Severity::Error)
    };
    for (file, line) in [("/a.yaml", 4), ("/b.yaml", 1), ("sub/c.yaml", 3), ("sub/c.yaml", 7)] {
        assert!(told(file, line), "{file}:{line} is missing in {findings:#?}");
    }
}

#[test]
fn references_to_what_is_not_there_are_warnings_that_refuse_nothing() {
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{kind: Service, name: a, port: 81}]\n  rules:\n  - backendRefs: [{name: bb, port: 80}]\n";
    let policy = "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec:\n  targetRef: {kind: Workload, name: w}\n  action: DENY\n  rules: []\n";
    let selector =
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  selector: {app: s}\n  ports: [{port: 80}]\n";
    let mut mesh = Mesh::new();
    mesh.put("a.yaml", &[A, B, route, policy, selector].join("---\n")).commit();
    assert_eq!(mesh.report.errors(), 0);
    let found: Vec<(usize, usize, &str)> =
        mesh.report.findings.iter().map(|f| (f.place.line, f.place.column, &*f.message)).collect();
    assert_eq!(
        found,
        [
            (15, 47, "Service 'a' has no port 81"),
            (17, 26, "there is no Service 'bb' in namespace 'default'"),
            (23, 37, "there is no Workload 'w' in namespace 'default'"),
            (31, 3, "no Workload of namespace 'default' has these labels"),
        ]
    );
    assert!(mesh.report.objects.iter().all(|object| object.current));
}

#[test]
fn what_the_mesh_does_otherwise_than_written_is_a_warning() {
    let sticky = B.replace("{ports", "{sessionAffinity: ClientIP, ports");
    let spread = A.replace("{ports", "{sessionAffinity: None, ports");
    let external = "apiVersion: selvedge.dev/v1alpha1\nkind: ExternalService\nmetadata: {name: x}\nspec:\n  \
                    hosts: [x.example, a.default, a.default.svc, a.default.svc.cluster.local, a.other]\n  \
                    ports: [{port: 80}]\n  endpoints: [{address: 198.51.100.1}]\n";
    let mut mesh = Mesh::new();
    mesh.put("a.yaml", &[&*spread, &*sticky, external].join("---\n")).commit();
    let told: Vec<(&str, &str, &str)> =
        mesh.report.findings.iter().map(|f| (&*f.object, &*f.field, &*f.message)).collect();
    let taken = "this host is that of Service default/a, which goes before this one";
    assert_eq!(
        told,
        [
            (
                "Service default/b",
                "spec.sessionAffinity",
                "calls of one client do not stay with one workload in the mesh"
            ),
            ("ExternalService default/x", "spec.hosts[1]", taken),
            ("ExternalService default/x", "spec.hosts[2]", taken),
            ("ExternalService default/x", "spec.hosts[3]", taken),
        ]
    );
    assert!(mesh.report.findings.iter().all(|finding| finding.severity == Severity::Warning));
    assert!(mesh.report.objects.iter().all(|object| object.current), "they refuse nothing");
}

#[test]
fn an_address_that_two_objects_claim_is_told_with_both() {
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}\n"
        )
    };
    let workload = "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {name: w}\nspec: {serviceAccount: w, address: 10.0.0.7, ports: [{port: 8080, dial: 8443}]}\n";
    let external = |name: &str, endpoint: &str| {
        format!(
            "apiVersion: selvedge.dev/v1alpha1\nkind: ExternalService\nmetadata: {{name: {name}}}\nspec: {{hosts: [{name}.example], ports: [{{port: 80}}], endpoints: [{{{endpoint}}}]}}\n"
        )
    };
    let mut mesh = Mesh::new();
    let neighbour = external("neighbour", "address: 10.0.0.7, port: 5432");
    mesh.put("fine.yaml", &[workload, &service("a"), &neighbour].join("---\n")).commit();
    assert_eq!(mesh.report.findings, [], "another port of the machine is another's");
    mesh.put(
        "claims.yaml",
        &[service("b"), external("x", "address: 10.0.0.7, port: 8443"), external("y", "address: 10.96.0.1")]
            .join("---\n"),
    );
    mesh.commit();
    let told: Vec<(&str, &str)> = mesh.report.findings.iter().map(|f| (&*f.object, &*f.message)).collect();
    assert_eq!(
        told,
        [
            ("Service default/b", "10.96.0.1 is the clusterIP of two services, this one and Service default/a"),
            ("ExternalService default/x", "10.0.0.7 is the address of Workload default/w, which is inside the mesh"),
            ("ExternalService default/y", "10.96.0.1 is the address of Service default/a, which is inside the mesh"),
            ("Service default/a", "10.96.0.1 is the clusterIP of two services, this one and Service default/b"),
        ]
    );
    let related: Vec<_> = mesh.report.findings.iter().filter_map(|f| f.related.as_ref()).collect();
    assert_eq!(related.len(), 4, "both places are named");
    assert!(mesh.report.objects.iter().all(|object| object.current), "what is in force stays so");
}

/// The objects with a finding in each of these states, each with the field that it is about.
#[test]
fn who_claims_what_another_is_called_at_is_told() {
    let workload = |name: &str, more: &str| {
        format!(
            "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec: {{serviceAccount: {name}, \
             address: 10.0.0.7{more}}}\n"
        )
    };
    let mut mesh = Mesh::new();
    for (meshed, other, told) in [
        ("", ", sidecar: false", Some(("Workload default/other", "spec.address"))),
        (
            ", ports: [{port: 80}]",
            ", sidecar: false, ports: [{port: 81}, {port: 80}]",
            Some(("Workload default/other", "spec.ports[1].port")),
        ),
        (", ports: [{port: 80}]", ", ports: [{port: 80}]", Some(("Workload default/other", "spec.ports[0].port"))),
        (", ports: [{port: 80}]", ", sidecar: false, ports: [{port: 81}]", None),
        (", ports: [{port: 80, dial: 15006}]", ", ports: [{port: 80, dial: 15106}]", None),
        (", ports: [{port: 80, dial: 15006}]", ", sidecar: false", None),
        (", sidecar: false, ports: [{port: 80}]", ", sidecar: false, ports: [{port: 80}]", None),
        (", pod: true", ", ports: [{port: 80, dial: 15006}]", Some(("Workload default/other", "spec.address"))),
        (
            ", sidecar: false, ports: [{port: 80}]",
            ", ports: [{port: 80}]",
            Some(("Workload default/meshed", "spec.ports[0].port")),
        ),
        ("", "", None),
    ] {
        mesh.put("meshed.yaml", &workload("meshed", meshed)).commit();
        mesh.put("other.yaml", &workload("other", other)).commit();
        let is_of_pods = |finding: &&Diagnostic| finding.field == "spec.pod";
        let (of_pods, of_claims): (Vec<_>, Vec<_>) = mesh.report.findings.iter().partition(is_of_pods);
        assert_eq!(!of_pods.is_empty(), meshed.contains("pod: true"), "who writes that into a file is told");
        let places: Vec<(&str, &str)> = of_claims.iter().map(|f| (&*f.object, &*f.field)).collect();
        assert_eq!(places, told.into_iter().collect::<Vec<_>>(), "{meshed} beside {other}");
        assert!(of_claims.iter().all(|finding| finding.message.contains("over mTLS as Workload default/")));
        mesh.take(Change::Remove("meshed.yaml".into())).commit();
        mesh.report.findings.retain(|finding| finding.object == "Workload default/other");
        assert_eq!(mesh.report.findings, [], "alone it is called as itself");
        mesh.take(Change::Remove("other.yaml".into())).commit();
    }
}

#[test]
fn lint_calls_missing_references_errors() {
    let policy =
        "apiVersion: selvedge.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p}\nspec: {targetRef: {name: aa}}\n";
    let findings = linted(&[("a.yaml", &format!("{A}---\n{policy}"))]);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!((findings[0].severity, findings[0].hint.as_str()), (Severity::Error, "did you mean 'a'?"));
}

#[test]
fn lint_tells_what_every_sidecar_would_refuse() {
    let numeric = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: '7'}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: '7', labels: {app: web}}
spec: {serviceAccount: web, address: 10.0.0.1}
";
    let findings = linted(&[("a.yaml", numeric)]);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let found = &findings[0];
    assert_eq!((found.severity, found.place.line, &*found.object), (Severity::Error, 4, "Service 7/web"));
    let why = "no sidecar can put 7/web:80 in force: endpoint 10.0.0.1:80: 'web.7' is no name that TLS can verify";
    assert_eq!(found.message, why);
}

#[tokio::test]
async fn a_running_store_publishes_what_a_directory_holds_and_then_what_changes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), A).unwrap();
    let (sender, mut snapshots) = selvedge_control_plane::snapshot::channel();
    let (reports, mut report) = tokio::sync::watch::channel(Arc::<Reports>::default());
    let (_authority, roots) = tokio::sync::watch::channel(vec![vec![1].into()]);
    let sources =
        vec![Source { name: "files".into(), changes: selvedge_control_plane::source::files::watch(dir.path()) }];
    let running = store::run(Store::new("mesh.local"), sources, roots, sender, reports, nobody());
    let follow = async {
        let first = snapshots.wait_for(|snapshot| snapshot.is_complete()).await.unwrap().clone();
        assert!(first.get(DESTINATION, "default/a").is_some() && first.get(TRUST_BUNDLE, "mesh.local").is_some());
        std::fs::write(dir.path().join("b.yaml"), B).unwrap();
        snapshots.wait_for(|snapshot| snapshot.get(DESTINATION, "default/b").is_some()).await.unwrap();
        report.wait_for(|reports| reports.report().objects.len() == 2).await.unwrap();
    };
    tokio::select! {
        ended = running => panic!("the store ended: {ended:?}"),
        done = tokio::time::timeout(std::time::Duration::from_secs(30), follow) => done.expect("two snapshots"),
    }
}

/// The attachments of the workload `w` as they travel, without the object they come from.
fn documents(snapshot: &Snapshot) -> Vec<String> {
    let inbound = snapshot.get(INBOUND, "default/w").unwrap();
    let inbound = <selvedge_xds::proto::mesh::Inbound as prost::Message>::decode(inbound.body.clone()).unwrap();
    inbound.policies.into_iter().map(|attachment| attachment.document).collect()
}

const W: &str = "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {name: w}\nspec: {serviceAccount: w, address: 10.0.0.1}\n";

fn policy(action: &str, rules: &str) -> String {
    let head = "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n";
    format!("{W}---\n{head}spec: {{action: {action}, rules: {rules}}}\n")
}

#[test]
fn a_rule_that_lost_its_values_leaves_the_version_before_in_force() {
    let good = policy("ALLOW", "[{from: [{serviceAccounts: [a]}]}]");
    let mut mesh = Mesh::new();
    mesh.put("a.yaml", &good).commit();
    let before = documents(&mesh.snapshot);
    for lost in [
        "[{from: [{serviceAccounts: }]}]",
        "[{}], expires: ",
        "[{from: [{serviceAccounts: []}]}]",
        "[{from: []}]",
        "[{from: [{}]}]",
        "[{to: [{}]}]",
    ] {
        mesh.put("a.yaml", &policy("ALLOW", lost)).put("copy.yaml", &good.replace("[a]", "[evil]")).commit();
        assert_eq!(documents(&mesh.snapshot), before, "neither the empty one nor the copy takes its place: {lost}");
    }
    mesh.take(Change::Remove("copy.yaml".into())).commit();
    assert_eq!(documents(&mesh.snapshot), before);
    assert_eq!(mesh.state("p"), (1, false, 1));
    mesh.put("a.yaml", &good.replace("[a]", "[b]")).commit();
    assert_eq!(mesh.state("p"), (2, true, 0));
}

/// An older sidecar reads an empty list as no condition, so none may travel.
#[test]
fn without_a_version_before_it_is_taken_and_travels_as_what_every_sidecar_reads_safely() {
    for (action, rules, expected) in [
        (
            "ALLOW",
            "[{from: [{serviceAccounts: []}]}, {to: [{ports: [1]}]}]",
            r#"{"action":"ALLOW","rules":[{"to":[{"ports":[1]}]}]}"#,
        ),
        ("ALLOW", "[{to: [{}]}]", r#"{"action":"ALLOW","rules":[]}"#),
        ("ALLOW", "[{from: [{serviceAccounts: }]}]", r#"{"action":"ALLOW","rules":[]}"#),
        ("ALLOW", "[{}], expires: ", r#"{"action":"ALLOW","rules":[]}"#),
        ("DENY", "[{from: [{namespaces: [~]}]}]", r#"{"action":"DENY","rules":[{}]}"#),
        ("DENY", "[{from: [{namespaces: [x], notNamespaces: []}]}]", r#"{"action":"DENY","rules":[{}]}"#),
        ("AUDIT", "[{to: []}]", r#"{"action":"AUDIT","rules":[{}]}"#),
    ] {
        let mut mesh = Mesh::new();
        mesh.put("a.yaml", &policy(action, rules)).commit();
        assert_eq!(documents(&mesh.snapshot), [expected]);
        assert_eq!(mesh.state("p"), (1, false, 1), "it is not in force as it is written");
        mesh.put("a.yaml", &policy(action, "[{from: [{namespaces: []}]}, {from: [{}]}]")).commit();
        assert!(!mesh.state("p").1, "it was no good version that could stay");
        mesh.put("a.yaml", &policy(action, "[{}]")).commit();
        assert_eq!(
            (documents(&mesh.snapshot), mesh.state("p").1),
            (vec![format!(r#"{{"action":"{action}","rules":[{{}}]}}"#)], true)
        );
    }
}

#[tokio::test]
async fn a_store_whose_source_ends_says_so_instead_of_standing_still() {
    let (sender, _snapshots) = selvedge_control_plane::snapshot::channel();
    let (reports, _report) = tokio::sync::watch::channel(Arc::default());
    let (_authority, roots) = tokio::sync::watch::channel(Vec::new());
    let (source, changes) = tokio::sync::mpsc::channel(1);
    let sources = vec![Source { name: "files".into(), changes }];
    let running = store::run(Store::new("mesh.local"), sources, roots, sender, reports, nobody());
    source.send(Change::Complete).await.unwrap();
    drop(source);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), running).await.expect("it ends");
    assert!(ended.unwrap_err().to_string().contains("is not followed any more because the source"));
}
