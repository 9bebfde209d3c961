//! Probes that only connect (`tcpSocket`). Whoever listens is the sidecar, so it asks the application itself, on a
//! connection of its own over which nothing of the prober's ever goes.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use selvedge_policies::reason::Reason;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    arrival::Admitted,
    connection::Connection,
    error::Error,
    heading::Heading,
    probes::Probes,
    record,
    sniff::silence,
    socket::{Side, dial},
    telemetry::{ProbeOutcome, Protocol},
};

/// How long the application may take to take a connection. The kubelet waits no longer by default.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers a probe that only connects. A connection that has something to say is given back, to be judged as any other.
pub(super) async fn answered(admitted: Admitted) -> Option<Admitted> {
    let Heading::Inbound { forward, port } = admitted.origin.heading else { return Some(admitted) };
    if !admitted.origin.worker.may_probe(Probes::may_connect, port, admitted.origin.peer.ip()) {
        return Some(admitted);
    }
    Box::pin(answer(admitted, forward)).await
}

async fn answer(admitted: Admitted, application: SocketAddr) -> Option<Admitted> {
    let said = timeout(silence(&[]), said(&admitted.socket)).await;
    if said == Ok(true) {
        return Some(admitted);
    }
    let Admitted { origin, socket } = admitted;
    let telemetry = &origin.worker.telemetry;
    let asked = timeout(PATIENCE, dial(application, Side::Workload)).await;
    let failed = match asked {
        Ok(Ok(_)) => {
            telemetry.probe(Protocol::Tcp, ProbeOutcome::Passed);
            // Who is silent for longer may wait for the service to speak.
            return said.is_err().then_some(Admitted { origin, socket });
        }
        Ok(Err(error)) => Error::new(Reason::UpstreamConnectFailed, format!("a probe found nobody: {error}")),
        Err(_) => Error::new(Reason::UpstreamConnectTimeout, "a probe waited for the application in vain"),
    };
    telemetry.probe(Protocol::Tcp, ProbeOutcome::Failed);
    let _ = socket.set_zero_linger(); // the prober is told as the application's machine would, by a reset
    record::connection_refused(&Rc::new(Connection::new(origin, None, Protocol::Tcp)), &failed);
    None
}

/// Whether the caller says something before it closes.
async fn said(socket: &TcpStream) -> bool {
    matches!(socket.peek(&mut [0]).await, Ok(1..))
}
