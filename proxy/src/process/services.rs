//! The services of a sidecar: each has a name, takes what it needs of others and returns what others need of it.
//!
//! Guarantees: a service that panics is named in the log. One that traffic needs at every moment, a worker, ends the
//! sidecar; without another one what was in force stays so.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use selvedge_decide::resources::Resources;
use selvedge_identity::file;
use selvedge_policies::names::WorkloadName;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use super::{cluster, error::StartError, listeners::Shares, manager::Manager, resolver, surroundings, worker};
use crate::{
    admin::{self, AdminState, Scope},
    bootstrap::{Bootstrap, Capture, OutboundListener},
    clock,
    config::{self, InForce, publish::Publisher},
    credentials::Credentials,
    drain::{self, Open, Phase},
    identity,
    probes::{Probes, gateway},
    resolver::Question,
    spans::{self, Exporter},
    surroundings::{Surroundings, captured::Captured},
    telemetry::{Telemetry, TelemetrySettings, open_audit_log},
    tenure::Tenure,
    tls::{self, ExternalTls},
    worker::{Shared, spread},
    xds::{self, Demand, Heard},
};

/// Calls that may ask at once whether an address is one of a host's.
const QUESTIONS: usize = 1024;

/// What a sidecar proves itself with, as it changes.
type CredentialsReceiver = watch::Receiver<Option<Arc<Credentials>>>;

/// Runs `service` on the control thread until the process ends.
fn start(name: &'static str, service: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    let task = tokio::spawn(service);
    let handle = task.abort_handle();
    tokio::spawn(watch_over(name, task));
    handle
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

/// Metrics, access log and audit log.
pub(super) fn telemetry(bootstrap: &Bootstrap) -> Result<Telemetry, StartError> {
    let workload = bootstrap.workload.parse::<WorkloadName>().ok();
    let audit_log = |path: &PathBuf| {
        open_audit_log(Some(path)).map_err(|source| StartError::AuditLog { path: path.clone(), source })
    };
    let settings = TelemetrySettings {
        workload: workload.as_ref().map_or(&*bootstrap.workload, WorkloadName::name).to_owned(),
        namespace: workload.as_ref().map_or("", WorkloadName::namespace).to_owned(),
        access_log_file: bootstrap.access_log_file.clone(),
        audit_log: bootstrap.audit_log_file.as_ref().map(audit_log).transpose()?,
    };
    Telemetry::new(&settings).map_err(|source| match settings.access_log_file {
        Some(path) => StartError::AccessLog { path, source },
        None => source.into(),
    })
}

/// Obtains certificates and renews them.
pub(super) fn identity(bootstrap: &Bootstrap, tenure: Tenure) -> CredentialsReceiver {
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
        tenure,
    };
    start("identity", identity::keep(settings, sender));
    receiver
}

/// Talks to the control plane; returns what it says, where to ask for more, and how often it was heard.
pub(super) fn discovery(
    bootstrap: &Bootstrap,
    credentials: &CredentialsReceiver,
    tenure: Tenure,
) -> (watch::Receiver<Arc<Resources>>, mpsc::UnboundedSender<Demand>, Heard) {
    let settings = xds::Settings {
        control_plane: bootstrap.control_plane.clone(),
        workload: bootstrap.workload.clone(),
        state_dir: bootstrap.state_dir.clone(),
        idle: xds::IDLE,
        tenure,
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

/// Hands spans to a collector, where one is named; returns what ends that.
pub(super) fn spans(
    bootstrap: &Bootstrap,
    telemetry: &Telemetry,
    configs: &watch::Receiver<InForce>,
) -> Option<spans::Ending> {
    let (exporter, ending) = Exporter::new(bootstrap, telemetry, configs)?;
    start("spans", exporter.run());
    Some(ending)
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

/// Answers operators on `listener` until it is aborted.
pub(super) fn pages(
    name: &'static str,
    listener: Arc<TcpListener>,
    state: AdminState,
    scope: Scope,
) -> Result<AbortHandle, StartError> {
    let own = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
    Ok(start(name, async move {
        let _ = admin::serve(own, state, scope).await; // it answers until the process ends
        drop(listener);
    }))
}

/// Tells the service manager how this sidecar is, and that its workers live.
pub(super) fn attend(manager: &Manager, ready: watch::Receiver<bool>, pulses: Vec<Pulse>) {
    let words = ["waiting for a certificate and a configuration, or not ready; the log says why", "serving"];
    start("service manager", manager.clone().follow(ready, words));
    let pulses = Arc::new(pulses);
    start("watchdog", manager.clone().watch(move || live(pulses.clone())));
}

/// Waits until every worker has said that it lives.
async fn live(pulses: Arc<Vec<Pulse>>) {
    for pulse in &*pulses {
        let (answer, said) = oneshot::channel();
        if pulse.send(answer).await.is_err() || said.await.is_err() {
            std::future::pending::<()>().await; // it has ended, and so does the process
        }
    }
}

/// Asks a worker whether it lives.
type Pulse = mpsc::Sender<oneshot::Sender<()>>;

/// How a worker ended.
type Ended = Result<(), StartError>;

/// Carries traffic: a thread for each worker, with its share of the listeners. Tells when one ends, and why; and where each is
/// asked whether it lives.
pub(super) fn workers(shares: Shares, shared: &Shared) -> Result<(mpsc::Receiver<Ended>, Vec<Pulse>), StartError> {
    let (sender, ended) = mpsc::channel(1);
    let mut pulses = Vec::new();
    let places = spread::places(shares.len());
    for (index, (listeners, place)) in shares.into_iter().zip(places).enumerate() {
        let service = format!("worker-{index}");
        let failed = |source| StartError::Service { service: service.clone(), source };
        let (pulse, asked) = mpsc::channel(1);
        pulses.push(pulse);
        let setup = worker::Setup { listeners, place, asked, shared: shared.clone() };
        let (sender, name) = (sender.clone(), service.clone());
        let run = move || {
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| worker::run(setup)));
            let outcome = outcome.unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            // The process may have ended before it.
            let _ = sender.blocking_send(outcome.map_err(|source| StartError::Service { service: name, source }));
        };
        std::thread::Builder::new().name(service.clone()).spawn(run).map_err(failed)?;
    }
    Ok((ended, pulses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_workers_that_all_answer_are_said_to_live() {
        let (pulses, mut asked): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(1)).unzip();
        let pulses: Arc<Vec<Pulse>> = Arc::new(pulses);
        let mut stuck = asked.remove(1);
        tokio::spawn(worker::answer(asked.remove(0)));
        let patience = Duration::from_secs(600);
        assert!(tokio::time::timeout(patience, live(pulses.clone())).await.is_err(), "one of them is stuck");
        stuck.recv().await.unwrap();
        tokio::spawn(worker::answer(stuck));
        live(pulses).await;
    }
}
