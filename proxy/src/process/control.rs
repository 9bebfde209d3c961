//! The control thread: starts everything, listens to signals, and ends the process in order.

use std::{
    io,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use selvedge_identity::file;
use serde::Serialize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{descriptors, worker};
use crate::{
    admin::{self, AdminState, Scope},
    bootstrap::{Bootstrap, Capture, OutboundListener},
    clock,
    config::{self, InForce, publish::Publisher},
    credentials::Credentials,
    drain::{self, Open, Phase},
    heading::{Heading, Purpose},
    identity, socket,
    telemetry::{Telemetry, TelemetrySettings},
    tls::{self, ExternalTls},
    worker::{Shared, spread},
    xds::{self, Demand},
};

/// Why a sidecar could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error("cannot listen on {address} ({purpose})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it is for.
        purpose: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The access log cannot be written to.
    #[error("cannot open the access log {path}")]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The addresses bound could not be written.
    #[error("cannot write the ports file {path}")]
    Ports {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {path}")]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system refused a thread, a runtime or a signal handler.
    #[error("cannot start")]
    System(#[from] io::Error),
}

/// The addresses a sidecar really listens on, for ports given as 0. Written to `portsFile` as JSON.
#[derive(Debug, Serialize)]
struct Ports {
    admin: SocketAddr,
    metrics: SocketAddr,
    inbound: Vec<SocketAddr>,
    outbound: Vec<SocketAddr>,
}

/// Runs a sidecar until SIGTERM or SIGINT, then drains; a second signal ends the drain.
///
/// # Errors
/// When it cannot start. Once it runs, whatever is missing (a control plane, a certificate) is waited for.
pub fn run(bootstrap: Bootstrap) -> Result<(), StartError> {
    run_until(bootstrap, std::future::pending())
}

/// As [`run`], and drains when `stop` is done too, which means that the application makes no calls any more.
///
/// # Errors
/// As [`run`].
pub fn run_until(bootstrap: Bootstrap, stop: impl Future<Output = ()>) -> Result<(), StartError> {
    descriptors::raise("sidecar", descriptors_wanted(&bootstrap));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(bootstrap, stop))
}

/// Every worker may hold so many connections in each direction, each with one on the other side.
fn descriptors_wanted(bootstrap: &Bootstrap) -> u64 {
    let connections = bootstrap.workers.saturating_mul(bootstrap.max_connections).saturating_mul(4);
    u64::try_from(connections).unwrap_or(u64::MAX)
}

async fn serve(bootstrap: Bootstrap, stop: impl Future<Output = ()>) -> Result<(), StartError> {
    prepare_state(&bootstrap.state_dir)?;
    let telemetry = telemetry(&bootstrap)?;
    let (phases, phase) = watch::channel(Phase::Serving);
    let open = Arc::new(Open::new(bootstrap.inbound.iter().map(|declared| declared.forward)));
    let mut tasks = JoinSet::new();

    if bootstrap.capture == Capture::Transparent {
        socket::expect_capture();
    }
    let (credentials_sender, credentials) = watch::channel(None::<Arc<Credentials>>);
    tasks.spawn(identity::keep(identity_settings(&bootstrap), credentials_sender));
    let xds = xds::spawn(xds_settings(&bootstrap), credentials.clone(), config::check);
    for (name, _) in bootstrap.outbound.iter().filter_map(OutboundListener::target) {
        let _ = xds.demand.send(Demand::Pin(name.to_owned())); // the task lives as long as `xds`
    }
    let (configs_sender, configs) = watch::channel(InForce::default());
    let publisher = Publisher {
        resources: xds.resources,
        credentials,
        configs: configs_sender,
        external_tls: external_tls(&bootstrap),
        telemetry: telemetry.clone(),
    };
    tasks.spawn(publisher.run());

    let (drain_sender, mut drain_asked) = mpsc::channel(1);
    let state = AdminState {
        telemetry: telemetry.clone(),
        ready: ready(&configs, &phase, &mut tasks),
        config: configs.clone(),
        drain: drain_sender,
    };
    let admin = serve_admin(bootstrap.admin, "admin", state.clone(), Scope::Admin, &mut tasks)?;
    let metrics = serve_admin(bootstrap.metrics, "metrics", state, Scope::Metrics, &mut tasks)?;
    let (inbound, outbound, shares) = listeners(&bootstrap)?;
    let (worker_ended, mut ended) = mpsc::channel(1);
    let places = spread::places(bootstrap.workers);
    let shared = Shared {
        configs: configs.clone(),
        demand: xds.demand.clone(),
        telemetry: telemetry.clone(),
        phases: phase.clone(),
        open: open.clone(),
        max_connections: bootstrap.max_connections,
        caller_timeouts: bootstrap.caller_timeouts,
    };
    for (index, (listeners, place)) in shares.into_iter().zip(places).enumerate() {
        let setup = worker::Setup { listeners, place, shared: shared.clone() };
        let ended = worker_ended.clone();
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| worker::run(setup)));
            let outcome = outcome.unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            let _ = ended.blocking_send(outcome); // the process may have ended before it
        })?;
    }
    tracing::info!(workload = bootstrap.workload, %admin, %metrics, ?inbound, ?outbound, "listening");
    write_ports(&bootstrap, &Ports { admin, metrics, inbound, outbound })?;

    let mut signals = Signals::new()?;
    // Whether the application is known to be done.
    let told = tokio::select! {
        () = stop => true,
        () = signals.next() => false,
        Some(()) = drain_asked.recv() => true,
        // Half a sidecar would look alive: whoever supervises it starts a whole one.
        Some(outcome) = ended.recv() => return outcome.map_err(StartError::System),
    };
    let done = async {
        if !told {
            drain_asked.recv().await;
        }
    };
    finish(&phases, &open, bootstrap.drain_deadline.0, done, &mut signals).await;
    telemetry.finish_log().await;
    Ok(())
}

/// Drains, unless it is told to end a second time.
async fn finish(
    phases: &watch::Sender<Phase>,
    open: &Open,
    at_most: Duration,
    done: impl Future<Output = ()>,
    signals: &mut Signals,
) {
    tracing::info!(?at_most, "draining");
    let is_gone = async || open.application.is_gone().await;
    tokio::select! {
        () = drain::drain(phases, open, at_most, is_gone, done) => tracing::info!("drained"),
        () = signals.next() => tracing::info!("told a second time to end: not waiting for the rest of the drain"),
    }
}

/// What tells a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn telemetry(bootstrap: &Bootstrap) -> Result<Telemetry, StartError> {
    let (namespace, workload) = bootstrap.workload.split_once('/').unwrap_or(("", &bootstrap.workload));
    let settings = TelemetrySettings {
        workload: workload.to_owned(),
        namespace: namespace.to_owned(),
        access_log_file: bootstrap.access_log_file.clone(),
    };
    Telemetry::new(&settings).map_err(|source| match settings.access_log_file {
        Some(path) => StartError::AccessLog { path, source },
        None => source.into(),
    })
}

fn identity_settings(bootstrap: &Bootstrap) -> identity::Settings {
    identity::Settings {
        control_plane: bootstrap.control_plane.clone(),
        workload: bootstrap.workload.clone(),
        join_token_file: bootstrap.join_token_file.clone(),
        state_dir: bootstrap.state_dir.clone(),
    }
}

fn xds_settings(bootstrap: &Bootstrap) -> xds::Settings {
    xds::Settings {
        control_plane: bootstrap.control_plane.clone(),
        workload: bootstrap.workload.clone(),
        state_dir: bootstrap.state_dir.clone(),
        idle: xds::IDLE,
    }
}

/// Makes the state directory where needed, and removes what a process left in it that ended while it wrote.
fn prepare_state(path: &Path) -> Result<(), StartError> {
    file::create_dir(path).map_err(|source| StartError::State { path: path.to_owned(), source })?;
    if let Err(error) = file::sweep(path, clock::since_epoch().as_secs()) {
        tracing::warn!(path = %path.display(), %error, "drafts of earlier runs cannot be removed; one can hold a key");
    }
    Ok(())
}

/// Without public authorities external TLS fails with a reason; nothing else does.
fn external_tls(bootstrap: &Bootstrap) -> Option<Arc<ExternalTls>> {
    let roots = bootstrap.external_roots_file.as_deref().unwrap_or(Path::new(tls::SYSTEM_ROOTS));
    match tls::originate(roots) {
        Ok(config) => Some(Arc::new(config)),
        Err(error) => {
            tracing::warn!(%error, "TLS to services outside the mesh will fail");
            None
        }
    }
}

/// Ready: there is a certificate and a configuration, and no drain.
fn ready(
    configs: &watch::Receiver<InForce>,
    phase: &watch::Receiver<Phase>,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let (mut configs, mut phase) = (configs.clone(), phase.clone());
    tasks.spawn(async move {
        loop {
            let serving = *phase.borrow_and_update() == Phase::Serving;
            let ready = serving && configs.borrow_and_update().is_complete();
            sender.send_if_modified(|was| std::mem::replace(was, ready) != ready);
            let changed = tokio::select! {
                changed = configs.changed() => changed,
                changed = phase.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    });
    receiver
}

fn serve_admin(
    address: SocketAddr,
    purpose: &'static str,
    state: AdminState,
    scope: Scope,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, StartError> {
    let failed = |source| StartError::Listen { address, purpose, source };
    let (bound, mut listeners) = socket::bind(address, 1).map_err(failed)?;
    if let Some(listener) = listeners.pop() {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        tasks.spawn(async move {
            let _ = admin::serve(listener, state, scope).await; // it answers until the process ends
        });
    }
    Ok(bound)
}

/// Bound listeners with what each is for, one share a worker.
type Shares = Vec<Vec<(std::net::TcpListener, Purpose)>>;

/// Binds what the bootstrap declares: inbound addresses, outbound addresses, and each worker's share.
fn listeners(bootstrap: &Bootstrap) -> Result<(Vec<SocketAddr>, Vec<SocketAddr>, Shares), StartError> {
    let mut shares: Shares = (0..bootstrap.workers).map(|_| Vec::new()).collect();
    let mut bind = |address, purpose: &'static str, what: &Purpose| -> Result<SocketAddr, StartError> {
        let (bound, listeners) = socket::bind(address, bootstrap.workers).map_err(|source| StartError::Listen {
            address,
            purpose,
            source,
        })?;
        for (share, listener) in shares.iter_mut().zip(listeners) {
            share.push((listener, what.clone()));
        }
        Ok(bound)
    };
    let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
    if bootstrap.capture == Capture::Transparent {
        let listen = bootstrap.transparent;
        inbound.push(bind(listen.inbound_listen, "captured inbound", &Purpose::CapturedInbound)?);
        outbound.push(bind(listen.outbound_listen, "captured outbound", &Purpose::CapturedOutbound)?);
    }
    for declared in &bootstrap.inbound {
        let port = declared.port.unwrap_or_else(|| declared.forward.port());
        let heading = Heading::Inbound { forward: declared.forward, port };
        inbound.push(bind(declared.listen, "inbound", &Purpose::Declared(heading))?);
    }
    for declared in &bootstrap.outbound {
        if let Some((name, port)) = declared.target() {
            let heading = Heading::Outbound { destination: name.into(), port, original: None };
            outbound.push(bind(declared.listen, "outbound", &Purpose::Declared(heading))?);
        }
    }
    Ok((inbound, outbound, shares))
}

fn write_ports(bootstrap: &Bootstrap, ports: &Ports) -> Result<(), StartError> {
    let Some(path) = &bootstrap.ports_file else { return Ok(()) };
    let written = serde_json::to_vec(ports).map_err(io::Error::from).and_then(|json| file::publish(path, &json));
    written.map_err(|source| StartError::Ports { path: path.clone(), source })
}
