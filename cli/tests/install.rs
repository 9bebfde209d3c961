//! `selvedge install` as people run it.
#![expect(clippy::expect_used, reason = "a test may panic")]

use std::{
    fs,
    process::{Command, Output},
};

use selvedge_inject::setting;
use selvedge_install::{control_plane, version::Injector};

fn selvedge(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_selvedge")).args(arguments).output().expect("selvedge runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn it_prints_the_same_objects_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("images.json");
    let digest = format!("sha256:{}", "1".repeat(64));
    let images = ["selvedge", "selvedge-proxy", "selvedge-capture"].map(|name| format!("\"{name}\": \"{digest}\""));
    fs::write(&list, format!("{{{}}}", images.join(","))).expect("a file");
    let list = list.display().to_string();
    let arguments = ["install", "--images", &list, "--registry", "registry.example/mesh"];
    let (first, second) = (selvedge(&arguments), selvedge(&arguments));
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert_eq!(first.stdout, second.stdout);
    let printed = text(&first.stdout);
    assert!(printed.starts_with("---\napiVersion: v1\nkind: Namespace\n"), "{}", &printed[..200]);
    assert!(printed.contains(&format!("registry.example/mesh/selvedge-proxy@{digest}")));
    assert!(printed.contains("kind: MutatingAdmissionPolicy\n") && !printed.contains("--webhook"));

    let version = |version| selvedge(&[&arguments[..], &["--kubernetes-version", version]].concat());
    let older = text(&version("1.35").stdout);
    assert!(older.contains("kind: MutatingWebhookConfiguration\n") && older.contains("--webhook"));
    assert!(!older.contains("kind: MutatingAdmissionPolicy"), "an API server of 1.35 does not know it");
    let newer = version("1.38");
    assert_eq!(text(&newer.stdout), printed);
    assert!(text(&newer.stderr).contains("tried up to Kubernetes 1.37"), "{}", text(&newer.stderr));
}

#[test]
fn it_refuses_what_is_not_certain_and_says_what_to_do() {
    for (arguments, what) in [
        (vec!["install"], "make image"),
        (vec!["install", "--registry", "registry.example"], "make image"),
        (vec!["install", "--images", "/nowhere/images.json", "--registry", "registry.example"], "/nowhere/images.json"),
        (vec!["install", "--kubernetes-version", "1.30"], "1.31 is the oldest"),
        (vec!["install", "--crds", "--images", "a"], "--crds"),
    ] {
        let refused = selvedge(&arguments);
        let told = text(&refused.stderr);
        assert!(!refused.status.success() && told.contains(what), "{arguments:?}: {told}");
    }
}

#[test]
fn the_control_plane_knows_the_arguments_that_it_is_started_with() {
    let arguments = control_plane::arguments(Injector::Webhook, &[(&setting::CAPTURE, "cni".to_owned())]);
    let help = text(&selvedge(&[&arguments[0], "--help"]).stdout);
    for flag in arguments.iter().filter(|argument| argument.starts_with("--")) {
        assert!(help.contains(flag.as_str()), "selvedge {} has no {flag}", arguments[0]);
    }
}
