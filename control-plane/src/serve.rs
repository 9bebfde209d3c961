//! The port sidecars connect to: discovery ([`ads`]) and certificates ([`certificates`]) as gRPC over one TLS listener.
//!
//! Guarantees: a handshake never holds up the accept loop and ends in bounded time; [`doors`] bounds how many there are;
//! a connection without a client certificate reaches nothing but `Certificates.Sign` and is closed after a minute; what
//! each sends is bounded by its [`ration`], what all of one identity hold by its [`shares`]; on shutdown the streams end
//! cleanly, within bounded time.

mod ads;
mod certificates;
mod dialects;
mod doors;
mod outgoing;
mod push;
mod quiet;
mod ration;
mod shares;
mod table;
mod tls;

use std::{net::SocketAddr, path::Path, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use selvedge_identity::svid::Leaf;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::Service;

pub(crate) use self::doors::MAX_CONNECTIONS;
use self::{
    ads::Ads,
    certificates::Certificates,
    dialects::Dialects,
    doors::{Doors, Entry, Limits, Unproven},
    push::Published,
    quiet::Quiet,
    ration::{Ration, Rationed},
    shares::{Place, Shares},
};
use crate::{
    Error,
    crowd::SentAway,
    grpc::{
        discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
        mesh::certificates_server::CertificatesServer,
    },
    identity::{Admission, Authority},
    snapshot::Snapshot,
    status::Sidecars,
    stop::{self, Stop},
    telemetry::Telemetry,
};

const HANDSHAKE: Duration = Duration::from_secs(5);
/// A workload that joins needs one request.
const STRANGER: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long streams may take to end at shutdown.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause after a failed accept, which is mostly a lack of file descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Largest request; a sidecar's has a thousand names.
const MAX_REQUEST: usize = 2 << 20;
/// Streams of a connection at once, of all services.
const STREAMS: u32 = 4;
/// What of a request may be under way before it is read.
const WINDOW: u32 = 256 << 10;

/// What every connection works with.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// Signs certificates of sidecars, and has the one of the control plane.
    pub(crate) authority: Arc<Authority>,
    /// Who is connected, and what each has in force or refused.
    pub(crate) sidecars: Arc<Sidecars>,
    /// Counts what is served and refused.
    pub(crate) telemetry: Telemetry,
    /// What each identity may take of the connections.
    pub(crate) shares: Shares,
    /// What lets those in who have no certificate.
    pub(crate) admission: Admission,
    pub(super) dialects: Dialects,
    /// Refusals of those that have proven nothing.
    pub(crate) strangers: Quiet,
    /// Lines about what sidecars refused (NACK).
    pub(crate) refusals: Quiet,
}

impl Mesh {
    /// This mesh with what an earlier control plane kept in `state_dir`.
    pub(crate) fn remembering(self, state_dir: &Path) -> Self {
        Self { dialects: Dialects::remembering(state_dir), ..self }
    }

    /// This mesh, where these are let in that have no certificate.
    pub(crate) fn admitting(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// A mesh that nobody has connected to yet, and that remembers nothing of an earlier control plane.
    pub(crate) fn new(authority: Arc<Authority>, telemetry: Telemetry) -> Self {
        Self {
            authority,
            sidecars: Arc::default(),
            telemetry,
            shares: Shares::default(),
            admission: Admission::default(),
            dialects: Dialects::default(),
            strangers: Quiet::default(),
            refusals: Quiet::default(),
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// What its certificate proves; `None` when it showed none.
    pub(crate) leaf: Option<Leaf>,
    /// Where it connects from: IP address and port, which may be those of a proxy between.
    pub(crate) address: SocketAddr,
    /// Its place among the connections of its identity; without one it can get a certificate and nothing else.
    pub(crate) place: Option<Arc<Place>>,
}

/// Serves `listener` until `stop` turns true or its sender is gone.
pub(crate) async fn serve(
    listener: TcpListener,
    mesh: Arc<Mesh>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    mut stop: Stop,
) -> Result<(), Error> {
    let (config, renewal) = tls::config(&mesh.authority, &mesh.telemetry)?;
    let telling = Arc::clone(&mesh);
    let (debounced, published) = push::debounced(snapshots, move |snapshot| telling.dialects.sweep(snapshot));
    let mut chores = JoinSet::new();
    chores.spawn(renewal);
    let keeping = Arc::clone(&mesh);
    chores.spawn(async move { keeping.dialects.keep().await });
    chores.spawn(debounced);
    let mut connections = JoinSet::new();
    let mut doors = Doors::new(Limits::default());
    loop {
        let (socket, address) = tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!(error = &e as &dyn std::error::Error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            () = stop::requested(&mut stop) => break,
        };
        let Some(entered) = doors.enter(address.ip()) else {
            mesh.telemetry.handshakes_refused.inc();
            tracing::debug!(%address, "a connection was refused: its address has as many as it may");
            continue;
        };
        let services = Services::new(&mesh, &published, &stop);
        let acceptor = TlsAcceptor::from(Arc::clone(&config.borrow()));
        connections.spawn(connection(socket, address, entered, acceptor, services, stop.clone()));
    }
    drop(listener);
    let farewell = async { while connections.join_next().await.is_some() {} };
    if timeout(FAREWELL, farewell).await.is_err() {
        tracing::info!("some connections did not end in time and were closed");
    }
    drop(chores);
    // A disk that hangs does not hold up the end.
    let _saved_or_late = timeout(FAREWELL, mesh.dialects.keep_rest()).await;
    Ok(())
}

async fn connection(
    socket: TcpStream,
    address: SocketAddr,
    (entry, mut sent_away): (Entry, SentAway),
    acceptor: TlsAcceptor,
    services: Services,
    mut stop: Stop,
) {
    let established = tokio::select! {
        established = establish(socket, address, entry, &acceptor, &services.mesh) => established,
        _ = &mut sent_away => Err("others needed its place".to_owned()),
    };
    let (stream, peer, entry) = match established {
        Ok(established) => established,
        Err(problem) => {
            services.mesh.telemetry.handshakes_refused.inc();
            return tracing::debug!(%address, problem, "a connection was refused");
        }
    };
    // Inside until the end.
    let (unproven, _proven) = match &peer.place {
        Some(_) => (None, Some(entry.proven())),
        None => (Some(entry), None),
    };
    let deadline = unproven.as_ref().map(|_| STRANGER);
    let ration = if unproven.is_some() { Ration::STRANGER } else { Ration::SIDECAR };
    let stream = Rationed::new(stream, ration);
    let service = service_fn(move |request| services.clone().answer(request, peer.clone()));
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(e) = result {
                tracing::debug!(%address, error = &e as &dyn std::error::Error, "a connection ended");
            }
            return;
        }
        () = stop::requested(&mut stop) => {}
        () = tokio::time::sleep(deadline.unwrap_or(Duration::MAX)), if deadline.is_some() => {}
        _ = &mut sent_away, if unproven.is_some() => return,
    }
    connection.as_mut().graceful_shutdown();
    let _ended_or_cut = timeout(FAREWELL, connection).await;
}

/// Waits for the turn of a connection, and learns who it is.
async fn establish(
    socket: TcpStream,
    address: SocketAddr,
    entry: Entry,
    acceptor: &TlsAcceptor,
    mesh: &Mesh,
) -> Result<(TlsStream<TcpStream>, Peer, Unproven), String> {
    let unproven = entry.turn().await.ok_or("too many others of its address were in their handshakes")?;
    let (stream, peer) = handshake(socket, address, acceptor, mesh).await?;
    Ok((stream, peer, unproven))
}

async fn handshake(
    socket: TcpStream,
    address: SocketAddr,
    acceptor: &TlsAcceptor,
    mesh: &Mesh,
) -> Result<(TlsStream<TcpStream>, Peer), String> {
    socket.set_nodelay(true).map_err(|e| e.to_string())?;
    let stream = timeout(HANDSHAKE, acceptor.accept(socket)).await.map_err(|_| "no handshake in time".to_owned())?;
    let stream = stream.map_err(|e| e.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let leaf = certificate.map(|der| Leaf::of_trust_domain(der, mesh.authority.trust_domain())).transpose();
    let leaf = leaf.map_err(|e| e.to_string())?;
    let place = match &leaf {
        Some(leaf) => mesh.shares.enter(&leaf.identity).await.ok().map(Arc::new),
        None => None,
    };
    Ok((stream, Peer { leaf, address, place }))
}

/// The gRPC services of one connection.
#[derive(Clone)]
struct Services {
    mesh: Arc<Mesh>,
    ads: AggregatedDiscoveryServiceServer<Ads>,
    certificates: CertificatesServer<Certificates>,
}

impl Services {
    fn new(mesh: &Arc<Mesh>, published: &watch::Receiver<Arc<Published>>, stop: &Stop) -> Self {
        let ads = Ads { mesh: Arc::clone(mesh), published: published.clone(), stop: stop.clone() };
        Self {
            mesh: Arc::clone(mesh),
            ads: AggregatedDiscoveryServiceServer::new(ads).max_decoding_message_size(MAX_REQUEST),
            certificates: CertificatesServer::new(Certificates { mesh: Arc::clone(mesh) })
                .max_decoding_message_size(64 * 1024),
        }
    }

    async fn answer(
        mut self,
        mut request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Response<tonic::body::Body>, std::convert::Infallible> {
        request.extensions_mut().insert(peer);
        match request.uri().path().trim_start_matches('/').split('/').next() {
            Some("envoy.service.discovery.v3.AggregatedDiscoveryService") => self.ads.call(request).await,
            Some("selvedge.v1alpha1.Certificates") => self.certificates.call(request).await,
            _ => Ok(tonic::Status::unimplemented("no such service").into_http()),
        }
    }
}
