//! `selvedge inject` and `selvedge uninject` on manifests as people write them.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

const SETTINGS: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: InjectionConfig
metadata: { name: selvedge-inject, namespace: selvedge-system }
spec:
  image: registry.test/selvedge-proxy@sha256:1
  captureImage: registry.test/selvedge-capture@sha256:2
  trustBundle: |
    -----BEGIN CERTIFICATE-----
    MIIB
    -----END CERTIFICATE-----
";

/// A Service, a Deployment with a comment and words that are not the same to everybody, and what gets no sidecar.
const SHOP: &str = "# The shop.
apiVersion: v1
kind: Service
metadata: {name: web} # stays as it is
---
# Its pods.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  template:
    metadata:
      annotations:
        config.selvedge.dev/worker: \"2\"
    spec:
      containers:
      - name: web
        image: web
        readinessProbe: {httpGet: {port: http, path: /ready}}
        ports: [{name: http, containerPort: 8080}]
      volumes:
      - name: keys
        secret: {secretName: keys, defaultMode: 0400}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tidy, namespace: shop}
spec:
  jobTemplate:
    spec:
      template:
        metadata: {labels: {selvedge.dev/inject: disabled}}
        spec: {containers: [{name: tidy}]}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: one}, spec: {containers: [{name: one}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: two, namespace: kube-system}, spec: {containers: [{name: two}]}}
";

fn selvedge(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who finds a mistake first does not read on.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn inject(input: &str, settings: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.yaml");
    fs::write(&path, settings).unwrap();
    selvedge(&["inject", "--settings", path.to_str().unwrap()], input)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn documents_get_their_sidecars_or_stay_as_they_are_and_standard_error_says_why() {
    let output = inject(SHOP, SETTINGS);
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    let (before, after): (Vec<&str>, Vec<&str>) = (SHOP.split("---\n").collect(), printed.split("---\n").collect());
    assert_eq!((before[0], before[2]), (after[0], after[2]), "{printed}");
    for kept in ["# Its pods.", "defaultMode: 0400", "name: selvedge-proxy", "name: selvedge-capture"] {
        assert!(after[1].contains(kept), "{kept}:\n{}", after[1]);
    }
    assert!(after[1].contains("          probes: [{port: 8080, path: \"/ready\"}]\n"), "{}", after[1]);
    assert_eq!(after[3].matches("name: selvedge-proxy").count(), 1, "{}", after[3]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "standard input:16: warning: Deployment shop/web: there is no annotation config.selvedge.dev/worker: did you \
             mean 'workers'?",
            "standard input:33: CronJob shop/tidy gets no sidecar: its label selvedge.dev/inject is disabled",
            "standard input:41: Pod kube-system/two gets no sidecar: no sidecar is put into the namespace kube-system",
        ]
    );
}

#[test]
fn a_second_injection_changes_nothing_and_its_opposite_takes_all_of_it_out() {
    let once = text(&inject(SHOP, SETTINGS).stdout);
    let twice = inject(&once, SETTINGS);
    assert_eq!(text(&twice.stdout), once);
    assert!(text(&twice.stderr).contains("Deployment shop/web has its sidecar already"));
    let back = text(&selvedge(&["uninject"], &once).stdout);
    assert!(!back.contains("selvedge-") && !back.contains("selvedge.dev/status"), "{back}");
    assert_eq!(text(&selvedge(&["uninject"], &back).stdout), back);
    assert_eq!(text(&selvedge(&["uninject"], SHOP).stdout), SHOP);
}

#[test]
fn without_what_a_sidecar_needs_nothing_is_printed() {
    for (input, settings, expected) in [
        (SHOP, "kind: Secret\n", "there is no InjectionConfig selvedge-inject"),
        (SHOP, &SETTINGS[..SETTINGS.find("  trustBundle").unwrap()], "mesh not ready"),
        (SHOP, &format!("{SETTINGS}  uid: root\n"), "settings.yaml: the setting uid is 'root': expected a user id"),
        ("a: [\n", SETTINGS, "standard input: line"),
    ] {
        let output = inject(input, settings);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
}

/// The command of the page, word by word, in a folder with the files that it names.
#[test]
fn the_command_of_the_page_puts_sidecars_into_manifests() {
    let page = include_str!("../../docs/kubernetes/injection.md");
    let shown = page.lines().find_map(|line| line.strip_prefix("selvedge inject ")).unwrap();
    let words = shown.split(" | ").next().unwrap().split(' ');
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("shop.yaml"), SHOP).unwrap();
    fs::write(folder.path().join("settings.yaml"), SETTINGS).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
    let output = command.arg("inject").args(words).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).matches("name: selvedge-proxy").count(), 2);
    assert!(text(&output.stderr).starts_with("shop.yaml:16: warning: "), "{}", text(&output.stderr));
}
