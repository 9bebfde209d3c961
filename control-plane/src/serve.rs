//! The port sidecars connect to: discovery ([`ads`]) and certificates ([`certificates`]) as gRPC over one TLS listener.
//!
//! Guarantees: a handshake never holds up the accept loop and ends in bounded time; [`doors`] bounds how many there are;
//! a connection without a client certificate reaches nothing but `Certificates.Sign` and is closed after a minute; what
//! each sends is bounded by its [`ration`], what all of one identity hold by its [`shares`]; all processors serve
//! ([`threads`]); on shutdown the streams end cleanly, within bounded time.

mod ads;
mod bearers;
mod certificates;
mod dialects;
mod doors;
mod http2;
mod messages;
mod push;
mod quiet;
mod ration;
mod shares;
mod table;
mod threads;
mod tls;

use std::{
    future::{pending, ready},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use h2::server::SendResponse;
use http::Request;
use selvedge_identity::svid::Leaf;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::Status;
use tower::Service;

pub(crate) use self::doors::MAX_CONNECTIONS;
use self::{
    ads::Ads,
    bearers::Bearers,
    certificates::Certificates,
    dialects::Dialects,
    doors::{Doors, Entry, Limits, Stranger, Unproven},
    http2::{Connection, Received},
    push::Published,
    quiet::Quiet,
    ration::{Ration, Rationed},
    shares::{Place, Shares},
    threads::{Thread, Threads},
};
use crate::{
    Error,
    audit::AuditLog,
    crowd::SentAway,
    grpc::mesh::certificates_server::CertificatesServer,
    identity::{Admission, Authority},
    snapshot::Snapshot,
    status::Sidecars,
    stop::{self, Stop},
    telemetry::Telemetry,
};

/// The service of [`certificates`].
const CERTIFICATES: &str = "selvedge.v1alpha1.Certificates";
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A workload that joins needs one request.
const STRANGER: Duration = Duration::from_secs(60);
/// How long streams may take to end at shutdown.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause after a failed accept, which is mostly a lack of file descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection works with.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// Signs certificates of sidecars, and has the one of the control plane.
    pub(crate) authority: Arc<Authority>,
    /// Who is connected, and what each has in force or refused.
    pub(crate) sidecars: Arc<Sidecars>,
    /// Counts what is served and refused.
    pub(crate) telemetry: Telemetry,
    /// Takes down who got a certificate, and who did not.
    pub(crate) audit: AuditLog,
    /// What each identity may take of the connections.
    pub(crate) shares: Shares,
    /// What lets those in who have no certificate.
    pub(crate) admission: Admission,
    /// Who bears the identities of certificates that are to be renewed.
    pub(crate) bearers: Bearers,
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
    pub(crate) fn new(authority: Arc<Authority>, telemetry: Telemetry, audit: AuditLog) -> Self {
        Self {
            authority,
            sidecars: Arc::default(),
            telemetry,
            audit,
            shares: Shares::default(),
            admission: Admission::default(),
            bearers: Bearers::default(),
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
    /// Its places among those that have proven nothing, as long as it is one of them.
    pub(crate) stranger: Option<Arc<Stranger>>,
}

/// Serves `listener` with so many threads until `stop` turns true or its sender is gone.
pub(crate) async fn serve(
    (listener, threads): (TcpListener, usize),
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
    let mut threads = Threads::start(threads, &published).map_err(Error::Threads)?;
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
        let Some((Thread { handle, published, .. }, Ok(socket))) = threads.next().zip(Some(socket.into_std())) else {
            continue;
        };
        let services = Services::new(&mesh, published, &stop);
        let acceptor = TlsAcceptor::from(Arc::clone(&config.borrow()));
        connections.spawn_on(connection(socket, address, entered, acceptor, services, stop.clone()), handle);
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
    socket: std::net::TcpStream,
    address: SocketAddr,
    (entry, mut sent_away): (Entry, SentAway),
    acceptor: TlsAcceptor,
    services: Services,
    mut stop: Stop,
) {
    let established = tokio::select! {
        // Boxed: what a handshake needs is not kept for as long as the connection lasts.
        established = Box::pin(establish(socket, address, entry, &acceptor, &services.mesh)) => established,
        _ = &mut sent_away => Err("others needed its place".to_owned()),
    };
    let (stream, mut peer, unproven) = match established {
        Ok(established) => established,
        Err(problem) => {
            services.mesh.telemetry.handshakes_refused.inc();
            return tracing::debug!(%address, problem, "a connection was refused");
        }
    };
    // Inside until the end.
    let (mut unproven, _proven) = match &peer.place {
        Some(_) => (None, Some(unproven.proven())),
        None => (Some(unproven), None),
    };
    peer.stranger = unproven.as_ref().map(Unproven::stranger);
    let deadline = unproven.as_ref().map(|_| STRANGER);
    let ration = if unproven.is_some() { Ration::STRANGER } else { Ration::SIDECAR };
    let needed = async {
        match &mut unproven {
            Some(unproven) => tokio::select! { _ = &mut sent_away => (), _ = &mut unproven.sent_away => () },
            None => pending().await,
        }
    };
    let opened = timeout(HANDSHAKE, Connection::open(Rationed::new(stream, ration))).await;
    let Ok(Ok(mut connection)) = opened else {
        return tracing::debug!(%address, "a connection began with no HTTP/2");
    };
    let answer = |request, respond| services.clone().answer(request, respond, peer.clone());
    tokio::select! {
        result = connection.run(answer) => {
            if let Err(e) = result {
                tracing::debug!(%address, error = &e as &dyn std::error::Error, "a connection ended");
            }
            return;
        }
        () = stop::requested(&mut stop) => {}
        () = tokio::time::sleep(deadline.unwrap_or(Duration::MAX)), if deadline.is_some() => {}
        () = needed => return,
    }
    connection.graceful_shutdown();
    let _ended_or_cut = timeout(FAREWELL, connection.run(answer)).await;
}

/// Waits for the turn of a connection, and learns who it is.
async fn establish(
    socket: std::net::TcpStream,
    address: SocketAddr,
    entry: Entry,
    acceptor: &TlsAcceptor,
    mesh: &Mesh,
) -> Result<(TlsStream<TcpStream>, Peer, Unproven), String> {
    let socket = TcpStream::from_std(socket).map_err(|e| e.to_string())?;
    // Who says nothing takes no turn.
    let spoken = timeout(HANDSHAKE, socket.readable()).await.map_err(|_| "it said nothing")?;
    spoken.map_err(|e| e.to_string())?;
    let through = entry.through(handshake(socket, address, acceptor, mesh)).await;
    let (established, unproven) = through.ok_or("too many others of its address were in their handshakes")?;
    established.map(|(stream, peer)| (stream, peer, unproven))
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
    Ok((stream, Peer { leaf, address, place, stranger: None }))
}

/// The gRPC services of one connection.
#[derive(Clone)]
struct Services {
    mesh: Arc<Mesh>,
    ads: Ads,
    certificates: CertificatesServer<Certificates>,
}

impl Services {
    fn new(mesh: &Arc<Mesh>, published: &watch::Receiver<Arc<Published>>, stop: &Stop) -> Self {
        let ads = Ads { mesh: Arc::clone(mesh), published: published.clone(), stop: stop.clone() };
        Self {
            mesh: Arc::clone(mesh),
            ads,
            certificates: CertificatesServer::new(Certificates { mesh: Arc::clone(mesh) })
                .max_decoding_message_size(64 * 1024),
        }
    }

    async fn answer(mut self, mut request: Request<Received>, respond: SendResponse<Bytes>, peer: Peer) {
        let mut path = request.uri().path().split('/').skip(1);
        // Where telling fails nobody is there to be told.
        let _told = match path.next() {
            Some(ads::SERVICE) => self.ads.answer(request, respond, peer).await,
            Some(CERTIFICATES) => {
                request.extensions_mut().insert(peer);
                let response = async {
                    let Ok(response) = self.certificates.call(request).await;
                    response
                };
                http2::answer(response, respond).await
            }
            _ => {
                let refusal = Status::unimplemented("no such service").into_http::<tonic::body::Body>();
                http2::answer(ready(refusal), respond).await
            }
        };
    }
}
