//! The control thread: starts everything, listens to signals, and ends the process in order.

use std::{io, net::SocketAddr, sync::Arc};

use selvedge_identity::file;
use serde::Serialize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
};

use super::{
    descriptors,
    services::{self, StartError, Workers},
    surroundings,
};
use crate::{
    admin::{AdminState, Application, Scope},
    bootstrap::{Bootstrap, Capture, Ingress, Sigterm},
    drain::{self, Open, Phase},
    ledger::Everywhere,
    socket,
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

/// Runs a sidecar until SIGTERM or SIGINT, then drains; a second signal ends the drain.
///
/// # Errors
/// When it cannot start. Once it runs, whatever is missing (a control plane, a certificate) is waited for.
pub fn run(bootstrap: Bootstrap) -> Result<(), StartError> {
    descriptors::raise("sidecar", descriptors_wanted(&bootstrap));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(bootstrap))
}

/// Every worker may hold so many connections in each direction, each with one on the other side.
fn descriptors_wanted(bootstrap: &Bootstrap) -> u64 {
    let connections = bootstrap.workers.saturating_mul(bootstrap.max_connections).saturating_mul(4);
    u64::try_from(connections).unwrap_or(u64::MAX)
}

/// Starts the services of a sidecar, each of which needs those before it, and waits until it is told to end.
async fn serve(bootstrap: Bootstrap) -> Result<(), StartError> {
    if bootstrap.capture == Capture::Transparent {
        socket::expect_capture();
    }
    services::state(&bootstrap)?;
    let telemetry = services::telemetry(&bootstrap)?;
    let (phases, phase) = watch::channel(Phase::Serving);
    let open = Arc::new(Open::new(bootstrap.inbound.iter().map(|declared| declared.forward)));
    let (drain, mut drain_asked) = mpsc::channel(1);

    let credentials = services::identity(&bootstrap);
    let (resources, demand, heard) = services::discovery(&bootstrap, &credentials);
    let configs = services::configuration(&bootstrap, resources.clone(), credentials, &telemetry);
    let found = surroundings::before(&bootstrap);
    let ready = services::readiness(&configs, &phase, &found.subscribe());
    let state = AdminState {
        telemetry: telemetry.clone(),
        application: bootstrap.application_metrics.clone().map(Application::new),
        created_timestamps: bootstrap.created_timestamps,
        ready,
        surroundings: found.subscribe(),
        config: configs.clone(),
        drain,
        leave: services::leaving(&phases, &open),
        phase: phase.clone(),
    };
    let admin = services::pages("admin", bootstrap.admin, state.clone(), Scope::Admin)?;
    let metrics = services::pages("metrics", bootstrap.metrics, state, Scope::Metrics)?;
    let resolver = services::resolver(&bootstrap, &resources, &demand);
    let shared = Shared {
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
        probes: services::probes(&bootstrap),
        surroundings: found.subscribe(),
        everywhere: Everywhere::default(),
        resolver,
    };
    let Workers { inbound, outbound, mut ended } = services::workers(&bootstrap, &shared)?;
    services::look_around(&found, &inbound, &telemetry, demand);

    tracing::info!(workload = bootstrap.workload, %admin, %metrics, ?inbound, ?outbound, "listening");
    write_ports(&bootstrap, &Ports { admin, metrics, inbound, outbound })?;
    let mut signals = Signals::new()?;
    // Whether the application is known to be done.
    let told = tokio::select! {
        () = signals.next() => false,
        Some(()) = drain_asked.recv() => true,
        // Half a sidecar would look alive: whoever supervises it starts a whole one.
        Some(outcome) = ended.recv() => return outcome,
    };
    let at_most = bootstrap.drain_deadline.0;
    if !told && bootstrap.sigterm == Sigterm::ApplicationGone {
        tracing::info!(?at_most, "the application is gone: finishing what is in flight");
        finish(drain::follow(&phases, &open, at_most), &mut signals).await;
    } else {
        tracing::info!(?at_most, "draining");
        let is_gone = async || open.application.is_gone().await;
        let done = async {
            if !told {
                drain_asked.recv().await;
            }
        };
        finish(drain::drain(&phases, &open, at_most, is_gone, done), &mut signals).await;
    }
    telemetry.finish_log().await;
    Ok(())
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

fn write_ports(bootstrap: &Bootstrap, ports: &Ports) -> Result<(), StartError> {
    let Some(path) = &bootstrap.ports_file else { return Ok(()) };
    let written = serde_json::to_vec(ports).map_err(io::Error::from).and_then(|json| file::publish(path, &json));
    written.map_err(|source| StartError::Ports { path: path.clone(), source })
}
