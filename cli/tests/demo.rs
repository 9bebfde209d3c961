//! `selvedge demo` as a user runs it: what it prints was measured, and whatever ends it leaves nothing behind.
#![expect(clippy::expect_used, reason = "a test may panic")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// One demo at a time: each is two dozen processes, and what they measure should be the demo.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The demo with a folder for temporary files of its own, as from a terminal, whatever started the tests.
fn demo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_selvedge"), "demo"]).args(arguments);
    command.env("TMPDIR", folder).stdin(Stdio::null());
    command
}

/// Says that a test does not run, past the capture of the test harness, so that every skip shows.
fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {reason}");
}

/// Whether `--transparent` works here; says why when it does not.
fn can_capture() -> bool {
    let tools = ["ip", "nft"].iter().all(|tool| Command::new(tool).arg("-V").output().is_ok());
    let can = rustix::process::geteuid().is_root() && tools;
    if !can {
        skip("transparent capture needs root, iproute2 and nftables");
    }
    can
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
    for _ in 0..3000 {
        if check() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("{what} within a minute");
}

/// Asserts that nothing is left of the demo that was process `id`.
fn nothing_is_left(folder: &Path, id: u32) {
    assert_eq!(processes(folder), Vec::<PathBuf>::new());
    let files: Vec<_> = fs::read_dir(folder).expect("the folder").flatten().map(|entry| entry.path()).collect();
    assert_eq!(files, Vec::<PathBuf>::new());
    let named = |folder: &str, prefix: String| {
        let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with(&prefix)).collect::<Vec<_>>()
    };
    // Capture rules go with the namespaces they are in; none may stand in this one.
    assert!(named("/run/netns", format!("svdemo{id}-")).is_empty(), "namespaces are left");
    for kind in ["br", "x"] {
        assert!(named("/sys/class/net", format!("sv{id}{kind}")).is_empty(), "network devices are left");
    }
    let rules = Command::new("nft").args(["list", "ruleset"]).output().map(|output| output.stdout).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&rules).contains("selvedge"), "rules are left");
}

/// What a demo prints that ends by itself.
fn output(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = demo(folder.path(), arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the demo starts");
    let id = child.id();
    let output = child.wait_with_output().expect("the demo runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    nothing_is_left(folder.path(), id);
    text
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&output(&[arguments, &["-o", "json"]].concat())).expect("one JSON object and nothing else")
}

/// The number that stands right before `after` in the line of the story that begins with `heading`.
fn told(story: &str, heading: &str, after: &str) -> f64 {
    let line = story.lines().find(|line| line.trim_start().starts_with(heading));
    let line = line.unwrap_or_else(|| panic!("nothing about {heading}: {story}"));
    let before = line.split_once(after).unwrap_or_else(|| panic!("no '{after}': {line}")).0;
    let number = before.rsplit(' ').next().and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number before '{after}': {line}"))
}

/// The load's success when the mesh hides the faults. Were the failures of `content-2` seen, one page in ten would fail;
/// what is above is room for requests that a busy machine does not answer in time.
const HIDDEN: f64 = 0.95;

/// How long a demo runs in which a busy machine shall have time for everything that is planted.
const LONG: &str = "30s";

/// The summary of a demo of that duration, or of one of [`LONG`] where it was too short for what has to be seen.
fn check(duration: &str, arguments: &[&str]) -> Value {
    let run = |duration| json(&[&["--duration", duration], arguments].concat());
    let summary = run(duration);
    let missing = missing(&summary);
    if missing.is_empty() {
        return summary;
    }
    println!("once more: {missing:?}, {summary}");
    let summary = run(LONG);
    assert_eq!(self::missing(&summary), Vec::<String>::new(), "{summary}");
    summary
}

/// What was not seen in a demo that takes its time to be seen, after what holds at all times.
fn missing(summary: &Value) -> Vec<String> {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    assert_eq!(number(&summary["mtls_share"]), 1.0, "{summary}");
    let mut missing = Vec::new();
    let mut see = |seen: bool, what: &str| missing.extend((!seen).then(|| what.to_owned()));
    see(number(&summary["requests"]) > 50.0, "requests");
    see(number(&summary["success_rate"]) > HIDDEN, "faults are hidden");
    for planted in ["denied", "rate_limited", "retries", "ready_ms"] {
        see(number(&summary[planted]) > 0.0, planted);
    }
    let services = summary["services"].as_array().expect("services");
    let names: Vec<_> = services.iter().filter_map(|service| service["name"].as_str()).collect();
    assert_eq!(names, ["ui", "content", "auth", "data", "reports", "metrics-log", "integrations"]);
    for service in services {
        assert!(number(&service["sidecar_rss_bytes"]) > 1e6, "{service}");
        if service["name"] != "metrics-log" {
            let calls = ["rps", "p50_ms", "sidecar_cpu_us_per_request"].iter().all(|what| number(&service[what]) > 0.0);
            see(calls && number(&service["success_rate"]) > 0.9, &service.to_string());
            assert!(number(&service["p50_ms"]) <= number(&service["p99_ms"]), "{service}");
        }
    }
    missing
}

#[test]
fn the_demo_measures_what_the_mesh_does_and_ends_by_itself() {
    let _alone = ALONE.blocking_lock();
    let summary = check("10s", &[]);
    // Ten times what docs promise.
    assert!(summary["ready_ms"].as_f64().is_some_and(|ready| ready < 50_000.0), "{summary}");
}

#[test]
fn the_demo_tells_what_became_of_each_planted_fault() {
    let _alone = ALONE.blocking_lock();
    let tells_of = |story: &str, heading| story.lines().any(|line| line.trim_start().starts_with(heading));
    let is_whole = |story: &String| {
        ["retries", "balancing", "denied", "rate limit", "canary"].iter().all(|heading| tells_of(story, *heading))
    };
    let story = Some(output(&["--duration", "8s"])).filter(is_whole);
    let story = story.unwrap_or_else(|| output(&["--duration", LONG]));
    let table = story.lines().skip_while(|line| !line.starts_with(" service"));
    for line in table {
        assert!(line.chars().count() <= 80, "wider than a terminal: {line}");
    }
    let (hidden, seen) =
        (told(&story, "retries", " failures of content-2"), told(&story, "retries", " retries failed"));
    assert!(seen < hidden, "most retries hide what content-2 does: {story}");
    // On a busy machine the others are slow as well.
    assert!(told(&story, "balancing", " % of content's requests") < 25.0, "a third would be a fair share: {story}");
    assert!(told(&story, "denied", " calls reports -> auth (policy_default_deny)") > 0.0, "{story}");
    let (limited, calls) = (told(&story, "rate limit", " of "), told(&story, "rate limit", " calls to integrations"));
    assert!(limited > 0.0 && limited < calls, "{story}");
    // Further off than five standard deviations, for as many pages as there were.
    let pages: Option<f64> = story.lines().find_map(|line| line.split_once(" requests, ")?.0.trim().parse().ok());
    let room = 150.0 / pages.expect("a number of pages").sqrt();
    let canary = told(&story, "canary", " % of the pages");
    assert!((canary - 10.0).abs() < room, "within {room}: {story}");
}

#[test]
fn the_demo_does_the_same_with_captured_connections() {
    if can_capture() {
        let _alone = ALONE.blocking_lock();
        check("4s", &["--transparent"]);
    }
}

#[test]
fn the_product_works_with_a_real_database_server_behind_the_mesh() {
    if let Err(reason) = selvedge_saas::local_postgres::Installed::find() {
        return skip(&reason);
    }
    let _alone = ALONE.blocking_lock();
    check("4s", &["--database", "postgres"]);
}

/// A demo that shows pages already.
fn running(folder: &Path, arguments: &[&str]) -> Child {
    let mut child = demo(folder, arguments).stdout(Stdio::piped()).spawn().expect("the demo starts");
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

/// Runs a demo, ends it with `number`, and looks for what it left.
fn ends_without_a_trace(arguments: &[&str], number: Signal) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = running(folder.path(), arguments);
    signal(&child, number);
    assert!(child.wait().expect("it ends").success(), "{number:?}");
    nothing_is_left(folder.path(), child.id());
}

#[test]
fn ctrl_c_and_a_closed_terminal_leave_no_process_and_no_file() {
    let _alone = ALONE.blocking_lock();
    for number in [Signal::INT, Signal::TERM, Signal::HUP] {
        ends_without_a_trace(&[], number);
    }
}

#[test]
fn ctrl_c_and_a_closed_terminal_leave_no_namespace_and_no_rule() {
    if can_capture() {
        let _alone = ALONE.blocking_lock();
        for number in [Signal::INT, Signal::HUP] {
            ends_without_a_trace(&["--transparent"], number);
        }
    }
}

#[test]
fn no_process_outlives_a_demo_that_was_killed_and_the_next_one_tidies_up() {
    let _alone = ALONE.blocking_lock();
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = running(folder.path(), &[]);
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
