//! One sidecar process and what its workload serves and calls.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use super::split;
use crate::{
    client,
    manager::Manager,
    metrics::Metrics,
    ports::Reserved,
    process::{Process, binary},
    wait,
};

/// A workload to put a sidecar beside.
pub struct Workload {
    name: String,
    account: String,
    serves: Vec<(u16, SocketAddr, Reserved)>,
    calls: Vec<(String, Reserved)>,
    extra: String,
    label: String,
    capture: &'static str,
    pod: Option<Pod>,
    node: Option<String>,
}

/// What a pod is given by its cluster.
struct Pod {
    token: String,
    trust_bundle: String,
}

impl Workload {
    /// A workload `namespace/name` with the service account `name`, that serves and calls nothing yet.
    pub fn new(name: &str) -> Self {
        let account = split(name).1.to_owned();
        let label = account.clone();
        Self {
            name: name.to_owned(),
            account,
            serves: Vec::new(),
            calls: Vec::new(),
            extra: String::new(),
            label,
            capture: "explicit",
            pod: None,
            node: None,
        }
    }

    /// Is a pod: the sidecar has its bootstrap in its environment, and joins with the token of its service account.
    #[must_use]
    pub fn in_pod(mut self, token: &str, trust_bundle: &str) -> Self {
        self.pod = Some(Pod { token: token.to_owned(), trust_bundle: trust_bundle.to_owned() });
        self
    }

    /// The token of the service account, of a pod.
    pub(super) fn pod_token(&self) -> Option<&str> {
        self.pod.as_ref().map(|pod| &*pod.token)
    }

    /// Backs the service `app` of its namespace instead of the one of its own name.
    #[must_use]
    pub fn backs(mut self, app: &str) -> Self {
        self.label = app.to_owned();
        self
    }

    /// Runs as another service account.
    #[must_use]
    pub fn runs_as(mut self, account: &str) -> Self {
        self.account = account.to_owned();
        self
    }

    /// Answers on `port`, the port that policies see, with the application that listens on `application`.
    #[must_use]
    pub fn serves(mut self, port: u16, application: SocketAddr) -> Self {
        self.serves.push((port, application, Reserved::new()));
        self
    }

    /// Calls `namespace/service:port` through a local port of its own.
    #[must_use]
    pub fn calls(mut self, destination: &str) -> Self {
        self.calls.push((destination.to_owned(), Reserved::new()));
        self
    }

    /// Gets its connections by redirection.
    #[must_use]
    pub fn captured(mut self) -> Self {
        self.capture = "transparent";
        self
    }

    /// Is a pod on the node of that name.
    #[must_use]
    pub fn on_node(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// Adds lines to the sidecar's bootstrap file.
    #[must_use]
    pub fn with(mut self, yaml: &str) -> Self {
        self.extra.push_str(yaml);
        self
    }

    /// The name of the workload, `namespace/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `namespace/service-account`.
    pub(super) fn account(&self) -> String {
        format!("{}/{}", split(&self.name).0, self.account)
    }

    /// The `Workload` object.
    pub(super) fn document(&self) -> String {
        let (namespace, name) = split(&self.name);
        let mut yaml = format!(
            "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
             labels: {{app: {}}}\nspec:\n  serviceAccount: {}\n  address: 127.0.0.1\n",
            self.label, self.account
        );
        if let Some(node) = &self.node {
            writeln!(yaml, "  pod: true\n  node: {node}").expect("a string grows");
        }
        if !self.serves.is_empty() {
            yaml.push_str("  ports:\n");
        }
        for (port, _, listen) in &self.serves {
            writeln!(yaml, "  - {{port: {port}, dial: {}}}", listen.address().port()).expect("a string grows");
        }
        yaml
    }

    fn bootstrap(&self, control_plane: SocketAddr, home: &Path, admin: SocketAddr, metrics: SocketAddr) -> String {
        let token = match &self.pod {
            None => "joinTokenFile".to_owned(),
            Some(pod) => {
                format!("trustBundle: |\n  {}\nserviceAccountTokenFile", pod.trust_bundle.replace('\n', "\n  "))
            }
        };
        let mut yaml = format!(
            "workload: {}\ncontrolPlane: {control_plane}\n{token}: {home}/token\nstateDir: {home}/state\nadmin: \
             {admin}\nmetrics: {metrics}\nportsFile: {home}/ports.json\naccessLogFile: {home}/access.log\nauditLogFile: \
             {home}/audit.log\ncapture: {}\n",
            self.name,
            self.capture,
            home = home.display()
        );
        for (index, (port, application, listen)) in self.serves.iter().enumerate() {
            let heading = if index == 0 { "inbound:\n" } else { "" };
            let listen = listen.address();
            writeln!(yaml, "{heading}- {{listen: {listen}, forward: {application}, port: {port}}}")
                .expect("a string grows");
        }
        for (index, (destination, listen)) in self.calls.iter().enumerate() {
            let heading = if index == 0 { "outbound:\n" } else { "" };
            writeln!(yaml, "{heading}- {{listen: {}, to: '{destination}'}}", listen.address()).expect("a string grows");
        }
        yaml + &self.extra
    }
}

/// A sidecar that runs as a process of its own.
pub struct Sidecar {
    workload: Workload,
    home: PathBuf,
    admin: Reserved,
    metrics: Reserved,
    process: Process,
}

impl Sidecar {
    pub(super) fn start(workload: Workload, control_plane: SocketAddr, home: PathBuf) -> Self {
        let (admin, metrics) = (Reserved::new(), Reserved::new());
        let bootstrap = workload.bootstrap(control_plane, &home, admin.address(), metrics.address());
        fs::write(home.join("sidecar.yaml"), bootstrap).expect("the bootstrap file");
        let process = Self::spawn(&workload, &home, &[]);
        Self { workload, home, admin, metrics, process }
    }

    fn spawn(workload: &Workload, home: &Path, arguments: &[&str]) -> Process {
        Process::start(&workload.name, &mut Self::command(workload, home, arguments), home)
    }

    fn command(workload: &Workload, home: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("selvedge-proxy"));
        let file = home.join("sidecar.yaml");
        if workload.pod.is_some() {
            let text = fs::read_to_string(&file).expect("the bootstrap");
            command.args(["run", "--config-env", "SELVEDGE_CONFIG"]).env("SELVEDGE_CONFIG", text);
        } else {
            command.arg("run").arg("--config").arg(file);
        }
        command.args(arguments);
        command
    }

    /// Whether `/ready` answers 200.
    pub async fn is_ready(&self) -> bool {
        client::get(self.metrics.address(), "/ready").await.is_ok_and(|answer| answer.status == 200)
    }

    /// Waits until `/ready` says so.
    pub async fn ready(&self) {
        let what = format!("the sidecar of {} is ready", self.workload.name);
        wait::until_true(&what, || self.is_ready()).await;
    }

    /// Where peers reach the application's `port`: the sidecar's inbound listener.
    pub fn inbound(&self, port: u16) -> SocketAddr {
        let found = self.workload.serves.iter().find(|(served, ..)| *served == port);
        found.unwrap_or_else(|| panic!("{} does not serve {port}", self.workload.name)).2.address()
    }

    /// Where the application calls `destination`: the sidecar's outbound listener.
    pub fn outbound(&self, destination: &str) -> SocketAddr {
        let found = self.workload.calls.iter().find(|(called, _)| called == destination);
        found.unwrap_or_else(|| panic!("{} does not call {destination}", self.workload.name)).1.address()
    }

    /// Where it answers its operator: `/config`, `/metrics` and health.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The folder with its bootstrap file, state and logs.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The process of the sidecar, to end or to look at.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The lines of the access log so far, as JSON.
    pub fn access_log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.home.join("access.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The lines of the audit log so far, as JSON.
    pub fn audit_log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.home.join("audit.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What the sidecar counts, as it tells at its metrics address.
    pub fn metrics(&self) -> Metrics {
        Metrics::at(self.metrics.address())
    }

    /// The number of [`Metrics::value`].
    pub async fn metric(&self, metric: &str, labels: &[&str]) -> f64 {
        self.metrics().value(metric, labels).await
    }

    /// SIGTERM, and what it exited with. It waits until its application takes no connections any more, or the deadline.
    pub async fn stop(mut self) -> ExitStatus {
        self.process.terminate();
        self.process.ended().await
    }

    /// Kills the process without warning and starts it again on the same ports and state.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = Self::spawn(&self.workload, &self.home, &[]);
    }

    /// Starts it anew under a service manager, once the process before has ended.
    pub fn start_under(&mut self, manager: &Manager) {
        let command = Self::command(&self.workload, &self.home, &[]);
        self.process = Process::start(&self.workload.name, &mut manager.wrap(&command, 500), &self.home);
    }

    /// Starts a process that is to take the place of the running one.
    pub fn start_replacement(&self) -> Process {
        Self::spawn(&self.workload, &self.home, &["--replace"])
    }

    /// Replaces the process by a new one, which is this sidecar's from now on; the one before, which finishes.
    pub fn replace(&mut self) -> Process {
        let new = self.start_replacement();
        std::mem::replace(&mut self.process, new)
    }

    /// Kills the process and starts it again on the same ports, without anything it has learnt: as on a node that was
    /// restarted, where a pod keeps what it was created with, and nothing else.
    pub fn restart_without_state(&mut self) {
        self.process.kill();
        fs::remove_dir_all(self.home.join("state")).expect("its state is removed");
        self.process = Self::spawn(&self.workload, &self.home, &[]);
    }
}
