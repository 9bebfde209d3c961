//! The example's policies are valid, and they are least privilege: exactly the calls of the picture are allowed.
#![expect(clippy::expect_used, reason = "a test may panic")]

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

fn documents() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh");
    let mut documents = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder of the example") {
        let path = entry.expect("a file").path();
        let text = fs::read_to_string(&path).expect("text");
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        let parsed: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        documents.extend(parsed.into_iter().map(|document| (file.clone(), document)));
    }
    documents
}

#[test]
fn the_linter_finds_nothing_and_every_file_is_compiled_in() {
    let documents = documents();
    assert!(documents.len() > 30, "{} documents", documents.len());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh");
    let findings = selvedge_control_plane::store::lint(&folder).expect("a readable folder");
    assert!(findings.is_empty(), "{findings:#?}");
    let files: BTreeSet<&str> = documents.iter().map(|(file, _)| &**file).collect();
    let compiled = selvedge_saas::mesh::POLICIES.iter().chain(&selvedge_saas::mesh::PLACES).map(|(file, _)| *file);
    assert_eq!(compiled.collect::<BTreeSet<_>>(), files);
}

#[test]
fn only_the_calls_of_the_picture_are_allowed() {
    let mut edges = BTreeSet::new();
    for (_, document) in documents().iter().filter(|(_, document)| document["kind"] == "AuthorizationPolicy") {
        let spec = &document["spec"];
        assert_eq!(spec["action"], "ALLOW");
        for rule in spec["rules"].as_array().expect("rules") {
            assert!(rule["to"].as_array().is_some_and(|to| !to.is_empty()), "only named operations: {rule}");
            for source in rule["from"].as_array().expect("sources") {
                for account in source["serviceAccounts"].as_array().expect("accounts") {
                    let (from, to) = (account.as_str().expect("a name"), spec["targetRef"]["name"].as_str());
                    edges.insert(format!("{from} -> {}", to.expect("a target")));
                }
            }
        }
    }
    let log = ["auth", "content", "data", "integrations", "reports", "ui"].map(|from| format!("{from} -> metrics-log"));
    let calls = [
        "ingress -> ui",
        "ui -> auth",
        "ui -> content",
        "ui -> reports",
        "ui -> integrations",
        "auth -> data",
        "content -> data",
        "reports -> data",
        "data -> postgres",
    ];
    let expected: BTreeSet<String> = calls.iter().map(ToString::to_string).chain(log).collect();
    assert_eq!(edges, expected);
}
