//! Network namespaces on one bridge, each with an address, a sidecar and whatever else a test runs there: processes that
//! call one another by address, as pods and machines do. Needs root.

use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    client,
    mesh::Mesh,
    metrics::Metrics,
    namespace::Namespaces,
    process::{Process, binary},
    program, wait,
};

/// Where the test itself is, and the control plane.
pub const HUB: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Where pods find the API server.
pub const API_SERVER: &str = "10.96.0.1";
/// The port of a sidecar's metrics, which capture leaves alone.
const METRICS: u16 = 15020;

/// Runs the test named `name` again in a network namespace where it can make nodes, or `body` when this is that run.
pub fn among<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    Namespaces::network(&bridge()).run(name, body);
}

/// The commands that make the bridge, for tests with namespaces of more kinds.
pub fn bridge() -> String {
    format!(
        "ip link set lo up
        # An address of its own: it would change with every node, and what nodes know of it would be wrong for a while.
        ip link add hub address 02:00:00:00:00:01 type bridge
        ip addr add {HUB}/24 dev hub; ip link set hub up"
    )
}

/// A network namespace with an address of its own.
pub struct Node {
    /// The address of it on the bridge, 10.99.0.N.
    pub address: Ipv4Addr,
    home: PathBuf,
    processes: Vec<Process>,
    /// Keeps the namespace.
    holder: Process,
}

impl Node {
    /// The node with address 10.99.0.`number`, which keeps its files in `folder`.
    pub async fn start(number: u8, folder: &Path) -> Self {
        let home = folder.join(format!("node-{number}"));
        fs::create_dir_all(home.join("state")).expect("a folder");
        let holder = Process::start("holder", Command::new("unshare").args(["-n", "sleep", "infinity"]), &home);
        let namespace = |id: &str| fs::read_link(format!("/proc/{id}/ns/net")).ok();
        let (own, id) = (namespace("self"), holder.id().to_string());
        wait::until_true("the node has a namespace", || async { namespace(&id).is_some_and(|ns| Some(ns) != own) })
            .await;
        let address = Ipv4Addr::new(10, 99, 0, number);
        let script = format!(
            "set -e
            ip link add node{number} type veth peer name eth0 netns {id}
            ip link set node{number} master hub; ip link set node{number} up
            nsenter -t {id} -n sh -ec 'ip link set lo up; ip link set eth0 up; ip addr add {address}/24 dev eth0
                ip route add default via {HUB}'"
        );
        let made = Command::new("sh").args(["-c", &script]).output().expect("sh runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { address, home, processes: Vec::new(), holder }
    }

    /// A command that runs `program` there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-n"]).arg(program).stdin(Stdio::null());
        command
    }

    /// What `program` prints there.
    pub fn prints(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a program there that ends with the node.
    pub fn runs(&mut self, name: &str, program: impl AsRef<OsStr>, args: &[&str]) {
        let mut command = self.command(program);
        // As a kubelet tells every container.
        command.env("KUBERNETES_SERVICE_HOST", API_SERVER).env("KUBERNETES_SERVICE_PORT", "443");
        command.args(args).current_dir(&self.home);
        self.processes.push(Process::start(name, &mut command, &self.home));
    }

    /// Captures every connection and starts the sidecar of `workload`, which runs as `account` (both `namespace/name`), with
    /// more lines in its file. Waits until it is ready.
    pub async fn sidecar(&mut self, mesh: &Mesh, workload: &str, account: &str, more: &str) {
        let token = mesh.selvedge(&["token", "create", "--identity", account, "--workload", workload]);
        let more = format!("joinTokenFile: {}/token\n{more}", self.home.display());
        self.joins(mesh, workload, &token, &more).await;
    }

    /// Starts the sidecar of a pod, which joins by the token of its service account and knows the control plane by `bundle`.
    pub async fn pod(&mut self, mesh: &Mesh, workload: &str, token: &str, bundle: &str) {
        let bundle = bundle.trim().replace('\n', "\n  ");
        let file = format!("serviceAccountTokenFile: {}/token\ntrustBundle: |\n  {bundle}\n", self.home.display());
        self.joins(mesh, workload, token, &file).await;
    }

    async fn joins(&mut self, mesh: &Mesh, workload: &str, token: &str, more: &str) {
        let home = self.home.display();
        fs::write(self.home.join("token"), token).expect("the token");
        let file = format!(
            "workload: {workload}\ncontrolPlane: {}\nstateDir: {home}/state\naccessLogFile: {home}/access.log\n\
             capture: transparent\n{more}",
            mesh.control_plane_address()
        );
        fs::write(self.home.join("sidecar.yaml"), file).expect("the sidecar's file");
        let proxy = binary("selvedge-proxy");
        let applied = self.command(&proxy).args(["capture", "apply"]).output().expect("it runs");
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        self.runs("sidecar", &proxy, &["run", "--config", "sidecar.yaml"]);
        let metrics = self.metrics().address();
        let is_ready = || async { client::get(metrics, "/ready").await.is_ok_and(|answer| answer.status == 200) };
        wait::until_true(&format!("the sidecar of {workload} is ready"), is_ready).await;
    }

    /// Takes the capture rules away.
    pub fn release(&self) {
        let proxy = binary("selvedge-proxy").display().to_string();
        self.prints(&proxy, &["capture", "remove"]);
    }

    /// What its sidecar counts.
    pub fn metrics(&self) -> Metrics {
        Metrics::at(SocketAddr::from((self.address, METRICS)))
    }

    /// What its sidecar has in force (`/config`), which it tells its own node alone.
    pub fn config(&self) -> serde_json::Value {
        let Some(curl) = program("curl") else { return serde_json::Value::Null };
        let text = self.prints(&curl.display().to_string(), &["-s", "http://127.0.0.1:15000/config"]);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Ends the program of that name there, without warning.
    pub fn kill(&mut self, name: &str) {
        self.processes.retain(|process| process.name() != name);
    }
}
