//! Whether a connection may be, and may stay: asked when it comes, for every request on it, and again while it is open.
//!
//! A request is short and is judged anew by the configuration of its time. A connection of opaque bytes or a tunnel may
//! last for days, so a right that is taken away has to reach it: it is authorized again at every change of the
//! configuration, and at the moment from which a policy decides otherwise by itself, such as an ALLOW that expires.
//! What is still allowed is not touched, whatever else has changed, so edits cut nothing off. Limits count a connection
//! once, when it comes.
//!
//! Only connections to the application are judged here; calls that the workload makes are judged where they arrive. The
//! end of a drain ends connections of both kinds in the same place.

use std::{future::pending, time::Duration};

use http::Request;
use hyper::body::Body;
use selvedge_decide::{admission::may_call, config::InboundPort};
use selvedge_policies::{reason::Reason, request::PolicySet, verdict::Answer};
use tokio::time::sleep;

use crate::{
    config::RuntimeConfig,
    connection::Connection,
    error::Error,
    filter,
    heading::Heading,
    probes::{self, Asked, Peer},
    telemetry::ProbeOutcome,
    worker::Worker,
};

/// Longer than a timer is set to at once.
const LONG: Duration = Duration::from_secs(86_400);

/// Whether the peer may call at all. Asked for every request, so that a change of mode holds for live connections.
pub(crate) fn admitted(connection: &Connection, config: &RuntimeConfig) -> Result<(), Error> {
    match connection.heading {
        Heading::Inbound { port, .. } => {
            let identity = connection.peer.identity.as_deref();
            may_call(identity, config).map_err(|reason| refused(connection, config, port, reason))?;
            if identity.is_none() {
                connection.worker.called_in_plaintext(connection.peer_address.ip());
            }
            Ok(())
        }
        Heading::Outbound { .. } => Ok(()),
    }
}

/// Why nothing without mTLS gets through. Where there are probes it may be meant as one.
fn refused(connection: &Connection, config: &RuntimeConfig, port: u16, reason: Reason) -> Error {
    let peer = Peer::new(connection.peer.address, &config.own.probers);
    let probed = || connection.worker.probes.why_not(port, peer);
    match (reason == Reason::PlaintextRefused).then(probed).flatten() {
        Some(detail) => Error::new(reason, detail),
        None => Error::new(reason, reason.summary()),
    }
}

/// Whether a request is a probe from where probes come from: it passes without a policy, and alone.
///
/// # Errors
/// It is none, and its caller may not call.
pub(crate) fn is_probe<B: Body>(
    connection: &Connection,
    config: &RuntimeConfig,
    request: &Request<B>,
) -> Result<bool, Error> {
    let (port, peer) = (connection.port(), Peer::new(connection.peer.address, &config.own.probers));
    let is_unknown = connection.peer.identity.is_none() && matches!(connection.heading, Heading::Inbound { .. });
    let asked = is_unknown.then(|| connection.worker.probes.asked(port, peer, request)).flatten();
    let count = |outcome| connection.worker.telemetry.probe(connection.protocol, outcome);
    if asked == Some(Asked::ByProber) {
        count(ProbeOutcome::Passed);
        return Ok(true);
    }
    let Err(error) = admitted(connection, config) else { return Ok(false) };
    if asked.is_none() || error.reason != Reason::PlaintextRefused {
        return Err(error);
    }
    count(ProbeOutcome::Refused);
    let mut answer = Answer::refuse(error.reason, error.policy.clone());
    answer.body = probes::refusal(port, connection.peer.address).into();
    Err(Error { answer: Some(Box::new(answer)), ..error })
}

/// Waits until the sidecar has to end the connection: a drain is over, or `judge` says of the policies of its port that
/// they no longer let it be, because there is a new configuration or one of them has expired. The sidecar's own workload
/// is judged where it calls.
pub(crate) async fn ended(
    connection: &Connection,
    judge: impl Fn(&RuntimeConfig, &InboundPort) -> Result<(), Error>,
) -> Error {
    let (mut drained, mut configs) = (connection.worker.drain(), connection.worker.configs());
    let revoked = async {
        let Heading::Inbound { port, .. } = connection.heading else { return pending().await };
        let mut snapshot = connection.worker.refresh(&mut configs);
        loop {
            let port = snapshot.config.inbound(port);
            if let Err(error) = judge(&snapshot.config, port) {
                return error;
            }
            tokio::select! {
                () = expired(&connection.worker, &port.policies) => {}
                changed = configs.changed() => match changed {
                    Ok(()) => snapshot = connection.worker.refresh(&mut configs),
                    Err(_) => return pending().await,
                },
            }
        }
    };
    tokio::select! {
        () = drained.passed() => Error::new(Reason::Draining, Reason::Draining.summary()),
        error = revoked => error,
    }
}

/// Waits until one of the policies may decide otherwise than now, though it has not changed.
async fn expired(worker: &Worker, policies: &PolicySet) {
    let now = worker.now();
    match policies.next_expiry(now) {
        Some(expiry) => sleep(Duration::from_secs(expiry - now.unix).min(LONG)).await,
        None => pending().await,
    }
}

/// Whether an opaque connection that is open may stay.
pub(crate) fn still_admitted(
    connection: &Connection,
    config: &RuntimeConfig,
    policies: &PolicySet,
) -> Result<(), Error> {
    admitted(connection, config)?;
    filter::on_open_connection(connection, policies)
}
