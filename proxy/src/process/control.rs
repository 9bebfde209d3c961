//! The control thread: starts everything, listens to signals, and ends the process in order.

use std::{
    io, mem,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use selvedge_identity::file;
use serde::Serialize;
use socket2::Socket;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::timeout,
};

use super::{
    descriptors,
    error::StartError,
    listeners::{Bound, Declared, Listeners},
    manager::{self, Handed, Manager},
    replacement::{self, Before, Offer, Taken},
    services, surroundings,
};
use crate::{
    admin::{AdminState, Application, Scope},
    bootstrap::{Bootstrap, Capture, Ingress, Sigterm},
    config::InForce,
    drain::{self, Kept, Open, Phase},
    ledger::Everywhere,
    socket,
    spans::Ending,
    surroundings::Surroundings,
    telemetry::Telemetry,
    tenure::Tenure,
    worker::Shared,
};

/// The addresses a sidecar really listens on, for ports given as 0. Written to `portsFile` as JSON.
#[derive(Debug, Serialize)]
struct Ports {
    admin: SocketAddr,
    metrics: SocketAddr,
    inbound: Vec<SocketAddr>,
    outbound: Vec<SocketAddr>,
}

/// How long one whose listeners others have had before may let callers wait until it is complete.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a process that takes the place of one that is ready may take to get ready, too.
const START: Duration = Duration::from_secs(30);

/// Runs a sidecar until SIGTERM or SIGINT, then drains; a second signal ends the drain. One that `replaces` takes the place of
/// the sidecar that runs with its state directory, if one does.
///
/// # Errors
/// When it cannot start. Once it runs, whatever is missing (a control plane, a certificate) is waited for.
pub fn run(bootstrap: Bootstrap, replaces: bool) -> Result<(), StartError> {
    descriptors::raise("sidecar", descriptors_wanted(&bootstrap));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(bootstrap, replaces))
}

/// Every worker may hold so many connections in each direction, each with one on the other side.
fn descriptors_wanted(bootstrap: &Bootstrap) -> u64 {
    let connections = bootstrap.workers.saturating_mul(bootstrap.max_connections).saturating_mul(4);
    u64::try_from(connections).unwrap_or(u64::MAX)
}

/// Starts a sidecar, waits until it is to end, and ends it.
async fn serve(bootstrap: Bootstrap, replaces: bool) -> Result<(), StartError> {
    let manager = Manager::of_environment();
    let mut running = start(&bootstrap, replaces, &manager).await?;
    let mut signals = Signals::new()?;
    let end = tokio::select! {
        () = signals.next() => End::Told,
        Some(()) = running.drain_asked.recv() => End::Done,
        Some(taken) = running.replaced.recv() => End::Replaced(taken),
        // Half a sidecar would look alive: whoever supervises it starts a whole one.
        Some(outcome) = running.ended.recv() => return outcome,
    };
    running.end(&bootstrap, end, &mut signals, &manager).await;
    Ok(())
}

/// Starts the services of a sidecar, each of which needs those before it. Where it takes the place of another process it
/// takes no connection before it is as ready as that one is.
async fn start(bootstrap: &Bootstrap, replaces: bool, manager: &Manager) -> Result<Running, StartError> {
    if bootstrap.capture == Capture::Transparent {
        socket::expect_capture();
    }
    services::state(bootstrap)?;
    let telemetry = services::telemetry(bootstrap)?;
    let (before, handed, declared, listeners) = listen(bootstrap, replaces)?;
    let (tenure, own) = Tenure::new(before.is_none());
    let (phases, phase) = watch::channel(Phase::Serving);
    let open = Arc::new(Open::new(bootstrap.inbound.iter().map(|declared| declared.forward)));
    let (drain, drain_asked) = mpsc::channel(1);

    let credentials = services::identity(bootstrap, own.clone());
    let (resources, demand, heard) = services::discovery(bootstrap, &credentials, own);
    let configs = services::configuration(bootstrap, resources.clone(), credentials, &telemetry);
    let spans = services::spans(bootstrap, &telemetry, &configs);
    let found = surroundings::before(bootstrap, before.is_some() || handed.is_any());
    let ready = services::readiness(&configs, &phase, &found.subscribe());
    let state = AdminState {
        telemetry: telemetry.clone(),
        application: bootstrap.application_metrics.clone().map(Application::new),
        created_timestamps: bootstrap.created_timestamps,
        ready: ready.clone(),
        surroundings: found.subscribe(),
        config: configs.clone(),
        drain,
        leave: services::leaving(&phases, &open),
        phase: phase.clone(),
    };
    if before.as_ref().is_some_and(|before| before.ready) {
        until_complete(bootstrap, configs.clone()).await?;
    } else if handed.is_any() {
        while_queued(configs.clone()).await;
    }
    let ports = Ports::of(&declared);
    let pages = pages((declared.admin.1, declared.metrics.1), state)?;
    let kept = Kept::default();
    let shared = Shared {
        resolver: services::resolver(bootstrap, &resources, &demand),
        configs,
        resources,
        demand: demand.clone(),
        heard,
        telemetry: telemetry.clone(),
        phases: phase,
        open: open.clone(),
        max_connections: bootstrap.max_connections,
        caller_timeouts: bootstrap.caller_timeouts,
        by_host: bootstrap.ingress == Some(Ingress::Host),
        probes: services::probes(bootstrap),
        surroundings: found.subscribe(),
        everywhere: Everywhere::default(),
        kept: kept.clone(),
    };
    let (ended, pulses) = services::workers(declared.shares, &shared)?;
    services::look_around(&found, &ports.inbound, &telemetry, demand);
    ports.tell(bootstrap)?;
    let (listeners, taken, left) = listeners.finish();
    handed.refuse(&left);
    let is_kept = manager.keep(&listeners, &handed);
    services::attend(manager, ready.clone(), pulses);
    let addresses = listeners.iter().map(Bound::place).collect();
    let replaced = offer(bootstrap, listeners, ready, replacement::serves(before, taken, &tenure).await);
    Ok(Running {
        phases,
        open,
        telemetry,
        spans,
        tenure,
        kept,
        is_kept,
        addresses,
        pages,
        drain_asked,
        replaced,
        ended,
        _found: found,
    })
}

/// Answers operators on these listeners: on that for the admin, and on that for metrics.
fn pages(listeners: (Arc<TcpListener>, Arc<TcpListener>), state: AdminState) -> Result<[AbortHandle; 2], StartError> {
    let (admin, metrics) = listeners;
    let admin = services::pages("admin", admin, state.clone(), Scope::Admin)?;
    Ok([admin, services::pages("metrics", metrics, state, Scope::Metrics)?])
}

/// What a process listens with, and whom it has it of.
type Listening = (Option<Before>, Handed, Declared, Listeners);

/// Binds what is declared, or takes it from the process that this one replaces, or of the service manager.
fn listen(bootstrap: &Bootstrap, replaces: bool) -> Result<Listening, StartError> {
    let mut before = if replaces { replacement::find(&bootstrap.state_dir)? } else { None };
    let mut handed = Handed::default();
    let inherited = match &mut before {
        Some(before) => mem::take(&mut before.listeners),
        None => {
            handed = manager::handed().map_err(StartError::Handed)?;
            mem::take(&mut handed.listeners)
        }
    };
    let mut listeners = Listeners::new(inherited);
    match Declared::bind(bootstrap, &mut listeners) {
        Ok(declared) => Ok((before, handed, declared, listeners)),
        Err(error) if replaces && before.is_none() => Err(unoffered(bootstrap, error)),
        Err(error) => Err(error),
    }
}

/// Offers the listeners to the next process; tells when one has taken them. Without the offer everything else works.
fn offer(
    bootstrap: &Bootstrap,
    listeners: Vec<Bound>,
    ready: watch::Receiver<bool>,
    socket: Option<Socket>,
) -> mpsc::Receiver<Taken> {
    let (taken, replaced) = mpsc::channel(1);
    if let Err(error) = (Offer { listeners, ready, taken }).start(&bootstrap.state_dir, socket) {
        tracing::warn!(%error, "this sidecar cannot be replaced while it runs");
    }
    replaced
}

/// Waits until there is a certificate and a configuration, as the process before has them.
async fn until_complete(bootstrap: &Bootstrap, mut configs: watch::Receiver<InForce>) -> Result<(), StartError> {
    let complete = timeout(START, configs.wait_for(InForce::is_complete)).await;
    if complete.is_ok_and(|complete| complete.is_ok()) {
        return Ok(());
    }
    let problem = format!("the new process has no valid certificate and configuration after {START:?}");
    Err(StartError::Replace { path: bootstrap.state_dir.clone(), problem })
}

/// Waits for them for a while: who comes meanwhile is in the queue, and finds out nothing of a start.
async fn while_queued(mut configs: watch::Receiver<InForce>) {
    let _ = timeout(PATIENCE, configs.wait_for(InForce::is_complete)).await; // else who comes finds out
}

/// Says what to do where somebody listens who does not hand anything over.
fn unoffered(bootstrap: &Bootstrap, error: StartError) -> StartError {
    match error {
        StartError::Listen { address, purpose, source } if source.kind() == io::ErrorKind::AddrInUse => {
            let problem = format!(
                "somebody listens on {address} ({purpose}), and nobody hands it over; stop it first if it is a sidecar of an \
                 earlier release, or one with another state directory"
            );
            StartError::Replace { path: bootstrap.state_dir.clone(), problem }
        }
        other => other,
    }
}

/// Why a sidecar ends.
enum End {
    /// A signal said so.
    Told,
    /// Its application is said to be done.
    Done,
    /// A new process serves.
    Replaced(Taken),
}

/// A sidecar that runs.
struct Running {
    phases: watch::Sender<Phase>,
    open: Arc<Open>,
    telemetry: Telemetry,
    spans: Option<Ending>,
    tenure: watch::Sender<bool>,
    kept: Kept,
    /// Whether its listeners are kept for a next process.
    is_kept: bool,
    /// Where its listeners are, by name.
    addresses: Vec<(String, SocketAddr)>,
    pages: [AbortHandle; 2],
    drain_asked: mpsc::Receiver<()>,
    replaced: mpsc::Receiver<Taken>,
    ended: mpsc::Receiver<Result<(), StartError>>,
    /// Where nobody looks around any more what was found stays so.
    _found: watch::Sender<Surroundings>,
}

impl Running {
    async fn end(mut self, bootstrap: &Bootstrap, end: End, signals: &mut Signals, manager: &Manager) {
        self.replaced.close();
        manager.stopping("finishing what is in flight");
        let at_most = bootstrap.drain_deadline.0;
        let is_done = matches!(end, End::Done);
        match end {
            End::Replaced(taken) => {
                tracing::info!(?at_most, "a new process serves: finishing what is in flight");
                self.give_way(taken);
                finish(drain::give_way(&self.phases, &self.open, at_most), signals).await;
            }
            End::Told if bootstrap.sigterm == Sigterm::ApplicationGone => {
                tracing::info!(?at_most, "the application is gone: finishing what is in flight");
                finish(drain::follow(&self.phases, &self.open, at_most), signals).await;
            }
            End::Told if self.is_kept => {
                tracing::info!(?at_most, "the service manager keeps the listeners: finishing what is in flight");
                let is_gone = async || self.open.application.is_gone().await;
                finish(drain::restart(&self.phases, &self.open, at_most, is_gone), signals).await;
            }
            End::Told | End::Done => {
                tracing::info!(?at_most, "draining");
                let Self { phases, open, drain_asked, .. } = &mut self;
                let is_gone = async || open.application.is_gone().await;
                let done = async {
                    if !is_done {
                        drain_asked.recv().await;
                    }
                };
                finish(drain::drain(phases, open, at_most, is_gone, done), signals).await;
            }
        }
        if let Some(spans) = self.spans {
            spans.finish().await;
        }
        self.telemetry.finish_logs().await;
    }

    /// Lets go of everything that the new process has.
    fn give_way(&self, Taken { names, done }: Taken) {
        self.tenure.send_replace(false);
        self.pages.iter().for_each(AbortHandle::abort);
        let kept = self.addresses.iter().filter(|(name, _)| !names.contains(name));
        self.kept.keep(kept.map(|(_, address)| *address).collect());
        let _ = done.send(()); // the thread that waits for it lives as long as the process
    }
}

/// Waits for the end of a drain, unless it is told to end a second time.
async fn finish(drain: impl Future<Output = ()>, signals: &mut Signals) {
    tokio::select! {
        () = drain => tracing::info!("drained"),
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

impl Ports {
    fn of(declared: &Declared) -> Self {
        let Declared { admin, metrics, inbound, outbound, .. } = declared;
        Self { admin: admin.0, metrics: metrics.0, inbound: inbound.clone(), outbound: outbound.clone() }
    }

    /// Says where it listens, in the log and in `portsFile`.
    fn tell(&self, bootstrap: &Bootstrap) -> Result<(), StartError> {
        let Self { admin, metrics, inbound, outbound } = self;
        tracing::info!(workload = bootstrap.workload, %admin, %metrics, ?inbound, ?outbound, "listening");
        let Some(path) = &bootstrap.ports_file else { return Ok(()) };
        let written = serde_json::to_vec(self).map_err(io::Error::from).and_then(|json| file::publish(path, &json));
        written.map_err(|source| StartError::Ports { path: path.clone(), source })
    }
}
