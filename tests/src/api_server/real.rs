//! A real kube-apiserver over its own etcd: one for all tests of a test binary, emptied before each.
//!
//! The programs are in the folder that `KUBEBUILDER_ASSETS` names. They end with the test binary, however it ends: a shell
//! waits for the end of a pipe, stops the API server first and etcd after it, and removes their folder.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;
use tokio::{
    sync::{Mutex, MutexGuard, OnceCell},
    time::{Instant, sleep},
};

use super::{
    ADMIN,
    calls::{self, Calls, Upstream},
};
use crate::{ports::Reserved, skip};

mod content;
mod tunnel;

use tunnel::Tunnel;

/// How long the programs may take to start, on a machine that has other things to do.
const START: Duration = Duration::from_secs(120);

/// The server of this test binary.
static SERVER: OnceCell<Running> = OnceCell::const_new();
/// Whoever has this has the server for itself.
static TURN: Mutex<()> = Mutex::const_new(());

struct Running {
    upstream: Upstream,
    tunnel: Tunnel,
    /// The end of the pipe to it is the end of both programs.
    _shell: Child,
    _ports: [Reserved; 2],
}

/// The server, for one test.
pub(super) struct Turn {
    running: &'static Running,
    _turn: MutexGuard<'static, ()>,
}

impl Turn {
    pub(super) fn upstream(&self) -> Upstream {
        self.running.upstream.clone()
    }

    pub(super) fn route(&self, service: &str, address: SocketAddr) {
        self.running.tunnel.route(service, address);
    }

    /// Removes everything that tests left.
    pub(super) async fn empty(&self, calls: &Calls) {
        self.running.tunnel.forget();
        content::empty(calls).await;
    }
}

/// Waits until nobody else has the server, which the first starts. `None` after saying why there is none.
pub(super) async fn turn() -> Option<Turn> {
    let assets = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS").unwrap_or_default());
    if let Some(missing) = ["etcd", "kube-apiserver"].iter().find(|program| !assets.join(program).is_file()) {
        skip(&format!("not against a real API server: KUBEBUILDER_ASSETS names no folder with {missing}"));
        return None;
    }
    let turn = TURN.lock().await;
    let running = SERVER.get_or_init(|| start(&assets)).await;
    Some(Turn { running, _turn: turn })
}

async fn start(assets: &Path) -> Running {
    let quick = Some(Path::new("/dev/shm")).filter(|memory| memory.is_dir());
    let folder = tempfile::Builder::new()
        .prefix("selvedge-kubernetes-")
        .tempdir_in(quick.unwrap_or(&std::env::temp_dir()))
        .expect("a temporary folder")
        .keep();
    let tls = credentials(&folder);
    let [etcd, secure] = [Reserved::new(), Reserved::new()];
    let tunnel = Tunnel::start();
    let programs = script(assets, &folder, etcd.address(), secure.address());
    let shell = Command::new("sh")
        .args(["-c", &programs])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env("HTTPS_PROXY", format!("http://{}", tunnel.address()))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .spawn()
        .expect("a shell");
    let upstream = Upstream { address: secure.address(), tls: Some(tls) };
    ready(&Calls::new(upstream.clone(), ADMIN), &folder).await;
    Running { upstream, tunnel, _shell: shell, _ports: [etcd, secure] }
}

/// Runs both programs until nobody has the other end of its input any more.
fn script(assets: &Path, folder: &Path, etcd: SocketAddr, secure: SocketAddr) -> String {
    let (assets, folder, port) = (assets.display(), folder.display(), secure.port());
    format!(
        "cd '{folder}'
        '{assets}/etcd' --data-dir etcd --listen-client-urls http://{etcd} --advertise-client-urls http://{etcd} \
            --listen-peer-urls http://127.0.0.1:0 --initial-advertise-peer-urls http://127.0.0.1:0 \
            --initial-cluster default=http://127.0.0.1:0 >etcd.log 2>&1 & etcd=$!
        '{assets}/kube-apiserver' --etcd-servers http://{etcd} --bind-address 127.0.0.1 --secure-port {port} \
            --tls-cert-file server.pem --tls-private-key-file key.pem --cert-dir . --token-auth-file users.csv \
            --service-account-key-file server.pem --service-account-signing-key-file key.pem \
            --service-account-issuer https://kubernetes.default.svc --authorization-mode RBAC \
            --disable-admission-plugins ServiceAccount --endpoint-reconciler-type none --allow-privileged \
            --service-cluster-ip-range 10.96.0.0/16 >kube-apiserver.log 2>&1 & api=$!
        read -r _
        kill $api; wait $api
        kill $etcd; wait $etcd
        rm -r '{folder}'"
    )
}

/// Writes what the server needs to be known and to know its users; how it is spoken to.
fn credentials(folder: &Path) -> Arc<ClientConfig> {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let own = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let write =
        |name: &str, content: String| std::fs::write(folder.join(name), content).expect("a file for the server");
    write("server.pem", own.cert.pem());
    write("key.pem", own.signing_key.serialize_pem());
    write("users.csv", format!("{ADMIN},{ADMIN},1,system:masters\n"));
    calls::trusting([own.cert.der().clone()]).expect("TLS settings")
}

/// Waits until the server answers and knows the kinds of the mesh.
async fn ready(calls: &Calls, folder: &Path) {
    let end = Instant::now() + START;
    loop {
        if calls.reads("/readyz").await {
            return content::define(calls).await;
        }
        if Instant::now() > end {
            let log = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            panic!("no API server within {START:?}\n{}\n{}", log("etcd.log"), log("kube-apiserver.log"));
        }
        sleep(Duration::from_millis(100)).await;
    }
}
