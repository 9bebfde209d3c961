//! Accepting connections: where each leads, and how many a worker holds.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use selvedge_policies::reason::Reason;
use tokio::time::timeout;

use crate::{
    arrival::{Accepted, Admitted},
    connection::{Connection, Origin},
    error::Error,
    heading::{Heading, Purpose},
    probes::Probes,
    record,
    socket::original_dst,
    surroundings::captured,
    telemetry::Protocol,
    worker::{Permit, Worker},
};

/// How long callers wait for a sidecar that has just started.
const START: Duration = Duration::from_secs(2);

/// Finds out where a connection leads. `None` (and the socket is closed) when the worker is at its limit, when a
/// captured connection has no original destination, as one that came straight to the capture port: relaying it would lead
/// back here for ever. One that only asks whether it comes here is told so. A sidecar that has just started keeps callers
/// waiting until it knows who may call; who only looks how the application is has no time, and needs no leave.
pub(crate) async fn admit(accepted: Accepted) -> Option<Admitted> {
    let Accepted { worker, socket, peer, purpose } = accepted;
    let heading = match purpose {
        Purpose::Declared(heading) => heading,
        Purpose::CapturedInbound => {
            let original = original_dst(&socket)?;
            Heading::Inbound { forward: original, port: original.port() }
        }
        Purpose::CapturedOutbound => {
            let original = original_dst(&socket)?;
            if captured::is_question(original) {
                captured::answer(&socket);
                return None;
            }
            let destination: Arc<str> = original.to_string().into();
            Heading::Outbound { destination, port: original.port(), original: Some(original) }
        }
    };
    let permit = Rc::new(Permit::take(&worker, &heading));
    let _ = socket.set_nodelay(true); // only latency is at stake
    // A dual-stack listener writes IPv4 peers as IPv6; policies and logs know them by their own form.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let origin = Origin { worker, peer, heading, permit, standing: Rc::default() };
    if origin.worker.is_overloaded(&origin.heading) {
        let connection = Rc::new(Connection::new(origin, None, Protocol::Tcp));
        let error = Error::new(Reason::Overloaded, "the worker holds as many connections as it may");
        record::connection_refused(&connection, &error);
        return None;
    }
    if let Heading::Inbound { port, .. } = origin.heading
        && !origin.worker.may_probe(Probes::is_prober, port, origin.peer.ip())
    {
        origin.worker.note_call();
        configured(&origin.worker).await;
    }
    Some(Admitted { origin, socket })
}

/// Waits for the workload's own view, in bounded time. Without it every call is refused, which a caller with a little
/// patience can be spared.
async fn configured(worker: &Worker) {
    if worker.snapshot().config.is_own_known() {
        return;
    }
    let mut configs = worker.configs();
    let known =
        async { while configs.changed().await.is_ok() && !worker.refresh(&mut configs).config.is_own_known() {} };
    let _in_time_or_refused_later = timeout(START, known).await;
}
