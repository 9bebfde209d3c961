//! What a control plane has in force after a restart: the last good version of everything, as it was before.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use prost::Message;
use selvedge_control_plane::{
    snapshot::Snapshot,
    source::{Change, Document, Source, files},
    store::{self, InForce, Memory, Report, Store},
};
use selvedge_xds::{
    kinds::{DESTINATION, INBOUND},
    proto::mesh::Inbound,
};
use serde_json::json;

const A: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
const B: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 80}]}\n";

/// A control plane's life from its start to its end, over these files.
fn life(state: &Path, config: &Path, states: &[&[(&str, &str)]]) -> (Arc<Snapshot>, Report) {
    let mut memory = Memory::new(state, config);
    let mut store = Store::new("mesh.local").remember(&memory);
    let mut outcome = None;
    for files in states {
        for (file, text) in *files {
            let origin = config.join(file).display().to_string().into();
            store.take("files", Document { origin, text: Ok((*text).into()) }.put());
        }
        store.take("files", Change::Complete);
        outcome = Some(store.commit());
        save(&mut store, &mut memory);
    }
    outcome.expect("at least one state")
}

/// What cannot be saved is in force all the same.
fn save(store: &mut Store, memory: &mut Memory) {
    if let Some(in_force) = store.unsaved() {
        memory.save(&in_force).ok();
    }
}

fn generations(report: &Report) -> Vec<(&str, u64, bool)> {
    report.objects.iter().map(|object| (&*object.name, object.accepted_generation, object.current)).collect()
}

#[test]
fn what_was_kept_before_a_restart_is_kept_after_it_whatever_is_wrong_with_the_file() {
    let config = Path::new("mesh");
    let (good, newer) = (format!("{A}---\n{B}"), format!("{}---\n{B}", A.replace("80", "81")));
    for bad in [newer.replace("port: 81", "prot: 82"), newer.replace("{name: a}", "{name: a"), "kind: [\n".to_owned()] {
        let state = tempfile::tempdir().unwrap();
        let (before, report) = life(state.path(), config, &[&[("a.yaml", &good)], &[("a.yaml", &newer)]]);
        assert_eq!(generations(&report), [("a", 2, true), ("b", 1, true)]);
        for _ in 0..2 {
            let (after, report) = life(state.path(), config, &[&[("a.yaml", &bad)]]);
            let in_force = generations(&report);
            assert_eq!((in_force[0], in_force[1].1), (("a", 2, false), 1), "{bad}");
            for name in ["default/a", "default/b"] {
                let version = |snapshot: &Snapshot| snapshot.get(DESTINATION, name).unwrap().version.clone();
                assert_eq!(version(&after), version(&before), "{name} is not sent again: {bad}");
            }
        }
        let (_, report) = life(state.path(), config, &[&[("a.yaml", &good)]]);
        assert_eq!(generations(&report), [("a", 3, true), ("b", 1, true)], "generations go on");
    }
}

#[test]
fn a_node_that_cannot_be_asked_for_after_a_restart_still_says_where_its_pods_are() {
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: one, labels: {topology.kubernetes.io/zone: a}}\nspec: \
                {podCIDRs: [10.1.0.0/24]}\n";
    let pod = "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {name: pod}\nspec: {serviceAccount: web, \
               address: 10.1.0.5, node: one, pod: true}\n";
    let (state, config) = (tempfile::tempdir().unwrap(), Path::new("mesh"));
    let own = |node: &str| {
        let (snapshot, report) = life(state.path(), config, &[&[("node.yaml", node), ("pod.yaml", pod)]]);
        let told = snapshot.get(INBOUND, "default/pod").unwrap();
        let Inbound { zone, probers, .. } = Inbound::decode(told.body.clone()).unwrap();
        (zone, probers.join(","), report.objects.iter().filter(|object| object.kind == "Node").count())
    };
    let known = ("a".to_owned(), "10.1.0.1".to_owned(), 1);
    assert_eq!(own(node), known);
    assert_eq!(own("kind: [\n"), known);
}

#[test]
fn a_rule_that_lost_its_values_is_taken_from_the_memory_only_where_nothing_better_is_there() {
    let policy = |rules: &str| {
        format!(
            "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec: {{action: ALLOW, rules: {rules}}}\n"
        )
    };
    let (good, empty) = (policy("[{to: [{ports: [1]}]}]"), policy("[{to: [{ports: []}]}]"));
    let config = Path::new("mesh");
    let state = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (_, report) = life(state.path(), config, &[&[("a.yaml", &empty)]]);
        assert_eq!(generations(&report), [("p", 1, false)], "as an older version accepted it");
    }
    let (_, report) = life(state.path(), config, &[&[("a.yaml", &good)]]);
    assert_eq!(generations(&report), [("p", 2, true)]);
    let (_, report) = life(state.path(), config, &[&[("a.yaml", &empty)]]);
    assert_eq!(generations(&report), [("p", 2, false)], "the good one outlives the restart");
    let saved = fs::read_to_string(state.path().join("last-good.json")).unwrap();
    assert!(saved.contains(r#""ports":[1]"#) && !saved.contains(r#""ports":[]"#), "{saved}");
}

#[test]
fn what_was_removed_while_nobody_looked_is_gone_and_its_generation_is_not_used_again() {
    let (state, config) = (tempfile::tempdir().unwrap(), Path::new("mesh"));
    life(state.path(), config, &[&[("a.yaml", A), ("b.yaml", B)]]);
    let (_, report) = life(state.path(), config, &[&[("b.yaml", B)]]);
    assert_eq!(generations(&report), [("b", 1, true)]);
    let (_, report) = life(state.path(), config, &[&[("a.yaml", A), ("b.yaml", B)]]);
    assert_eq!(generations(&report), [("a", 2, true), ("b", 1, true)]);
}

#[test]
fn a_directory_that_cannot_be_read_at_the_start_takes_nothing_away() {
    let (state, config) = (tempfile::tempdir().unwrap(), Path::new("mesh"));
    life(state.path(), config, &[&[("a.yaml", A)]]);
    let mut store = Store::new("mesh.local").remember(&Memory::new(state.path(), config));
    store.take("files", Change::Unavailable { origin: "mesh".into(), reason: "no".into() });
    store.take("files", Change::Complete);
    let (snapshot, report) = store.commit();
    assert_eq!(generations(&report), [("a", 1, false)]);
    assert!(!snapshot.is_complete(), "nobody knows yet what the files say");
    store.take("files", Document { origin: "mesh/a.yaml".into(), text: Ok(A.into()) }.put());
    store.take("files", Change::Complete);
    assert_eq!(generations(&store.commit().1), [("a", 1, true)]);
}

#[test]
fn what_is_on_the_disk_is_private_and_of_no_use_when_it_is_damaged_or_of_another_directory() {
    let (state, config) = (tempfile::tempdir().unwrap(), Path::new("mesh"));
    let path = state.path().join("last-good.json");
    let broken: &[&[(&str, &str)]] = &[&[("a.yaml", "kind: [\n")]];
    let kept = |config: &Path| !life(state.path(), config, broken).1.objects.is_empty();
    life(state.path(), config, &[&[("a.yaml", A)]]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(kept(config) && kept(Path::new("./mesh")), "the same directory, spelt in two ways");
    assert!(!kept(Path::new("other")), "objects of another directory do not come back");
    let whole = fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"", b"{}", b"\xff"] {
        fs::write(&path, damaged).unwrap();
        assert!(!kept(config));
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let (_, report) = life(state.path(), config, &[&[("a.yaml", A)]]);
    assert_eq!(generations(&report), [("a", 1, true)], "a disk that fails keeps nothing from being in force");
}

/// The form of the file was another once; what it has must outlive an upgrade.
#[test]
fn what_was_kept_as_texts_of_files_is_read_too() {
    let (state, config) = (tempfile::tempdir().unwrap(), Path::new("mesh"));
    let counted =
        |name: &str, n: u64| json!({"kind": "Service", "namespace": "default", "name": name, "generation": n});
    let texts = json!([
        {"file": "a.yaml", "text": format!("{A}---\n{B}"), "objects": [counted("a", 3)]},
        {"file": "team/b.yaml", "text": B, "objects": [counted("b", 4)]},
    ]);
    let kept = |dir: &Path| json!({"configDir": dir, "texts": texts, "gone": [counted("c", 7)]}).to_string();
    let path = state.path().join("last-good.json");
    fs::write(&path, kept(&std::path::absolute(config).unwrap())).unwrap();
    let states: &[&[(&str, &str)]] =
        &[&[("a.yaml", "kind: [\n"), ("team/b.yaml", B), ("c.yaml", &A.replace("name: a", "name: c"))]];
    for _ in 0..2 {
        let (_, report) = life(state.path(), config, states);
        assert_eq!(generations(&report), [("a", 3, false), ("b", 4, true), ("c", 8, true)]);
    }
    fs::write(&path, kept(Path::new("/elsewhere"))).unwrap();
    let (_, report) = life(state.path(), config, states);
    assert_eq!(generations(&report), [("b", 1, true), ("c", 1, true)]);
}

#[tokio::test]
async fn a_running_store_waits_for_no_disk_and_what_it_had_is_saved_when_it_ends() {
    let (state, config) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let memory = || Memory::new(state.path(), config.path());
    let (sender, mut snapshots) = selvedge_control_plane::snapshot::channel();
    let (_authority, roots) = tokio::sync::watch::channel(Vec::new());
    let (saves, newest) = tokio::sync::watch::channel(Arc::default());
    let (reports, _) = tokio::sync::watch::channel(Arc::default());
    fs::write(config.path().join("a.yaml"), A).unwrap();
    let sources = vec![Source { name: "files".into(), changes: files::watch(config.path()) }];
    let running = tokio::spawn(store::run(Store::new("mesh.local"), sources, roots, sender, reports, saves));
    let deadline = Duration::from_secs(30);
    // Nobody takes what is to be saved, as with a disk that hangs.
    for (name, text) in [("a", A), ("b", B)] {
        fs::write(config.path().join(format!("{name}.yaml")), text).unwrap();
        let path = format!("default/{name}");
        let has = snapshots.wait_for(|snapshot| snapshot.get(DESTINATION, &path).is_some());
        tokio::time::timeout(deadline, has).await.expect("it goes live").unwrap();
    }
    let has_both = |in_force: &Arc<InForce>| {
        let elsewhere = tempfile::tempdir().unwrap();
        Memory::new(elsewhere.path(), config.path()).save(in_force).unwrap();
        fs::read_to_string(elsewhere.path().join("last-good.json")).unwrap().contains(r#""name":"b""#)
    };
    tokio::time::timeout(deadline, newest.clone().wait_for(has_both)).await.expect("it is told what to save").unwrap();
    running.abort();
    tokio::time::timeout(deadline, store::keep(memory(), newest)).await.expect("it ends with the store");
    let mut after = Store::new("mesh.local").remember(&memory());
    after.take("files", Change::Unavailable { origin: "mesh".into(), reason: "no".into() });
    after.take("files", Change::Complete);
    assert_eq!(generations(&after.commit().1), [("a", 1, false), ("b", 1, false)]);
}
