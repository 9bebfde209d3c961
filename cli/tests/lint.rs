//! `selvedge lint` as an operator and a pipeline meet it: what it prints, and its exit codes.
#![cfg(test)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
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
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "no findings\n"));
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
    for part in ["unknown kind 'Sevrice'", "bad.yaml:2:7", "did you mean 'Service'?", "1 error, 0 warnings"] {
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
