//! Bytes that are not HTTP, or not any more: the same mTLS, identity policy and counts, without looking inside.

use std::{
    future::pending,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use selvedge_policies::{reason::Reason, request::RequestPolicy};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};

use crate::{
    attempt,
    balance::{self, Ended, Picked, cluster::Cluster},
    config::{RuntimeConfig, Trust},
    detect::Prefixed,
    error::{Error, Stage},
    exchange::{Connection, Heading, Tunnelled},
    filter,
    identity::peer::{Identified, admitted},
    process::worker::Worker,
    record::{self, Opened},
    route::{self, Scope},
    telemetry::Flow,
    upstream::connect::{self, Hop, Stream},
};

/// Longer than a timer is set to at once.
const LONG: Duration = Duration::from_secs(86_400);

/// The service's side of a connection.
pub struct Dialled {
    /// Its bytes.
    pub stream: Prefixed<Stream>,
    /// The endpoint's books.
    pub picked: Picked,
    /// The policy that only looks on and would have refused it.
    pub audited: Option<Arc<str>>,
}

/// Relays a connection until both sides are done.
pub async fn relay(identified: Identified) {
    let Identified { connection, io, dialled } = identified;
    let dialled = match dialled {
        Some(dialled) => Ok(dialled),
        None => dial(&connection).await,
    };
    let Dialled { stream, picked, audited } = match dialled {
        Ok(dialled) => dialled,
        Err(error) => return record::connection_refused(&connection, &error),
    };
    let opened = record::connection_opened(&connection, Some(&picked.endpoint)).audited(audited);
    join(opened, io, stream, ended(&connection, |config, policies| still_admitted(&connection, config, policies)))
        .await;
}

/// Relays what an upgrade or CONNECT has become, until both sides are done or the request it was made of may not be any
/// more.
pub async fn tunnel(
    opened: Opened,
    connection: Rc<Connection>,
    tunnelled: Option<Tunnelled>,
    (caller, service): (OnUpgrade, OnUpgrade),
) {
    let (Ok(caller), Ok(service)) = tokio::join!(caller, service) else { return opened.closed(0, 0, None) };
    let judged = ended(&connection, |config, policies| {
        admitted(&connection, config)?;
        match &tunnelled {
            Some(tunnelled) => filter::on_open_tunnel(&connection, tunnelled, policies),
            None => Ok(()),
        }
    });
    join(opened, TokioIo::new(caller), TokioIo::new(service), judged).await;
}

/// Carries bytes both ways, and counts them as they pass, until both sides are done or `ended` says why they have to be.
async fn join(
    opened: Opened,
    caller: impl AsyncRead + AsyncWrite + Unpin,
    mut service: impl AsyncRead + AsyncWrite + Unpin,
    ended: impl Future<Output = Error>,
) {
    let own = Rc::new(Flow::default());
    let mut caller = Counted { io: caller, flows: [own.clone(), opened.flow()] };
    let ended = tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut caller, &mut service) => {
            let reset = copied.err().filter(|e| e.kind() == io::ErrorKind::ConnectionReset);
            let (received, sent) = own.total();
            return opened.closed(received, sent, reset.map(|_| Reason::UpstreamReset));
        }
        ended = ended => ended,
    };
    let (received, sent) = own.total();
    opened.cut(received, sent, &ended);
}

/// Waits until the sidecar has to end the connection: a drain is over, or `judge` says of the policies of its port that
/// they no longer let it be, because there is a new configuration or one of them has expired. The sidecar's own workload
/// is judged where it calls.
pub async fn ended(
    connection: &Connection,
    judge: impl Fn(&RuntimeConfig, &[Arc<dyn RequestPolicy>]) -> Result<(), Error>,
) -> Error {
    let (mut drained, mut configs) = (connection.worker.drain(), connection.worker.configs());
    let revoked = async {
        let Heading::Inbound { port, .. } = connection.heading else { return pending().await };
        let mut snapshot = connection.worker.refresh(&mut configs);
        loop {
            let policies = &snapshot.config.inbound(port).policies;
            if let Err(error) = judge(&snapshot.config, policies) {
                return error;
            }
            tokio::select! {
                () = expired(&connection.worker, policies) => {}
                changed = configs.changed() => match changed {
                    Ok(()) => snapshot = connection.worker.refresh(&mut configs),
                    Err(_) => return pending().await,
                },
            }
        }
    };
    tokio::select! {
        () = drained.passed() => Error::new(Stage::Accept, Reason::Draining, Reason::Draining.summary()),
        error = revoked => error,
    }
}

/// Waits until one of the policies may decide otherwise than now, though it has not changed.
async fn expired(worker: &Worker, policies: &[Arc<dyn RequestPolicy>]) {
    let now = worker.now();
    match policies.iter().filter_map(|policy| policy.next_expiry(now)).min() {
        Some(expiry) => sleep(Duration::from_secs(expiry - now.unix).min(LONG)).await,
        None => pending().await,
    }
}

/// Whether an opaque connection that is open may stay.
pub fn still_admitted(
    connection: &Connection,
    config: &RuntimeConfig,
    policies: &[Arc<dyn RequestPolicy>],
) -> Result<(), Error> {
    admitted(connection, config)?;
    filter::on_open_connection(connection, policies)
}

/// Connects to the service, after mode and policies have let the connection pass.
pub async fn dial(connection: &Rc<Connection>) -> Result<Dialled, Error> {
    let worker = &connection.worker;
    let mut snapshot = worker.snapshot();
    admitted(connection, &snapshot.config)?;
    let scope = route::resolve(connection, &mut snapshot).await?;
    let audited = filter::on_connection(connection, &scope)?;
    let (stream, picked) = match (&connection.heading, &scope) {
        (Heading::Outbound { port, .. }, Scope::Outbound(destination)) => {
            let cluster = route::cluster(&snapshot, destination, None, *port)?;
            dial_any(worker, &cluster, &snapshot.trust).await?
        }
        (Heading::Outbound { original: Some(address), .. } | Heading::Inbound { forward: address, .. }, _) => {
            dial_one(worker, Picked::new(worker.local(*address), worker.now()), &snapshot.trust).await?
        }
        (Heading::Outbound { destination, .. }, _) => return Err(route::no_endpoints(destination)),
    };
    Ok(Dialled { stream: Prefixed::new(stream, bytes::Bytes::new()), picked, audited })
}

/// Connects to an endpoint of `cluster`, and to another one when that takes no connection: nothing was said yet, so
/// nothing is said twice.
async fn dial_any(worker: &Worker, cluster: &Cluster, trust: &Trust) -> Result<(Stream, Picked), Error> {
    let mut picked = balance::pick(worker, cluster, None)?;
    for _ in 0..attempt::FREE_REPEATS {
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

/// Counts what passes at that moment: for the connection itself, whose log line has the sums even when it breaks, and
/// for the metrics of all that are like it, which must not wait for the end of one that is open for days.
struct Counted<T> {
    io: T,
    flows: [Rc<Flow>; 2],
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        this.flows.iter().for_each(|flow| flow.received(read));
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = result {
            this.flows.iter().for_each(|flow| flow.sent(written as u64));
        }
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
