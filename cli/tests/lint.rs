//! `selvedge lint` as an operator and a pipeline meet it: what it prints, and its exit codes.
#![cfg(test)]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

const GOOD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";
const BAD: &str = "apiVersion: v1\nkind: Sevrice\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";

fn lint(dir: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_selvedge")).arg("lint").arg(dir).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_clean_directory_is_exit_code_0() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), GOOD).unwrap();
    let output = lint(dir.path(), &[]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "no findings: 1 object in 1 file (1 Service)\n")
    );
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn findings_are_exit_code_1_with_place_and_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("good.yaml"), GOOD).unwrap();
    fs::write(dir.path().join("bad.yaml"), BAD).unwrap();
    let output = lint(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let out = text(&output.stdout);
    for part in [
        "unknown kind 'Sevrice'",
        "bad.yaml:2:7",
        "did you mean 'Service'?",
        "1 error, 0 warnings: 1 object in 2 files",
    ] {
        assert!(out.contains(part), "{part:?} is missing in\n{out}");
    }
    let output = lint(dir.path(), &["-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["errors"], &report["warnings"]), (&1.into(), &0.into()));
    let finding = &report["findings"][0];
    assert_eq!((&finding["line"], &finding["column"], &finding["field"]), (&2.into(), &7.into(), &"kind".into()));
    assert_eq!(finding["severity"], "error");
}

#[test]
fn warnings_alone_are_exit_code_1_too() {
    let dir = tempfile::tempdir().unwrap();
    let unselected = GOOD.replace("{ports:", "{selector: {app: web}, ports:");
    fs::write(dir.path().join("a.yaml"), unselected).unwrap();
    let output = lint(dir.path(), &[]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(out.contains("0 errors, 1 warning"), "{out}");
}

#[test]
fn usage_and_input_errors_are_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(lint(&dir.path().join("absent"), &[]).status.code(), Some(2));
    assert_eq!(lint(dir.path(), &["--no-such-flag"]).status.code(), Some(2));
}

/// A policy about a network with bits that do not count, on line 4, and a method in small letters.
const ODD: &str = "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n\
                   spec: {action: DENY, rules: [{from: [{ipBlocks: ['10.1.2.3/8', 10.2.0.0/16]}], to: [{methods: [get]}]}]}\n";

#[test]
fn single_files_and_what_comes_in_are_checked_together() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("good.yaml");
    fs::write(&file, GOOD).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["lint", "-"])
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let policy = ODD.replace("action", "targetRef: {kind: Service, name: web}, action").replace("[get]", "[GET]");
    child.stdin.take().unwrap().write_all(policy.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    for part in ["warning[host_bits]", "stdin:4:", "2 objects in 2 files (1 AuthorizationPolicy, 1 Service)"] {
        assert!(out.contains(part), "{part:?} is missing in\n{out}");
    }
}

#[test]
fn a_directory_without_files_and_a_name_that_is_passed_over_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let output = lint(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("warning[nothing_read]"), "{}", text(&output.stdout));
    fs::write(dir.path().join("policies.yml.txt"), ODD).unwrap();
    let output = lint(dir.path(), &[]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(out.contains("warning[misnamed_file]") && out.contains("did you mean 'policies.yml'?"), "{out}");
}

#[test]
fn what_is_passed_over_is_a_note_and_no_finding() {
    let dir = tempfile::tempdir().unwrap();
    let deployment = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {}\n";
    fs::write(dir.path().join("a.yaml"), [GOOD, deployment].concat()).unwrap();
    let output = lint(dir.path(), &[]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}");
    assert!(out.contains("1 document is not of the mesh and passed over: 1 Deployment"), "{out}");
    assert!(out.contains("no findings, 1 note: 1 object in 1 file (1 Service)"), "{out}");
}

#[test]
fn what_is_certain_is_written_into_the_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, ODD.replace("name: p", "name: P")).unwrap();
    let output = lint(dir.path(), &["--fix"]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    let fixed = fs::read_to_string(&file).unwrap();
    assert!(fixed.contains("methods: [GET]") && fixed.contains("name: P"), "{fixed}");
    fs::write(&file, ODD).unwrap();
    // A sound object is needed before it is told what is odd in it.
    for _ in 0..2 {
        lint(dir.path(), &["--fix"]);
    }
    let fixed = fs::read_to_string(&file).unwrap();
    assert_eq!(fixed, ODD.replace("'10.1.2.3/8'", "'10.0.0.0/8'").replace("[get]", "[GET]"));
    let of_stdin = Command::new(env!("CARGO_BIN_EXE_selvedge")).args(["lint", "--fix", "-"]).output().unwrap();
    assert_eq!(of_stdin.status.code(), Some(2));
}

#[test]
fn sarif_has_each_finding_with_rule_place_and_fix() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a b.yaml"), ODD).unwrap();
    let output = lint(dir.path(), &["-o", "sarif"]);
    assert_eq!(output.status.code(), Some(1));
    let log: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let results = run["results"].as_array().unwrap();
    let result = results.iter().find(|result| result["level"] == "error").unwrap();
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["id"] == result["ruleId"]), "{result}");
    let place = &result["locations"][0]["physicalLocation"];
    let uri = place["artifactLocation"]["uri"].as_str().unwrap();
    assert!(uri.starts_with("file:///") && uri.ends_with("/a%20b.yaml"), "{uri}");
    let column = ODD.lines().nth(3).unwrap().find("get").unwrap() + 1;
    let region = serde_json::json!({ "startLine": 4, "startColumn": column, "endColumn": column + 3 });
    assert_eq!(place["region"], region);
    let replaced = &result["fixes"][0]["artifactChanges"][0]["replacements"][0];
    assert_eq!((&replaced["deletedRegion"], &replaced["insertedContent"]["text"]), (&region, &"GET".into()));
    assert!(result["partialFingerprints"]["selvedge/v1"].is_string());
}

#[test]
fn nobody_has_to_read_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..50 {
        fs::write(dir.path().join(format!("{n}.yaml")), BAD).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .arg("lint")
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), ""));
}
