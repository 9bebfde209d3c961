//! `selvedge demo` as a user runs it: what it prints was measured, and whatever ends it leaves nothing behind.
#![expect(clippy::expect_used, reason = "a test may panic")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// One demo at a time: each is two dozen processes, and what they measure should be the demo.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The demo with a folder for temporary files of its own.
fn demo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
    command.arg("demo").args(arguments).env("TMPDIR", folder).stdin(Stdio::null());
    command
}

/// Processes that work in the folder, which is named on the command line of most and in the environment of all.
fn processes(folder: &Path) -> Vec<PathBuf> {
    let wanted = format!("TMPDIR={}\0", folder.display());
    let all = fs::read_dir("/proc").expect("procfs").filter_map(|entry| Some(entry.ok()?.path()));
    let ours = |process: &PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let zombie = fs::read_to_string(process.join("stat")).is_ok_and(|stat| stat.contains(") Z "));
        !zombie && String::from_utf8_lossy(&environment).contains(&wanted)
    };
    all.filter(ours).collect()
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..500 {
        if check() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("{what} within ten seconds");
}

fn json(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let output = demo(folder.path(), arguments).args(["-o", "json"]).output().expect("the demo runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert_eq!(processes(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "files are left");
    serde_json::from_str(&text).expect("one JSON object and nothing else")
}

/// What holds however fast the machine is.
fn check(summary: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number in {summary}"));
    assert!(number(&summary["requests"]) > 50.0, "{summary}");
    assert!(number(&summary["success_rate"]) > 0.98, "faults are hidden: {summary}");
    assert_eq!(number(&summary["mtls_share"]), 1.0, "{summary}");
    for planted in ["denied", "rate_limited", "retries", "ready_ms"] {
        assert!(number(&summary[planted]) > 0.0, "{planted}: {summary}");
    }
    let services = summary["services"].as_array().expect("services");
    let names: Vec<_> = services.iter().filter_map(|service| service["name"].as_str()).collect();
    assert_eq!(names, ["ui", "content", "auth", "data", "reports", "metrics-log", "integrations"]);
    for service in services {
        assert!(number(&service["sidecar_rss_bytes"]) > 1e6, "{service}");
        if service["name"] != "metrics-log" {
            assert!(number(&service["rps"]) > 0.0 && number(&service["success_rate"]) > 0.9, "{service}");
            assert!(number(&service["p50_ms"]) <= number(&service["p99_ms"]), "{service}");
            assert!(number(&service["sidecar_cpu_us_per_request"]) > 0.0, "{service}");
        }
    }
}

#[test]
fn the_demo_measures_what_the_mesh_does_and_ends_by_itself() {
    let _alone = ALONE.blocking_lock();
    check(&json(&["--duration", "4s"]));
}

#[test]
fn the_demo_does_the_same_with_captured_connections() {
    let tools = ["ip", "nft"].iter().all(|tool| Command::new(tool).arg("-V").output().is_ok());
    if !rustix::process::geteuid().is_root() || !tools {
        println!("skipped: transparent capture needs root, iproute2 and nftables");
        return;
    }
    let _alone = ALONE.blocking_lock();
    check(&json(&["--duration", "4s", "--transparent"]));
}

#[test]
fn the_product_works_with_a_real_database_server_behind_the_mesh() {
    if let Err(reason) = selvedge_saas::local_postgres::Installed::find() {
        println!("skipped: {reason}");
        return;
    }
    let _alone = ALONE.blocking_lock();
    check(&json(&["--duration", "4s", "--database", "postgres"]));
}

/// A demo that shows pages already.
fn running(folder: &Path) -> Child {
    let mut child = demo(folder, &[]).stdout(Stdio::piped()).spawn().expect("the demo starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    while !line.contains("first page through the mesh") {
        line.clear();
        assert!(lines.read_line(&mut line).expect("text") > 0, "the demo ended before it was ready");
    }
    assert!(processes(folder).len() > 20, "services and sidecars are processes");
    // Its output is read to the end, or it would be stopped by a closed pipe.
    std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("a process id");
    kill_process(pid, signal).expect("it runs");
}

#[test]
fn ctrl_c_leaves_no_process_and_no_file() {
    let _alone = ALONE.blocking_lock();
    for number in [Signal::INT, Signal::TERM] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = running(folder.path());
        signal(&child, number);
        assert!(child.wait().expect("it ends").success());
        assert_eq!(processes(folder.path()), Vec::<PathBuf>::new());
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }
}

#[test]
fn no_process_outlives_a_demo_that_was_killed_and_the_next_one_tidies_up() {
    let _alone = ALONE.blocking_lock();
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = running(folder.path());
    signal(&child, Signal::KILL);
    child.wait().expect("it ends");
    eventually("every process is gone", || processes(folder.path()).is_empty());
    let left = || fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(left(), 1, "nobody could remove its folder");
    let next = demo(folder.path(), &["--duration", "1s", "-o", "json"]).output().expect("the demo runs");
    assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
    assert_eq!(left(), 0);
}

#[test]
fn the_end_of_one_process_ends_the_demo_with_its_name() {
    let _alone = ALONE.blocking_lock();
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = demo(folder.path(), &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let auth = || {
        processes(folder.path()).into_iter().find(|process| {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("demo-service\0auth\0")
                && !String::from_utf8_lossy(&line).contains("child\0")
        })
    };
    eventually("auth runs", || auth().is_some());
    let pid = auth().and_then(|path| path.file_name()?.to_str()?.parse().ok()).and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), Signal::KILL).expect("it runs");
    let mut complaint = String::new();
    child.stderr.take().expect("its errors").read_to_string(&mut complaint).expect("text");
    assert!(!child.wait().expect("it ends").success());
    assert!(complaint.contains("auth ended unexpectedly"), "{complaint}");
    assert_eq!(processes(folder.path()), Vec::<PathBuf>::new());
}
