//! Looks around: whether connections come to the sidecar that must, and whether calls can go past it.

use std::{net::SocketAddr, time::Duration};

use selvedge_xds::ports::Port;
use tokio::{
    sync::{mpsc, watch},
    time::{interval, timeout},
};

use crate::{
    bootstrap::{Ask, Bootstrap, Capture, InboundListener},
    socket::{Side, dial},
    surroundings::{
        Surroundings,
        captured::{self, Captured},
        direct::{Direct, InboundPort},
    },
    telemetry::Telemetry,
    xds::Demand,
};

/// How often it is found out whether connections have begun to come.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked where the application listens.
const LOOK: Duration = Duration::from_secs(5);
/// The same where a probe is answered by that; no kubelet probes more often.
const PROBED: Duration = Duration::from_secs(1);
/// How long an application may take to take a connection that is not seen to listen.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the surroundings before anybody has looked. A process that takes over refuses nobody before it has.
pub(super) fn before(bootstrap: &Bootstrap, takes_over: bool) -> watch::Sender<Surroundings> {
    let captured = if bootstrap.capture_required { Captured::unknown() } else { Captured::NotRequired };
    let declared = if bootstrap.capture == Capture::Explicit { &bootstrap.inbound[..] } else { &[] };
    let probes = bootstrap.probed();
    let probed = |port| probes.iter().any(|probe| probe.port == port && probe.ask == Ask::Connect);
    let port = |declared: &InboundListener| {
        let port = InboundPort::declared(declared, probed(declared.port()));
        InboundPort { away: port.away && !takes_over, ..port }
    };
    let inbound = declared.iter().map(port).collect();
    watch::Sender::new(Surroundings { captured, inbound })
}

/// Looks until connections come here. Nothing to do where nobody said that they must.
pub(super) async fn captured(found: watch::Sender<Surroundings>, telemetry: Telemetry) {
    let is_waiting = |found: &watch::Sender<Surroundings>| matches!(found.borrow().captured, Captured::Not(_));
    let mut again = interval(AGAIN);
    while is_waiting(&found) {
        again.tick().await;
        let captured = captured::look().await.map_or_else(|why| Captured::Not(why.into()), |()| Captured::Yes);
        telemetry.set_captured(captured == Captured::Yes);
        let changed = found.borrow().captured != captured;
        match &captured {
            Captured::Not(why) if changed => tracing::warn!(
                why = &**why,
                "not ready: connections of the workload go past the sidecar; docs/kubernetes/capture.md says what to look at"
            ),
            Captured::Yes => tracing::info!("connections of the workload come to the sidecar"),
            _ => {}
        }
        // After it was logged: whoever asks why the sidecar is not ready finds the reason in its log, too.
        if changed {
            found.send_modify(|last| last.captured = captured);
        }
    }
}

/// Looks where the application listens for as long as the process runs. Nothing to do without declared ports.
pub(super) async fn direct(
    found: watch::Sender<Surroundings>,
    own: Vec<SocketAddr>,
    telemetry: Telemetry,
    demand: mpsc::UnboundedSender<Demand>,
) {
    let mut told = Vec::new();
    let probed = found.borrow().inbound.iter().any(|port| port.probed);
    let mut look = interval(if probed { PROBED } else { LOOK });
    while !found.borrow().inbound.is_empty() {
        look.tick().await;
        let listens = selvedge_capture::listeners();
        let before = found.borrow().inbound.clone();
        let mut after: Vec<InboundPort> = before.iter().map(|port| port.seen(&listens, &own)).collect();
        for port in after.iter_mut().filter(|port| port.probed) {
            port.away = !port.is_seen(&listens, &own) && !takes_connections(port.forward).await;
        }
        for (port, _) in after.iter().zip(&before).filter(|(after, before)| after.direct != before.direct) {
            match &port.direct {
                Direct::Unknown => {}
                Direct::No => {
                    tracing::info!(port = port.port, "policies are enforced: the application listens on loopback only")
                }
                Direct::At(_) => tracing::warn!(port = port.port, "policies are not enforced: {port}"),
            }
        }
        telemetry.set_enforced(after.iter().filter_map(|port| match port.direct {
            Direct::Unknown => None,
            Direct::No => Some((port.port, true)),
            Direct::At(_) => Some((port.port, false)),
        }));
        let tell: Vec<Port> = after.iter().map(InboundPort::told).collect();
        if tell != told {
            told.clone_from(&tell);
            let _ = demand.send(Demand::Ports(tell)); // the task lives as long as the process
        }
        found.send_if_modified(|last| std::mem::replace(&mut last.inbound, after) != last.inbound);
    }
}

/// Whether the application takes connections at `forward`, which may be on another host.
async fn takes_connections(forward: SocketAddr) -> bool {
    timeout(PATIENCE, dial(forward, Side::Workload)).await.is_ok_and(|dialled| dialled.is_ok())
}
