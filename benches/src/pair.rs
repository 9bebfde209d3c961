//! Our pair: a control plane over a directory, and one sidecar on each side, started as an operator would.

use std::{
    ffi::OsStr,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::{
    net::TcpStream,
    process::Command,
    time::{sleep, timeout},
};

use crate::{port::Port, process::Process};

/// A mesh of two workloads: `web` calls `api`, over HTTP/1 on port 80 and over HTTP/2 on port 81.
const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: { name: api, namespace: bench }
spec:
  selector: { app: api }
  ports:
    - { name: one, port: 80, targetPort: 8080, appProtocol: http }
    - { name: two, port: 81, targetPort: 8081, appProtocol: http2 }
";

/// The rule of [`POLICIES`] that others are put in front of.
const FIRST_RULE: &str = "    - from: [{ serviceAccounts: [web] }]";

const POLICIES: &str = "apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: { name: default, namespace: bench }
spec: { defaultPosture: deny, accessLog: errors }
---
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: web-to-api, namespace: bench }
spec:
  targetRef: { kind: Service, name: api }
  action: ALLOW
  rules:
    - from: [{ serviceAccounts: [web] }]
      to: [{ methods: [GET], paths: [/1k, /1m] }, { methods: [POST], paths: [/bench.Echo/Call] }]
---
apiVersion: selvedge.dev/v1alpha1
kind: RateLimit
metadata: { name: per-caller, namespace: bench }
spec:
  targetRef: { kind: Service, name: api }
  limits: [{ requests: 1000000, per: 1s, burst: 4000000, key: [identity] }]
---
apiVersion: selvedge.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: api, namespace: bench }
spec:
  targetRef: { kind: Service, name: api }
  retry: { attempts: 2, on: [connectFailure, reset, gatewayErrors] }
  timeouts: { request: 15s }
  breaker: { consecutiveFailures: 5 }
";

const PLAIN: &str = "apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: { name: default, namespace: bench }
spec: { accessLog: off }
";

/// How a pair is started.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Folder of its files and logs.
    pub folder: PathBuf,
    /// Folder of `selvedge` and `selvedge-proxy`.
    pub binaries: &'a Path,
    /// With policies of every kind, or with mTLS alone.
    pub everything: bool,
    /// The application over HTTP/1, and over HTTP/2 without TLS.
    pub application: [SocketAddr; 2],
    /// How much there is of what may be many.
    pub extent: Extent,
    /// The command that runs each sidecar, as `taskset -c 0`; none when empty.
    pub under: &'a [&'a str],
}

/// How much there is of what may be many in a mesh.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Rules of the called service's route. A request is that of the last, which takes all that the others do not.
    pub routes: usize,
    /// Rules of its authorization policy. The last lets the caller pass.
    pub rules: usize,
    /// Endpoints that it has; all are the one called sidecar, at a port each.
    pub endpoints: usize,
    /// Services that are called over HTTP/1, each at an address of its own; all have the same endpoints.
    pub services: usize,
    /// Worker threads of each sidecar.
    pub workers: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self { routes: 0, rules: 1, endpoints: 1, services: 1, workers: 1 }
    }
}

/// A running pair of sidecars with their control plane, which ends when it is dropped.
pub struct Pair {
    /// Where HTTP/1 clients connect to call the first service.
    pub http1: SocketAddr,
    /// Where they connect to call each service, in the order of their numbers.
    pub services: Vec<SocketAddr>,
    /// Where HTTP/2 clients connect.
    pub http2: SocketAddr,
    /// Ports of the called sidecar for the calling one.
    pub hops: Vec<u16>,
    /// The sidecars, the caller's first.
    pub sidecars: [Process; 2],
    /// What must run beside them and is not in the path of a request.
    pub control_plane: Process,
}

impl Plan<'_> {
    /// Starts control plane and sidecars. They may not be ready yet.
    ///
    /// # Errors
    /// A program that is missing or cannot be started, or a control plane that does not listen.
    pub async fn start(self) -> anyhow::Result<Pair> {
        let entry: Vec<Port> = (0..self.extent.services).map(|_| Port::free()).collect::<io::Result<_>>()?;
        let over_http2 = Port::free()?;
        let hops: Vec<[Port; 2]> =
            (0..self.extent.endpoints).map(|_| Ok([Port::free()?, Port::free()?])).collect::<io::Result<_>>()?;
        let [one, two] = self.application;
        let mesh = Mesh { plan: self, control: Port::free()? };
        mesh.write_config(&hops)?;
        let control_plane = mesh.control_plane().await?;
        let listeners = hops.iter().map(|hop| {
            let [hop_one, hop_two] = hop.each_ref().map(|port| port.address);
            format!(
                "- {{listen: {hop_one}, forward: {one}, port: 8080}}\n- {{listen: {hop_two}, forward: {two}, port: 8081}}\n"
            )
        });
        let inbound = format!("inbound:\n{}", listeners.collect::<String>());
        let entries = entry
            .iter()
            .enumerate()
            .map(|(number, port)| format!("- {{listen: {}, to: 'bench/{}:80'}}\n", port.address, name("api", number)));
        let outbound = format!(
            "outbound:\n- {{listen: {}, to: 'bench/api:81'}}\n{}",
            over_http2.address,
            entries.collect::<String>()
        );
        let called = mesh.sidecar("api", &inbound).await?;
        let calling = mesh.sidecar("web", &outbound).await?;
        let services: Vec<SocketAddr> = entry.iter().map(|port| port.address).collect();
        let (http1, http2) = (*services.first().context("a pair calls at least one service")?, over_http2.address);
        let hops = hops.iter().flatten().map(Port::number).collect();
        Ok(Pair { http1, services, http2, hops, sidecars: [calling, called], control_plane })
    }
}

/// The name of number `number` of what there are many of.
fn name(first: &str, number: usize) -> String {
    if number == 0 { first.to_owned() } else { format!("{first}-{number}") }
}

/// A route with so many rules, of which the last takes what the others do not.
fn route(rules: usize) -> String {
    let rule = |n| {
        format!(
            "    - matches: [{{ path: {{ value: /v1/tenants/{n:05} }} }}]\n      backendRefs: [{{ name: api, port: 80 }}]\n"
        )
    };
    let rules: String = (1..rules).map(rule).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: api, namespace: bench }}\nspec:\n  \
         parentRefs: [{{ kind: Service, group: '', name: api, port: 80 }}]\n  rules:\n{rules}    - backendRefs: [{{ name: \
         api, port: 80 }}]\n"
    )
}

struct Mesh<'a> {
    plan: Plan<'a>,
    control: Port,
}

impl Mesh<'_> {
    fn write_config(&self, hops: &[[Port; 2]]) -> anyhow::Result<()> {
        let config = self.plan.folder.join("config");
        fs::create_dir_all(&config)?;
        let Extent { routes, rules, services, .. } = self.plan.extent;
        let service = |number| SERVICE.replace("name: api,", &format!("name: {},", name("api", number)));
        fs::write(config.join("service.yaml"), (0..services).map(service).collect::<Vec<_>>().join("---\n"))?;
        if self.plan.everything {
            let rule = |n| format!("    - {{ from: [{{ serviceAccounts: [caller-{n}] }}] }}\n");
            let others: String = (1..rules).map(rule).collect();
            fs::write(config.join("policies.yaml"), POLICIES.replace(FIRST_RULE, &(others + FIRST_RULE)))?;
        } else {
            fs::write(config.join("policies.yaml"), PLAIN)?;
        }
        if routes > 0 {
            fs::write(config.join("routes.yaml"), route(routes))?;
        }
        let workload = |name: &str, app: &str, ports: &str| {
            format!(
                "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata:\n  name: {name}\n  namespace: bench\n  \
                 labels: {{app: {app}}}\nspec:\n  serviceAccount: {app}\n  address: 127.0.0.1\n{ports}"
            )
        };
        for (number, [one, two]) in hops.iter().enumerate() {
            let name = name("api", number);
            let (one, two) = (one.number(), two.number());
            let ports = format!("  ports:\n  - {{port: 8080, dial: {one}}}\n  - {{port: 8081, dial: {two}}}\n");
            fs::write(config.join(format!("{name}.yaml")), workload(&name, "api", &ports))?;
        }
        fs::write(config.join("web.yaml"), workload("web", "web", ""))?;
        Ok(())
    }

    async fn control_plane(&self) -> anyhow::Result<Process> {
        let mut command = Command::new(self.program("selvedge")?);
        command.args(["control-plane", "--admin", "127.0.0.1:0", "--listen", &self.control.address.to_string()]);
        command
            .arg("--config-dir")
            .arg(self.plan.folder.join("config"))
            .arg("--state-dir")
            .arg(self.plan.folder.join("state"));
        let mut process = Process::start("control-plane", &mut command, &self.plan.folder)?;
        let listens = async {
            while TcpStream::connect(self.control.address).await.is_err() {
                process.check()?;
                sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        };
        timeout(Duration::from_secs(10), listens).await.context("the control plane does not listen")??;
        Ok(process)
    }

    async fn sidecar(&self, name: &str, listeners: &str) -> anyhow::Result<Process> {
        let home = self.plan.folder.join(name);
        fs::create_dir_all(&home)?;
        fs::write(home.join("token"), self.token(name).await?)?;
        let bootstrap = format!(
            "workload: bench/{name}\ncontrolPlane: {}\njoinTokenFile: {home}/token\nstateDir: {home}/state\nadmin: \
             127.0.0.1:0\nmetrics: 127.0.0.1:0\naccessLogFile: {home}/access.log\ndrainDeadline: \
             1s\nworkers: {}\n{listeners}",
            self.control.address,
            self.plan.extent.workers,
            home = home.display()
        );
        fs::write(home.join("sidecar.yaml"), bootstrap)?;
        let program = self.program("selvedge-proxy")?;
        let mut words = self.plan.under.iter().map(OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("run").arg("--config").arg(home.join("sidecar.yaml"));
        Process::start(name, &mut command, &home)
    }

    async fn token(&self, name: &str) -> anyhow::Result<String> {
        let mut command = Command::new(self.program("selvedge")?);
        command.args([
            "token",
            "create",
            "--identity",
            &format!("bench/{name}"),
            "--workload",
            &format!("bench/{name}"),
        ]);
        let output = command.arg("--state-dir").arg(self.plan.folder.join("state")).output().await?;
        ensure!(output.status.success(), "no token: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let program: &Path = &self.plan.binaries.join(name);
        ensure!(program.is_file(), "{} is not built; benches/run builds it", program.display());
        Ok(program.to_path_buf())
    }
}
