//! `selvedge run`: the command starts when its sidecar can carry its calls, and its end is the end of both.
#![expect(clippy::expect_used, reason = "a test may panic")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

const BINARY: &str = env!("CARGO_BIN_EXE_selvedge");

/// A control plane that knows one workload, and the bootstrap file of that workload's sidecar.
struct Mesh {
    folder: TempDir,
    control_plane: Child,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.control_plane.kill();
        let _ = self.control_plane.wait();
    }
}

impl Mesh {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_owned();
        let path = |name: &str| root.join(name);
        fs::create_dir(path("mesh")).expect("a folder");
        let workload = "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: { name: job, namespace: shop }\n\
                        spec: { serviceAccount: job, address: 127.0.0.1 }\n";
        fs::write(path("mesh/job.yaml"), workload).expect("written");
        let ports = path("ports.json");
        let control_plane = Command::new(BINARY)
            .args(["control-plane", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--config-dir".as_ref(), path("mesh").as_os_str()])
            .args(["--state-dir".as_ref(), path("ca").as_os_str()])
            .args(["--ports-file".as_ref(), ports.as_os_str()])
            .stderr(Stdio::null())
            .spawn()
            .expect("a control plane");
        let mesh = Self { control_plane, folder };
        let address = address(&ports);
        let token = Command::new(BINARY)
            .args(["token", "create", "--identity", "shop/job", "--state-dir"])
            .arg(path("ca"))
            .output()
            .expect("a token");
        fs::write(path("token"), &token.stdout).expect("written");
        let here = root.display();
        let bootstrap = format!(
            "workload: shop/job\ncontrolPlane: {address}\njoinTokenFile: {here}/token\nstateDir: {here}/sidecar\n\
             admin: 127.0.0.1:0\nmetrics: 127.0.0.1:0\nportsFile: {here}/sidecar.json\ndrainDeadline: 1m\n"
        );
        fs::write(path("sidecar.yaml"), bootstrap).expect("written");
        mesh
    }

    fn run(&self, script: &str) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("run").arg("--config").arg(self.folder.path().join("sidecar.yaml"));
        command.args(["--", "sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// The address of the control plane, once it has one.
fn address(ports: &Path) -> String {
    for _ in 0..6000 {
        if let Ok(text) = fs::read_to_string(ports) {
            let ports: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            return ports["listen"].as_str().expect("an address").to_owned();
        }
        sleep(Duration::from_millis(10));
    }
    panic!("the control plane does not come up");
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_command_finds_its_sidecar_ready_and_gives_its_exit_code() {
    let mesh = Mesh::start();
    let ports = mesh.folder.path().join("sidecar.json");
    let start = Instant::now();
    let output = mesh.run(&format!("cat {}; exit 7", ports.display())).output().expect("it runs");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    let ports: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the sidecar's ports");
    let metrics = ports["metrics"].as_str().expect("an address");
    assert!(std::net::TcpStream::connect(metrics).is_err(), "the sidecar has ended too");
    // The deadline of a drain is a minute: the sidecar was told that there will be no more calls.
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn signals_reach_the_command_first() {
    let mesh = Mesh::start();
    let script = "trap 'echo told; exit 3' TERM; echo started; while :; do sleep 0.05; done";
    let mut run = mesh.run(script).spawn().expect("it runs");
    let mut output = BufReader::new(run.stdout.take().expect("its output"));
    let mut line = String::new();
    output.read_line(&mut line).expect("text");
    assert_eq!(line, "started\n");
    let pid = Pid::from_raw(i32::try_from(run.id()).expect("a process id")).expect("a process id");
    kill_process(pid, Signal::TERM).expect("it runs");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("text");
    assert_eq!((rest.as_str(), run.wait().expect("it ends").code()), ("told\n", Some(3)));
}

#[test]
fn without_a_sidecar_there_is_no_command() {
    let mesh = Mesh::start();
    fs::write(mesh.folder.path().join("sidecar.yaml"), "wrokload: shop/job\n").expect("written");
    let output = mesh.run("echo started").output().expect("it runs");
    assert!(!output.status.success());
    assert!(!text(&output).contains("started\n"), "{}", text(&output));
}
