//! The services of a sidecar: each has a name, takes what it needs of others and returns what others need of it.
//!
//! Guarantees: a service that panics is named in the log. One that traffic needs at every moment, a worker, ends the
//! sidecar; without another one what was in force stays so.

use std::{
    io,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use selvedge_decide::resources::Resources;
use selvedge_identity::file;
use selvedge_policies::names::WorkloadName;
use tokio::sync::{mpsc, watch};

use super::{cluster, resolver, surroundings, worker};
use crate::{
    admin::{self, AdminState, Scope},
    bootstrap::{Bootstrap, Capture, OutboundListener},
    clock,
    config::{self, InForce, publish::Publisher},
    credentials::Credentials,
    drain::{self, Open, Phase},
    heading::{Heading, Purpose},
    identity,
    probes::{Probes, gateway},
    resolver::Question,
    socket,
    surroundings::{Surroundings, captured::Captured},
    telemetry::{Telemetry, TelemetrySettings},
    tls::{self, ExternalTls},
    worker::{Shared, spread},
    xds::{self, Demand, Heard},
};

/// Why a sidecar could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error(
        "cannot listen on {address} ({purpose}); if another sidecar has it, give this one another address in its file"
    )]
    Listen {
        /// The address that cannot be listened on.
        address: SocketAddr,
        /// What it is for.
        purpose: &'static str,
        /// What the system says of it.
        source: io::Error,
    },
    /// The access log cannot be written to.
    #[error("cannot open the access log {path}")]
    AccessLog {
        /// The file of the access log.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The addresses bound could not be written.
    #[error("cannot write the ports file {path}")]
    Ports {
        /// The file that was to name the ports.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {path}")]
    State {
        /// The state directory, as it was given.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// A service that traffic needs could not be started, or ended before the sidecar.
    #[error("{service} does not run")]
    Service {
        /// The name of the service, as the log has it.
        service: String,
        /// How it ended, or why it did not start.
        source: io::Error,
    },
    /// The operating system refused a runtime or a signal handler.
    #[error("cannot start")]
    System(#[from] io::Error),
}

/// Calls that may ask at once whether an address is one of a host's.
const QUESTIONS: usize = 1024;

/// What a sidecar proves itself with, as it changes.
type CredentialsReceiver = watch::Receiver<Option<Arc<Credentials>>>;

/// Runs `service` on the control thread until the process ends.
fn start(name: &'static str, service: impl Future<Output = ()> + Send + 'static) {
    let task = tokio::spawn(service);
    tokio::spawn(watch_over(name, task));
}

async fn watch_over(name: &'static str, task: tokio::task::JoinHandle<()>) {
    if task.await.is_err_and(|error| error.is_panic()) {
        tracing::error!(
            service = name,
            "ended by a defect; what was in force stays so until the sidecar is started again"
        );
    }
}

/// Makes the state directory where needed, and removes what a process left in it that ended while it wrote.
pub(super) fn state(bootstrap: &Bootstrap) -> Result<(), StartError> {
    let path = &bootstrap.state_dir;
    file::create_dir(path).map_err(|source| StartError::State { path: path.clone(), source })?;
    if let Err(error) = file::sweep(path, clock::since_epoch().as_secs()) {
        tracing::warn!(path = %path.display(), %error, "drafts of earlier runs cannot be removed; one can hold a key");
    }
    Ok(())
}

/// Metrics and access log.
pub(super) fn telemetry(bootstrap: &Bootstrap) -> Result<Telemetry, StartError> {
    let workload = bootstrap.workload.parse::<WorkloadName>().ok();
    let settings = TelemetrySettings {
        workload: workload.as_ref().map_or(&*bootstrap.workload, WorkloadName::name).to_owned(),
        namespace: workload.as_ref().map_or("", WorkloadName::namespace).to_owned(),
        access_log_file: bootstrap.access_log_file.clone(),
    };
    Telemetry::new(&settings).map_err(|source| match settings.access_log_file {
        Some(path) => StartError::AccessLog { path, source },
        None => source.into(),
    })
}

/// Obtains certificates and renews them.
pub(super) fn identity(bootstrap: &Bootstrap) -> CredentialsReceiver {
    let (sender, receiver) = watch::channel(None);
    let settings = identity::Settings {
        control_plane: bootstrap.control_plane.clone(),
        workload: bootstrap.workload.clone(),
        join_token_file: bootstrap.join_token_file.clone(),
        service_account: bootstrap.service_account_token_file.clone().map(|token_file| identity::ServiceAccount {
            token_file,
            trust_bundle: bootstrap.trust_bundle.as_ref().map(|bundle| bundle.roots().to_vec()).unwrap_or_default(),
        }),
        state_dir: bootstrap.state_dir.clone(),
    };
    start("identity", identity::keep(settings, sender));
    receiver
}

/// Talks to the control plane; returns what it says, where to ask for more, and how often it was heard.
pub(super) fn discovery(
    bootstrap: &Bootstrap,
    credentials: &CredentialsReceiver,
) -> (watch::Receiver<Arc<Resources>>, mpsc::UnboundedSender<Demand>, Heard) {
    let settings = xds::Settings {
        control_plane: bootstrap.control_plane.clone(),
        workload: bootstrap.workload.clone(),
        state_dir: bootstrap.state_dir.clone(),
        idle: xds::IDLE,
    };
    let xds::Handle { resources, demand, heard, task } = xds::spawn(settings, credentials.clone(), config::check);
    tokio::spawn(watch_over("discovery", task));
    let called = bootstrap.outbound.iter().filter_map(OutboundListener::target);
    for name in called.map(|called| called.service.to_string()).chain(cluster::needed(bootstrap)) {
        let _ = demand.send(Demand::Pin(name)); // the task lives as long as the sender
    }
    (resources, demand, heard)
}

/// Makes configurations for the workers of what the control plane says.
pub(super) fn configuration(
    bootstrap: &Bootstrap,
    resources: watch::Receiver<Arc<Resources>>,
    credentials: CredentialsReceiver,
    telemetry: &Telemetry,
) -> watch::Receiver<InForce> {
    let (configs, receiver) = watch::channel(InForce::default());
    let (external_tls, telemetry, locality) =
        (external_tls(bootstrap), telemetry.clone(), bootstrap.locality.clone().into());
    start("configuration", Publisher { resources, credentials, configs, external_tls, locality, telemetry }.run());
    receiver
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

/// What may be asked of the application, by whom: the gateways count from the start, which they do not outlive in a pod.
pub(super) fn probes(bootstrap: &Bootstrap) -> Arc<Probes> {
    let gateways = if bootstrap.probes.is_empty() { Vec::new() } else { gateway::addresses() };
    Arc::new(Probes::new(bootstrap.probed(), bootstrap.probers.clone(), gateways))
}

/// Looks up the hosts of services outside the mesh; returns where to ask. Nobody asks where no address is known that was
/// called.
pub(super) fn resolver(
    bootstrap: &Bootstrap,
    resources: &watch::Receiver<Arc<Resources>>,
    demand: &mpsc::UnboundedSender<Demand>,
) -> Option<mpsc::Sender<Question>> {
    if bootstrap.capture != Capture::Transparent {
        return None;
    }
    let (sender, questions) = mpsc::channel(QUESTIONS);
    start("resolver", resolver::run(questions, resources.clone(), demand.clone()));
    Some(sender)
}

/// Leaves the mesh when that is asked for.
pub(super) fn leaving(phases: &watch::Sender<Phase>, open: &Arc<Open>) -> mpsc::Sender<Duration> {
    let (sender, mut asked) = mpsc::channel(1);
    let (phases, open) = (phases.clone(), open.clone());
    start("leave", async move {
        while let Some(hearing) = asked.recv().await {
            tracing::info!(?hearing, "leaving: not ready any more");
            drain::leave(&phases, &open, hearing).await;
            tracing::info!("callers are told to go elsewhere");
        }
    });
    sender
}

/// Ready: there is a certificate and a configuration, it neither leaves nor drains, and connections come here
/// if they must.
pub(super) fn readiness(
    configs: &watch::Receiver<InForce>,
    phase: &watch::Receiver<Phase>,
    surroundings: &watch::Receiver<Surroundings>,
) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let (mut configs, mut phase, mut surroundings) = (configs.clone(), phase.clone(), surroundings.clone());
    start("readiness", async move {
        loop {
            let serving = *phase.borrow_and_update() == Phase::Serving;
            let captured = !matches!(surroundings.borrow_and_update().captured, Captured::Not(_));
            let ready = serving && captured && configs.borrow_and_update().is_complete();
            sender.send_if_modified(|was| std::mem::replace(was, ready) != ready);
            let changed = tokio::select! {
                changed = configs.changed() => changed,
                changed = phase.changed() => changed,
                changed = surroundings.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Looks around for as long as the process runs; `inbound` is where it listens itself.
pub(super) fn look_around(
    found: &watch::Sender<Surroundings>,
    inbound: &[SocketAddr],
    telemetry: &Telemetry,
    demand: mpsc::UnboundedSender<Demand>,
) {
    start("capture check", surroundings::captured(found.clone(), telemetry.clone()));
    start("look at ports", surroundings::direct(found.clone(), inbound.to_vec(), telemetry.clone(), demand));
}

/// Answers operators at `address`; returns where that is.
pub(super) fn pages(
    name: &'static str,
    address: SocketAddr,
    state: AdminState,
    scope: Scope,
) -> Result<SocketAddr, StartError> {
    let failed = |source| StartError::Listen { address, purpose: name, source };
    let (bound, mut listeners) = socket::bind(address, 1).map_err(failed)?;
    if let Some(listener) = listeners.pop() {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        start(name, async move {
            let _ = admin::serve(listener, state, scope).await; // it answers until the process ends
        });
    }
    Ok(bound)
}

/// Workers that run.
pub(super) struct Workers {
    /// Where they take calls to the application.
    pub(super) inbound: Vec<SocketAddr>,
    /// Where they take those that the application makes.
    pub(super) outbound: Vec<SocketAddr>,
    /// Tells when one ends, and why.
    pub(super) ended: mpsc::Receiver<Result<(), StartError>>,
}

/// Carries traffic: a thread for each worker.
pub(super) fn workers(bootstrap: &Bootstrap, shared: &Shared) -> Result<Workers, StartError> {
    let (inbound, outbound, shares) = listeners(bootstrap)?;
    let (sender, ended) = mpsc::channel(1);
    for (index, (listeners, place)) in shares.into_iter().zip(spread::places(bootstrap.workers)).enumerate() {
        let service = format!("worker-{index}");
        let failed = |source| StartError::Service { service: service.clone(), source };
        let setup = worker::Setup { listeners, place, shared: shared.clone() };
        let (sender, name) = (sender.clone(), service.clone());
        let run = move || {
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| worker::run(setup)));
            let outcome = outcome.unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            // The process may have ended before it.
            let _ = sender.blocking_send(outcome.map_err(|source| StartError::Service { service: name, source }));
        };
        std::thread::Builder::new().name(service.clone()).spawn(run).map_err(failed)?;
    }
    Ok(Workers { inbound, outbound, ended })
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
        let heading = Heading::Inbound { forward: declared.forward, port: declared.port() };
        inbound.push(bind(declared.listen, "inbound", &Purpose::Declared(heading))?);
    }
    for declared in &bootstrap.outbound {
        if let Some(called) = declared.target() {
            let (destination, port) = (called.service.text().clone(), called.port);
            let heading = Heading::Outbound { destination, port, original: None };
            outbound.push(bind(declared.listen, "outbound", &Purpose::Declared(heading))?);
        }
    }
    Ok((inbound, outbound, shares))
}
