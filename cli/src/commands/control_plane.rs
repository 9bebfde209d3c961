//! `selvedge control-plane`: serves a directory of configuration to sidecars until it is told to stop.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, ensure};
use selvedge_control_plane::{
    run as control_plane,
    settings::{Kubernetes, Settings},
};
use selvedge_inject::setting::Setting;
use selvedge_policies::duration::Span;
use selvedge_proxy::{Manager, descriptors};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Serve configuration and certificates to sidecars.
#[derive(Debug, clap::Args)]
pub struct ControlPlaneArgs {
    /// Directory of YAML files with services, workloads, routes and policies; changes take effect as they are saved.
    #[arg(long, value_name = "DIR", required_unless_present = "kubernetes")]
    config_dir: Option<PathBuf>,
    /// Watch the objects of a Kubernetes cluster too: its services and pods, and policies and routes from kubectl.
    #[arg(long)]
    kubernetes: bool,
    /// The file that names the cluster; when absent those that kubectl reads, else the cluster around this process.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Directory of the certificate authority, the join tokens and the last good configuration; made on first use.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Where sidecars connect.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:15010")]
    listen: SocketAddr,
    /// Where /metrics, /ready, /live and /status are; keep it on loopback.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15014")]
    admin: SocketAddr,
    /// Where /ready and /live alone are, for whoever supervises the process from elsewhere, such as a kubelet.
    #[arg(long, value_name = "ADDR")]
    health: Option<SocketAddr>,
    /// Where the API server asks for sidecars, in TLS, in a cluster that cannot put them into pods by itself.
    #[arg(long, value_name = "ADDR", requires = "kubernetes")]
    webhook: Option<SocketAddr>,
    /// A Unix socket on which this user and root get join tokens, as `selvedge join` does.
    #[arg(long, value_name = "PATH")]
    join_socket: Option<PathBuf>,
    /// The file of the audit log: certificates, join tokens and changes of objects; standard output when absent.
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
    /// A setting of all sidecars, such as image=registry.example/mesh/selvedge-proxy@sha256:...; once for each.
    #[arg(long = "sidecar", value_name = "KEY=VALUE", requires = "kubernetes", value_parser = Setting::written)]
    sidecars: Vec<(&'static Setting, String)>,
    /// Trust domain of the mesh; fixed once the state directory is made.
    #[arg(long, value_name = "TD", default_value = "mesh.local")]
    trust_domain: String,
    /// Lifetime of the certificates issued; sidecars renew at about two thirds of it.
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    certificate_lifetime: Span,
    /// Write the addresses really bound to this file, as JSON; for ports given as 0.
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the control plane from starting.
pub fn run(args: ControlPlaneArgs) -> anyhow::Result<()> {
    ensure!(
        !args.certificate_lifetime.0.is_zero(),
        "--certificate-lifetime is 0s, and no certificate would ever be valid; give some time, such as 24h"
    );
    descriptors::raise("control plane", control_plane::DESCRIPTORS);
    let settings = Settings {
        config_dir: args.config_dir,
        kubernetes: args
            .kubernetes
            .then_some(Kubernetes { kubeconfig: args.kubeconfig, sidecars: args.sidecars.into_iter().collect() }),
        listen: args.listen,
        admin: args.admin,
        health: args.health,
        webhook: args.webhook,
        join_socket: args.join_socket,
        audit_log: args.audit_log,
        trust_domain: args.trust_domain,
        ports_file: args.ports_file,
        certificate_lifetime: args.certificate_lifetime.0,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        ..Settings::new(args.state_dir)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let told_to_stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let manager = Manager::of_environment();
        attend(&manager, settings.ready.subscribe());
        let told_to_stop = async {
            told_to_stop.await;
            manager.stopping("ending");
        };
        Ok(control_plane::run(settings, told_to_stop).await?)
    })
}

/// Tells the service manager when the control plane is ready, and that the thread lives that runs it.
fn attend(manager: &Manager, ready: watch::Receiver<bool>) {
    tokio::spawn(manager.clone().follow(ready, ["reading the configuration", "serving"]));
    tokio::spawn(manager.clone().watch(|| std::future::ready(())));
}
