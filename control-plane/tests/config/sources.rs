//! Several sources at once: files, and objects of a cluster that come as they are.

use std::sync::Arc;

use prost::Message;
use selvedge_control_plane::{
    diagnostic::Severity,
    snapshot::Snapshot,
    source::{Change, ClusterObject, Document, Reading, Source},
    store::{self, Memory, Report, Reports, Store},
};
use selvedge_xds::{kinds::DESTINATION, proto::mesh::Destination};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// A step that says what a cluster has.
fn object(name: &str, port: u16, version: u64) -> Change {
    let origin: Arc<str> = format!("cluster east: Service default/{name}").into();
    Change::Put(origin.clone(), Reading::of_cluster(&service(name, port), provenance(origin, version)))
}

fn provenance(name: Arc<str>, version: u64) -> ClusterObject {
    let resource_version = version.to_string().into();
    ClusterObject { name, uid: "7".into(), resource_version, manager: Arc::default(), generation: version }
}

fn service(name: &str, port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": port}]}})
}

fn file(name: &str, port: u16) -> Change {
    Document { origin: format!("mesh/{name}.yaml").into(), text: Ok(service(name, port).to_string().into()) }.put()
}

struct Mesh(Store);

impl Mesh {
    fn new() -> Self {
        let mut store = Store::new("mesh.local");
        store.attend(&"files".into());
        store.attend(&"east".into());
        Self(store)
    }

    fn tell(&mut self, source: &str, steps: impl IntoIterator<Item = Change>) -> (Arc<Snapshot>, Report) {
        for step in steps {
            self.0.take(source, step);
        }
        self.0.take(source, Change::Complete);
        self.0.commit()
    }
}

/// Name, generation, origin and whether it is current.
fn objects(report: &Report) -> Vec<(&str, u64, &str, bool)> {
    let objects = report.objects.iter();
    objects.map(|o| (o.name.as_str(), o.accepted_generation, o.file.as_str(), o.current)).collect()
}

#[test]
fn each_source_is_complete_for_itself_and_together_they_are_the_mesh() {
    let mut mesh = Mesh::new();
    let (snapshot, report) = mesh.tell("files", [file("a", 80)]);
    assert!(!snapshot.is_complete() && !report.complete, "the other has not told everything");
    assert_eq!(objects(&report), [("a", 1, "mesh/a.yaml", true)]);
    mesh.0.take("east", object("b", 80, 1));
    let (snapshot, _) = mesh.tell("files", []);
    assert!(snapshot.get(DESTINATION, "default/b").is_none(), "a state of one source is not that of another");
    let (snapshot, report) = mesh.tell("east", []);
    assert!(snapshot.is_complete() && report.complete);
    let east = "cluster east: Service default/b";
    assert_eq!(objects(&report), [("a", 1, "mesh/a.yaml", true), ("b", 1, east, true)]);
    let (_, report) = mesh.tell("east", [object("b", 81, 2), object("c", 0, 1)]);
    assert_eq!(objects(&report)[1], ("b", 2, east, true));
    let refused = &report.findings[0];
    assert_eq!((refused.severity, &*refused.field), (Severity::Error, "spec.ports[0].port"));
    assert_eq!((&*refused.place.file, refused.place.line), ("cluster east: Service default/c", 0), "it has no lines");
    let (_, report) = mesh.tell("east", [Change::Remove(east.into())]);
    assert_eq!(objects(&report)[0], ("a", 1, "mesh/a.yaml", true));
    assert!(report.objects.iter().all(|object| object.name != "b"));
}

#[test]
fn of_one_object_in_two_sources_the_one_in_force_counts_and_both_are_named() {
    let mut mesh = Mesh::new();
    mesh.tell("east", [object("a", 80, 1)]);
    let (_, report) = mesh.tell("files", [file("a", 81)]);
    let east = "cluster east: Service default/a";
    assert_eq!(objects(&report), [("a", 1, east, true)]);
    let finding = &report.findings[0];
    assert_eq!((&*finding.message, &*finding.place.file), ("Service default/a is written twice", "mesh/a.yaml"));
    assert_eq!(finding.related.as_ref().unwrap().place.file, east);
    let (_, report) = mesh.tell("east", [Change::Remove(east.into())]);
    assert_eq!(objects(&report), [("a", 2, "mesh/a.yaml", true)], "it moves to who still has it");
    assert_eq!(report.findings, []);
}

#[test]
fn what_a_source_has_not_told_yet_after_a_restart_is_never_taken_for_gone() {
    let state = tempfile::tempdir().unwrap();
    let memory = || Memory::new(state.path(), "mesh".as_ref());
    let mut mesh = Mesh::new();
    mesh.tell("files", [file("a", 80)]);
    mesh.tell("east", [object("b", 80, 1)]);
    memory().save(&mesh.0.unsaved().unwrap()).unwrap();

    let restarted = || {
        let mut store = Store::new("mesh.local").remember(&memory());
        store.attend(&"files".into());
        store.attend(&"east".into());
        Mesh(store)
    };
    let mut mesh = restarted();
    let (_, report) = mesh.tell("files", [file("a", 80), file("b", 99)]);
    let east = "cluster east: Service default/b";
    assert_eq!(objects(&report), [("a", 1, "mesh/a.yaml", true), ("b", 1, east, false)], "a copy takes nothing over");
    let unavailable = Change::Unavailable { origin: "cluster east".into(), reason: "no answer".into() };
    let (_, report) = mesh.tell("east", [unavailable]);
    assert_eq!(objects(&report)[1], ("b", 1, east, false));
    assert!(report.findings.iter().any(|finding| finding.message == "no answer"));
    let (_, report) = mesh.tell("east", [object("b", 80, 1)]);
    assert_eq!(objects(&report)[1], ("b", 1, east, true), "of equal content the generation is the same");

    let mut mesh = restarted();
    mesh.tell("files", [file("a", 80)]);
    let (_, report) = mesh.tell("east", []);
    assert_eq!(objects(&report), [("a", 1, "mesh/a.yaml", true)], "now it has told");

    let mut mesh = Mesh(Store::new("mesh.local").remember(&memory()));
    let (_, report) = mesh.tell("files", [file("a", 80)]);
    assert_eq!(objects(&report), [("a", 1, "mesh/a.yaml", true)], "of a source that is there no more nothing stays");
}

#[test]
fn what_a_later_cluster_says_of_a_service_is_read_over_and_what_a_person_misspells_is_told() {
    let later = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a" },
        "spec": {
            "inventedLater": { "a": 1 }, "sessionAffinity": "None",
            "ports": [
                { "name": "db", "port": 27017, "appProtocol": "example.com/mongo", "inventedLater": true },
                { "name": "web", "port": 80, "appProtocol": "HTTP", "nodePort": 30080 },
            ],
        },
    });
    let mut mesh = Mesh::new();
    let put =
        Change::Put("east: Service a".into(), Reading::of_cluster(&later, provenance("east: Service a".into(), 1)));
    let (snapshot, report) = mesh.tell("east", [put]);
    assert_eq!(report.findings.iter().filter(|found| found.severity == Severity::Error).count(), 0, "{report:#?}");
    let destination = snapshot.get(DESTINATION, "default/a").unwrap();
    let ports = Destination::decode(destination.body.clone()).unwrap().ports;
    let spoken: Vec<_> = ports.iter().map(|port| (port.port, &*port.app_protocol)).collect();
    assert_eq!(spoken, [(27017, ""), (80, "http")]);
    let file = Document { origin: "mesh/a.yaml".into(), text: Ok(later.to_string().into()) }.put();
    let (_, report) = Mesh::new().tell("files", [file]);
    let told: Vec<&str> = report.findings.iter().map(|found| &*found.message).collect();
    assert_eq!(told, ["unknown field 'inventedLater'"; 2], "what is spoken on a port is no misspelt field");
}

#[tokio::test]
async fn a_running_store_is_fed_from_both_and_ends_with_either() {
    let (sender, mut snapshots) = selvedge_control_plane::snapshot::channel();
    let (reports, mut report) = watch::channel(Arc::<Reports>::default());
    let (_authority, roots) = watch::channel(Vec::new());
    let (saves, _) = watch::channel(Arc::default());
    let (files, files_changes) = mpsc::channel(1);
    let (east, east_changes) = mpsc::channel(1);
    let sources = vec![
        Source { name: "files".into(), changes: files_changes },
        Source { name: "east".into(), changes: east_changes },
    ];
    let running = tokio::spawn(store::run(Store::new("mesh.local"), sources, roots, sender, reports, saves));
    for step in [file("a", 80), Change::Complete] {
        files.send(step).await.unwrap();
    }
    for step in [object("b", 80, 1), Change::Complete] {
        east.send(step).await.unwrap();
    }
    let follow = async {
        let both =
            |snapshot: &Arc<Snapshot>| snapshot.is_complete() && snapshot.get(DESTINATION, "default/b").is_some();
        let snapshot = snapshots.wait_for(both).await.unwrap().clone();
        assert!(snapshot.get(DESTINATION, "default/a").is_some());
        report.wait_for(|reports| reports.report().objects.len() == 2).await.unwrap();
        drop(east);
        running.await.unwrap()
    };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), follow).await.expect("it goes on, and ends");
    assert!(ended.unwrap_err().to_string().contains("is not followed any more because the source"));
}
