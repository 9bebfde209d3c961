//! Connecting to the service for opaque bytes, after mode and policies have let the connection pass.

use std::{rc::Rc, time::Duration};

use bytes::BytesMut;
use selvedge_decide::route::Scope;
use selvedge_policies::reason::Reason;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::Instant,
};

use crate::{
    arrival::{Dialled, Dialling},
    balance::{self, Ended, Picked},
    cluster::{
        Cluster,
        connect::{self, Hop, Stream},
    },
    config::Trust,
    connection::Connection,
    error::Error,
    filter,
    heading::Heading,
    judge, route,
    routed::FREE_REPEATS,
    sniff::{FIRST_BYTES, Prefixed},
    telemetry::Direction,
    worker::Worker,
};

/// How soon after its last bytes a caller ends its sending side that has said all there was to say.
const HALF_CLOSE: Duration = Duration::from_millis(100);

/// Begins to [`dial`], for whoever wants to know who speaks first meanwhile.
pub(crate) fn begin(connection: &Rc<Connection>) -> Dialling {
    let connection = connection.clone();
    Box::pin(async move { dial(&connection).await })
}

/// Waits for the service's side for as long as the caller is there; what that says meanwhile is read into `first`. A caller
/// may end its sending side at once when it has said all (half-close). One that does so in silence, while a policy makes it
/// wait, has given up, as has one that breaks off at any time.
pub(crate) async fn while_there(
    connection: &Connection,
    io: &mut (impl AsyncRead + Unpin),
    first: &mut BytesMut,
    mut dialling: Dialling,
) -> Result<Dialled, Error> {
    let mut heard = Instant::now();
    loop {
        let read = tokio::select! {
            biased; // who is let through is not kept waiting by what it says
            dialled = &mut dialling => return dialled,
            read = io.read_buf(first), if first.len() < FIRST_BYTES => read,
        };
        match read {
            Ok(1..) => heard = Instant::now(),
            Ok(_) if !connection.standing.waits.get() || heard.elapsed() < HALF_CLOSE => return dialling.await,
            Ok(_) | Err(_) => {
                let detail = "the caller has closed the connection before it was let through";
                return Err(Error::new(Reason::DownstreamClosed, detail));
            }
        }
    }
}

/// Connects to the service, after mode and policies have let the connection pass.
pub(crate) async fn dial(connection: &Rc<Connection>) -> Result<Dialled, Error> {
    let worker = &connection.worker;
    let mut snapshot = worker.snapshot();
    judge::admitted(connection, &snapshot.config)?;
    let scope = route::resolve(connection, &mut snapshot).await?;
    let audited = filter::on_connection(connection, scope.policies()).await?;
    let (stream, picked) = match (&connection.heading, &scope) {
        (Heading::Outbound { port, .. }, Scope::Outbound(destination)) => {
            let cluster = route::cluster(&snapshot, destination, None, *port)?;
            dial_any(worker, &cluster, &snapshot.trust).await?
        }
        (Heading::Inbound { forward, .. }, _) => {
            let picked = Picked::new(worker.local(Direction::Inbound, *forward), worker.now());
            dial_one(worker, picked, &snapshot.trust).await.map_err(Error::of_application)?
        }
        (Heading::Outbound { original: Some(address), .. }, _) => {
            dial_one(worker, Picked::new(worker.local(Direction::Outbound, *address), worker.now()), &snapshot.trust)
                .await?
        }
        (Heading::Outbound { destination, .. }, _) => return Err(route::no_endpoints(destination)),
    };
    Ok(Dialled { stream: Prefixed::new(stream, bytes::Bytes::new()), picked, audited })
}

/// Connects to an endpoint of `cluster`, and to another one when that takes no connection: nothing was said yet, so
/// nothing is said twice.
async fn dial_any(worker: &Worker, cluster: &Cluster, trust: &Trust) -> Result<(Stream, Picked), Error> {
    let mut picked = balance::pick(worker, cluster, None)?;
    for _ in 0..FREE_REPEATS {
        let endpoint = Rc::clone(&picked.endpoint);
        let failure = match dial_one(worker, picked, trust).await {
            Ok(dialled) => return Ok(dialled),
            Err(failure) => failure,
        };
        picked = match balance::pick(worker, cluster, Some(&endpoint)) {
            Ok(other) if !Rc::ptr_eq(&other.endpoint, &endpoint) => other,
            _ => return Err(failure),
        };
    }
    dial_one(worker, picked, trust).await
}

async fn dial_one(worker: &Worker, mut picked: Picked, trust: &Trust) -> Result<(Stream, Picked), Error> {
    let connected = connect::stream(&picked.endpoint.config, trust, Hop::Tcp).await;
    if connected.is_err() {
        picked.endpoint.leave_alone(worker.now());
    }
    picked.record(worker, if connected.is_ok() { Ended::Connected } else { Ended::Failed });
    Ok((connected?, picked))
}
