//! `selvedge control-plane`: what it refuses to start with.

use std::process::Command;

use tempfile::TempDir;

#[test]
fn certificates_that_nobody_could_use_are_not_issued() {
    let directory = TempDir::new().expect("a folder");
    let refused = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["control-plane", "--certificate-lifetime", "0s", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .arg("--config-dir")
        .arg(directory.path())
        .arg("--state-dir")
        .arg(directory.path().join("state"))
        .output()
        .expect("selvedge runs");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--certificate-lifetime is 0s"), "{refused:?}");
    assert!(!directory.path().join("state").exists(), "nothing was founded");
}
