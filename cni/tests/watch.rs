//! The plugin as a DaemonSet keeps it on a node, by its real program. No right is needed: the folders are the test's.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const LIST: &str = r#"{"cniVersion":"0.3.1","name":"pods","plugins":[{"type":"bridge"}]}"#;

struct Node {
    folder: TempDir,
}

impl Node {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["bin", "net.d"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn list(&self) -> PathBuf {
        self.folder.path().join("net.d/10-pods.conflist")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge-cni"));
        command.args(arguments).arg("--bin-dir").arg(self.folder.path().join("bin"));
        command.arg("--conf-dir").arg(self.folder.path().join("net.d")).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn is_installed(&self) -> bool {
        self.command(&["check"]).status().unwrap().success()
    }

    fn has_program(&self) -> bool {
        self.folder.path().join("bin/selvedge-cni").exists()
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(25));
    }
    panic!("this did not happen: {what}");
}

fn end(mut child: Child) -> ExitStatus {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    child.wait().unwrap()
}

#[test]
fn it_waits_for_a_network_and_stays_in_a_chain_that_others_write_anew() {
    let node = Node::new();
    let watch = node.command(&["watch"]).spawn().unwrap();
    until("the program is there before any chain", || node.has_program());
    assert!(!node.is_installed());
    for number in 0..3 {
        let draft = node.folder.path().join("draft");
        fs::write(&draft, LIST.replace("pods", &format!("pods{number}"))).unwrap();
        fs::rename(&draft, node.list()).unwrap();
        until("the chain names it again", || node.is_installed());
        assert!(fs::read_to_string(node.list()).unwrap().contains(&format!("pods{number}")));
    }
    fs::remove_file(node.folder.path().join("bin/selvedge-cni")).unwrap();
    until("the program is back", || node.is_installed());
    assert!(end(watch).success());
    assert!(node.is_installed(), "an update of the DaemonSet leaves it");
}

#[test]
fn it_goes_where_it_is_told_to() {
    let node = Node::new();
    fs::write(node.list(), LIST).unwrap();
    let watch = node.command(&["watch", "--remove-on-exit"]).spawn().unwrap();
    until("it is installed", || node.is_installed());
    assert!(end(watch).success());
    assert!(!node.has_program());
    assert!(!fs::read_to_string(node.list()).unwrap().contains("selvedge-cni"));
}
