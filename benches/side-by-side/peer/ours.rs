//! Our pair: a control plane over a directory, and one sidecar on each side, started as an operator would.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::{
    net::TcpStream,
    process::Command,
    time::{sleep, timeout},
};

use super::{Name, Peer};
use crate::{ground::Ground, port::Port, process::Process};

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
      to: [{ methods: [GET], paths: [/1k, /1m] }]
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

/// Starts control plane and sidecars; `name` says whether with policies.
pub(super) async fn start(name: Name, ground: &Ground) -> anyhow::Result<Peer> {
    let everything = name == Name::Selvedge;
    let folder = ground.folder(if everything { "selvedge" } else { "selvedge-plain" })?;
    let entry = [Port::free()?, Port::free()?];
    let hop = [Port::free()?, Port::free()?];
    let mesh = Mesh { ground, folder, control: Port::free()? };
    mesh.write_config(&hop, if everything { POLICIES } else { PLAIN })?;
    let control_plane = mesh.control_plane().await?;
    let inbound = format!(
        "inbound:\n- {{listen: {}, forward: {}, port: 8080}}\n- {{listen: {}, forward: {}, port: 8081}}\n",
        hop[0].address, ground.http1.address, hop[1].address, ground.http2.address
    );
    let outbound = format!(
        "outbound:\n- {{listen: {}, to: 'bench/api:80'}}\n- {{listen: {}, to: 'bench/api:81'}}\n",
        entry[0].address, entry[1].address
    );
    let called = mesh.sidecar("api", &inbound).await?;
    let calling = mesh.sidecar("web", &outbound).await?;
    let [http1, http2] = entry.map(|port| port.address);
    Ok(Peer { name, http1, http2, proxies: vec![calling, called], support: vec![control_plane] })
}

struct Mesh<'a> {
    ground: &'a Ground,
    folder: PathBuf,
    control: Port,
}

impl Mesh<'_> {
    fn write_config(&self, hop: &[Port; 2], policies: &str) -> anyhow::Result<()> {
        let config = self.folder.join("config");
        fs::create_dir_all(&config)?;
        fs::write(config.join("service.yaml"), SERVICE)?;
        fs::write(config.join("policies.yaml"), policies)?;
        let ports = format!(
            "  ports:\n  - {{port: 8080, dial: {}}}\n  - {{port: 8081, dial: {}}}\n",
            hop[0].number(),
            hop[1].number()
        );
        let workload = |name: &str, ports: &str| {
            format!(
                "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata:\n  name: {name}\n  namespace: bench\n  \
                 labels: {{app: {name}}}\nspec:\n  serviceAccount: {name}\n  address: 127.0.0.1\n{ports}"
            )
        };
        fs::write(config.join("api.yaml"), workload("api", &ports))?;
        fs::write(config.join("web.yaml"), workload("web", ""))?;
        Ok(())
    }

    async fn control_plane(&self) -> anyhow::Result<Process> {
        let mut command = Command::new(self.program("selvedge")?);
        command.args(["control-plane", "--admin", "127.0.0.1:0", "--listen", &self.control.address.to_string()]);
        command.arg("--config-dir").arg(self.folder.join("config")).arg("--state-dir").arg(self.folder.join("state"));
        let mut process = Process::start("control-plane", &mut command, &self.folder)?;
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
        let home = self.folder.join(name);
        fs::create_dir_all(&home)?;
        fs::write(home.join("token"), self.token(name).await?)?;
        let bootstrap = format!(
            "workload: bench/{name}\ncontrolPlane: {}\njoinTokenFile: {home}/token\nstateDir: {home}/state\nadmin: \
             127.0.0.1:0\nmetrics: 127.0.0.1:0\naccessLogFile: {home}/access.log\n{listeners}",
            self.control.address,
            home = home.display()
        );
        fs::write(home.join("sidecar.yaml"), bootstrap)?;
        let mut command = Command::new(self.program("selvedge-proxy")?);
        command.arg("run").arg("--config").arg(home.join("sidecar.yaml"));
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
        let output = command.arg("--state-dir").arg(self.folder.join("state")).output().await?;
        ensure!(output.status.success(), "no token: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let program: &Path = &self.ground.binaries.join(name);
        ensure!(program.is_file(), "{} is not built; benches/run builds it", program.display());
        Ok(program.to_path_buf())
    }
}
