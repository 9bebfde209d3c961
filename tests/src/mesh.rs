//! A mesh of real processes: one control plane and any number of sidecars, each on ports of its own, with its
//! configuration, state and logs in one temporary folder. Everything ends with the value.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    client,
    metrics::Metrics,
    ports::Reserved,
    process::{Process, binary},
    wait,
};

mod sidecar;
pub use sidecar::{Sidecar, Workload};

/// A control plane and the folder everything lives in.
pub struct Mesh {
    folder: TempDir,
    listen: Reserved,
    admin: Reserved,
    settings: Vec<String>,
    control_plane: Option<Process>,
}

impl Mesh {
    /// Starts a control plane on an empty configuration.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a control plane with further command line arguments, for instance `--certificate-lifetime 5s`.
    pub async fn start_with(settings: &[&str]) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, settings).await
    }

    /// Starts a control plane that sidecars reach at this address of the machine.
    pub async fn start_on(address: Ipv4Addr, settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("selvedge-test-").tempdir().expect("a temporary folder");
        for name in ["config", "state"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let settings = settings.iter().map(|&text| text.to_owned()).collect();
        let (listen, admin) = (Reserved::on(address), Reserved::new());
        let mut mesh = Self { folder, listen, admin, settings, control_plane: None };
        mesh.start_control_plane().await;
        mesh
    }

    /// Starts the control plane, for the first time or again, on the same ports, files and state.
    pub async fn start_control_plane(&mut self) {
        self.launch_control_plane();
        let listen = self.listen.address();
        wait::until_true("the control plane listens", || client::accepts(listen)).await;
    }

    /// Starts the control plane without waiting for anything.
    pub fn launch_control_plane(&mut self) {
        let mut command = Command::new(binary("selvedge"));
        command.arg("control-plane").args(["--listen", &self.listen.address().to_string()]);
        command.args(["--admin", &self.admin.address().to_string()]).args(&self.settings);
        command.arg("--audit-log").arg(self.folder().join("audit.log"));
        command.arg("--config-dir").arg(self.config_dir()).arg("--state-dir").arg(self.state_dir());
        self.control_plane = Some(Process::start("control-plane", &mut command, self.folder()));
    }

    /// Kills the control plane without warning.
    pub fn kill_control_plane(&mut self) {
        self.control_plane = None;
    }

    /// Where sidecars find the control plane.
    pub fn control_plane_address(&self) -> SocketAddr {
        self.listen.address()
    }

    /// The control plane's admin address.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// What the control plane counts.
    pub fn metrics(&self) -> Metrics {
        Metrics::at(self.admin())
    }

    /// The control plane's process id.
    pub fn control_plane_id(&self) -> u32 {
        self.control_plane.as_ref().map(Process::id).expect("it runs")
    }

    /// What the control plane has logged.
    pub fn control_plane_log(&self) -> String {
        self.control_plane.as_ref().map(Process::log).unwrap_or_default()
    }

    /// The lines of the control plane's audit log so far, as JSON.
    pub fn audit_log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.folder().join("audit.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Writes one configuration file, as an editor saves: whole, by rename.
    pub fn write(&self, name: &str, yaml: &str) {
        let draft = self.folder().join(format!("{name}.draft"));
        fs::write(&draft, yaml).expect("a draft");
        fs::rename(&draft, self.config_dir().join(name)).expect("the draft takes the file's place");
    }

    /// Removes one configuration file.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.config_dir().join(name)).expect("the file was there");
    }

    /// Declares the service `namespace/name` on `port`, backed by workloads with label `app: name` on
    /// `target_port`. `protocol` is the `appProtocol`, empty for "detect it".
    pub fn service(&self, service: &str, port: u16, target_port: u16, protocol: &str) {
        let (namespace, name) = split(service);
        let protocol = if protocol.is_empty() { String::new() } else { format!(", appProtocol: {protocol}") };
        let yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  selector: \
             {{app: {name}}}\n  ports:\n  - {{name: main, port: {port}, targetPort: {target_port}{protocol}}}\n"
        );
        self.write(&format!("service-{namespace}-{name}.yaml"), &yaml);
    }

    /// Declares `workload`, starts its sidecar and waits until it is ready.
    pub async fn sidecar(&self, workload: Workload) -> Sidecar {
        let sidecar = self.start_sidecar(workload);
        sidecar.ready().await;
        sidecar
    }

    /// Declares `workload` and starts its sidecar, without waiting.
    pub fn start_sidecar(&self, workload: Workload) -> Sidecar {
        let (namespace, name) = split(workload.name());
        self.write(&format!("workload-{namespace}-{name}.yaml"), &workload.document());
        let home = self.folder().join(format!("sidecar-{namespace}-{name}"));
        fs::create_dir_all(home.join("state")).expect("a folder for the sidecar");
        let token = workload.pod_token().map_or_else(|| self.token(&workload), str::to_owned);
        fs::write(home.join("token"), token).expect("the token");
        Sidecar::start(workload, self.listen.address(), home)
    }

    /// A join token for `workload`.
    pub fn token(&self, workload: &Workload) -> String {
        self.selvedge(&["token", "create", "--identity", &workload.account(), "--workload", workload.name()])
    }

    /// What `selvedge` prints for `arguments` on the state directory of this control plane.
    pub fn selvedge(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binary("selvedge"));
        command.args(arguments).arg("--state-dir").arg(self.state_dir()).stdin(Stdio::null());
        let output = command.output().expect("selvedge runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints text").trim().to_owned()
    }

    /// The folder with everything of this mesh.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the control plane reads its configuration.
    pub fn config_dir(&self) -> PathBuf {
        self.folder().join("config")
    }

    /// Where the control plane keeps its keys.
    pub fn state_dir(&self) -> PathBuf {
        self.folder().join("state")
    }
}

/// `namespace/name` as its two parts.
fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or_else(|| panic!("'{name}' is not namespace/name"))
}
