//! `selvedge token create`: what it prints, where it warns, and what it does not make.

use std::process::{Command, Output};

use tempfile::TempDir;

fn create(state: &TempDir, more: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["token", "create", "--identity", "shop/api", "--state-dir"])
        .arg(state.path())
        .args(more)
        .output()
}

#[test]
fn a_directory_without_an_authority_is_pointed_out() {
    let state = TempDir::new().expect("a folder");
    let first = create(&state, &[]).expect("selvedge runs");
    assert!(first.status.success() && first.stdout.starts_with(b"sv1."), "{first:?}");
    assert!(String::from_utf8_lossy(&first.stderr).contains("there was no CA"), "{first:?}");
    let second = create(&state, &[]).expect("selvedge runs");
    assert!(second.status.success() && second.stderr.is_empty(), "{second:?}");
}

#[test]
fn a_token_nobody_could_use_is_not_made() {
    let state = TempDir::new().expect("a folder");
    let refused = create(&state, &["--ttl", "0s"]).expect("selvedge runs");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(refused.stdout.is_empty() && String::from_utf8_lossy(&refused.stderr).contains("--ttl"), "{refused:?}");
}
