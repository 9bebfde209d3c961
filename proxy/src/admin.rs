//! The two ports for operators: metrics and health for anyone who may scrape, everything else on loopback.
//!
//! Runs on the control thread, so a slow or hostile scraper costs the data path nothing: connections are few, each
//! has a deadline, and no request body is read. What changes something wants POST; the admin port also wants a
//! `Host` that names loopback, so that a page in a browser cannot reach it by DNS rebinding.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    time::{sleep, timeout},
};

use crate::{config::InForce, drain::Phase, surroundings::Surroundings, telemetry::Telemetry};

mod answer;
mod application;
mod exposition;

pub(crate) use application::Application;

/// Connections each port serves at once; more wait in the listener's queue.
const CONNECTIONS: usize = 32;
/// The longest a client may take over its request line and header fields.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// The longest a connection lives, so that one that is never read goes away.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);

/// What the pages show and what they can set off.
#[derive(Clone, Debug)]
pub(crate) struct AdminState {
    /// What `/metrics` shows, gathered when it is asked for.
    pub telemetry: Telemetry,
    /// Whose metrics `/metrics` shows behind the sidecar's.
    pub application: Option<Application>,
    /// Whether OpenMetrics says when each counter began.
    pub created_timestamps: bool,
    /// Whether the sidecar takes traffic.
    pub ready: watch::Receiver<bool>,
    /// What was found out about where it stands.
    pub surroundings: watch::Receiver<Surroundings>,
    /// What is in force.
    pub config: watch::Receiver<InForce>,
    /// Takes one message when a drain is asked for.
    pub drain: mpsc::Sender<()>,
    /// Takes how long callers have to hear of it, when it is to leave.
    pub leave: mpsc::Sender<Duration>,
    /// How far leaving or a drain has come.
    pub phase: watch::Receiver<Phase>,
}

/// Which pages a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `/metrics`, `/ready` and `/live`, which change nothing.
    Metrics,
    /// Those, and `/config`, `/leave`, `/drain` and an index.
    Admin,
}

/// Answers on `listener` for as long as it is polled. An admin listener must be bound to loopback, which is
/// [`crate::bootstrap`]'s to check.
///
/// # Errors
/// Never; the type lets a caller tell the end of the listener from its own.
pub(crate) async fn serve(listener: TcpListener, state: AdminState, scope: Scope) -> io::Result<Infallible> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Most likely out of descriptors: there is nothing to do but to let others close theirs.
                tracing::warn!(%error, "the admin port could not accept a connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (state, own) = (state.clone(), socket.local_addr().ok().map(|address| address.ip()));
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let (state, (head, _)) = (state.clone(), request.into_parts());
                async move { Ok::<_, Infallible>(answer::answer(&head, &state, scope, own).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(socket), service);
            // Neither a client that breaks off nor one that is cut off is worth a word.
            let _ = timeout(CONNECTION_LIMIT, connection).await;
            drop(slot);
        });
    }
}

#[cfg(test)]
mod tests;
