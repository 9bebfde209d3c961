//! Discovery: one task per stream around the state machine of [`selvedge_xds::server`].
//!
//! Guarantees: a client proved its identity; it is told its own inbound view only, and of destinations what its namespace sees; it is told nothing before the
//! source said everything (an absent name would look deleted); responses that are not read, names and dialects are
//! bounded for each identity; who a client is and what it knows it says once, when the stream begins; a stream ends with the
//! certificate it was opened with.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{SendStream, server::SendResponse};
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use selvedge_policies::facts::Identity;
use selvedge_xds::{
    kinds::{INBOUND, SELVEDGE},
    plaintext::Seen,
    ports,
    proto::discovery::DeltaDiscoveryRequest,
    resource::{Encoded, TypeUrl},
    server::{self, Reply, RequestError},
};
use tokio::{sync::watch, time::timeout};
use tonic::{Status, body::Body};

use super::{
    Mesh, Peer,
    dialects::Speaker,
    http2::{self, Received},
    messages::{Incoming, end, framed},
    push::Published,
    shares::{Full, Held},
};
use crate::{
    clock,
    snapshot::Snapshot,
    status::StreamId,
    stop::{self, Stop},
    telemetry,
};

/// The service, and its method.
pub(super) const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// How long a client may take to read [`PART`] of a response before it is cut off.
const SLOW: Duration = Duration::from_secs(10);
/// Bytes of a response that are sent at a time.
const PART: usize = 64 << 10;
/// How long one waits for others of its identity, which may be thousands that are all told the same news.
const CROWDED: Duration = Duration::from_secs(60);

/// The discovery service of one connection.
#[derive(Clone, Debug)]
pub(super) struct Ads {
    pub(super) mesh: Arc<Mesh>,
    pub(super) published: watch::Receiver<Arc<Published>>,
    pub(super) stop: Stop,
}

impl Ads {
    /// Answers a request of the service, for as long as the stream lasts.
    pub(super) async fn answer(
        self,
        request: Request<Received>,
        mut respond: SendResponse<Bytes>,
        peer: Peer,
    ) -> Result<(), h2::Error> {
        let session = if request.uri().path() == METHOD {
            self.open(peer)
        } else {
            Err(Status::unimplemented("discovery has no such method"))
        };
        let session = match session {
            Ok(session) => session,
            Err(status) => return http2::answer(std::future::ready(status.into_http::<Body>()), respond).await,
        };
        let mut response = Response::new(());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let responses = respond.send_response(response, false)?;
        session.run(Incoming::new(request.into_body()), responses, self.published, self.stop).await;
        Ok(())
    }

    fn open(&self, peer: Peer) -> Result<Session, Status> {
        let Peer { leaf: Some(leaf), address, place, .. } = peer else {
            return Err(Status::unauthenticated(
                "discovery needs a client certificate; get one from Certificates.Sign",
            ));
        };
        let mesh = Arc::clone(&self.mesh);
        let place = place.ok_or_else(|| full(&mesh, &mesh.shares.no_place(&leaf.identity)))?;
        let held = place.stream().map_err(|e| full(&mesh, &e))?;
        let id = mesh.sidecars.open(leaf.identity.clone(), address, clock::unix());
        mesh.telemetry.sidecars.inc();
        Ok(Session {
            state: server::Stream::new(&SELVEDGE),
            dialect: mesh.dialects.silent(&leaf.identity),
            identity: leaf.identity,
            until: u64::try_from(leaf.not_after).unwrap_or(0),
            mesh,
            is_begun: false,
            id,
            seen: 0,
            unfinished: 0,
            held,
        })
    }
}

/// Responses are not read in time, or nobody is there any more to read them.
struct Unread;

/// A discovery stream of one sidecar, with what it is told and what it has said.
struct Session {
    mesh: Arc<Mesh>,
    state: server::Stream,
    identity: Identity,
    /// What it is told, by what it says that it knows.
    dialect: Speaker,
    /// Whether the first request has come.
    is_begun: bool,
    id: StreamId,
    /// Number of the snapshot the state machine looked at last.
    seen: u64,
    /// Bytes that came of a message which is not whole.
    unfinished: usize,
    /// When its certificate ends, in seconds since the Unix epoch.
    until: u64,
    held: Held,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.mesh.sidecars.close(self.id, clock::unix());
        self.mesh.telemetry.sidecars.dec();
    }
}

impl Session {
    async fn run(
        mut self,
        mut requests: Incoming<Received>,
        mut responses: SendStream<Bytes>,
        mut published: watch::Receiver<Arc<Published>>,
        mut stop: Stop,
    ) {
        let expiry = clock::reached(self.until);
        let stopped = stop::requested(&mut stop);
        tokio::pin!(expiry, stopped);
        let status = loop {
            tokio::select! {
                request = requests.next(|bytes| self.hold(bytes)) => match request {
                    Ok(Some(request)) => if let Err(status) = self.request(request) { break status },
                    Ok(None) => break Status::ok(""),
                    // One that is too large, say; where the transport is gone nobody is told.
                    Err(status) => break status,
                },
                result = published.changed() => {
                    if result.is_err() { break Status::unavailable("the control plane is shutting down") }
                }
                () = &mut expiry => break Status::unauthenticated("the client certificate has expired"),
                () = &mut stopped => break Status::unavailable("the control plane is shutting down"),
            }
            let newest = Arc::clone(&published.borrow_and_update());
            if self.push(&newest, &mut responses).await.is_err() {
                break Status::resource_exhausted("responses to the sidecars of this identity were not read in time");
            }
        };
        // Behind what the client has not read. Where it is gone nobody is told.
        let _told = responses.send_trailers(end(&status));
    }

    fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        let begins = !std::mem::replace(&mut self.is_begun, true);
        if let Some(node) = request.node.as_ref().filter(|_| begins) {
            self.mesh.sidecars.name(self.id, &node.id.chars().take(server::MAX_NAME).collect::<String>());
            let dialect = self.mesh.dialects.of(node, &self.identity);
            self.dialect = dialect.map_err(|e| Status::invalid_argument(e.to_string()))?;
        }
        if let Some(seen) = request.node.as_ref().and_then(Seen::of) {
            self.mesh.sidecars.plaintext(self.id, seen, clock::unix());
        }
        if let Some(ports) = request.node.as_ref().and_then(ports::said) {
            self.mesh.sidecars.ports(self.id, ports);
        }
        if let Some(reply) = self.state.request(request).map_err(|e| refusal(&e))? {
            self.record(reply);
        }
        self.mesh.sidecars.dropped(self.id, &self.state.dropped());
        self.hold(self.unfinished)
    }

    /// Accounts for its names, and for so many bytes of a message that is not whole.
    fn hold(&mut self, unfinished: usize) -> Result<(), Status> {
        self.unfinished = unfinished;
        self.held.weigh(self.state.weight() + unfinished).map_err(|e| full(&self.mesh, &e))
    }

    fn record(&self, reply: Reply) {
        let answer = if reply.complaint.is_some() { "nack" } else { "ack" };
        if let Some(complaint) = &reply.complaint
            && let Some(left_out) = self.mesh.refusals.may_say()
        {
            tracing::warn!(sidecar = %self.identity, %complaint, left_out, "a sidecar refused configuration");
        }
        self.mesh.telemetry.replies.with_label_values(&[&*telemetry::kind_label(reply.kind), answer]).inc();
        self.mesh.sidecars.reply(self.id, reply, clock::unix());
    }

    /// Sends all that may go out now. An error means that the client does not read, or others of its identity do not.
    async fn push(&mut self, newest: &Published, to: &mut SendStream<Bytes>) -> Result<(), Unread> {
        let snapshot = &newest.snapshot;
        if !snapshot.is_complete() {
            return Ok(());
        }
        let is_news = self.seen != snapshot.number();
        if is_news {
            newest.tell(&mut self.state, self.seen);
            self.seen = snapshot.number();
        }
        if !self.state.has_news() {
            return Ok(());
        }
        let mut room = timeout(CROWDED, self.held.room()).await.map_err(|_| Unread)?;
        let dialect = &self.dialect;
        let find = |kind: TypeUrl, name: &str| {
            find(snapshot, &self.identity, kind, name).map(|resource| dialect.tell(resource))
        };
        let responses = self.state.responses(&find, &newest.version);
        self.mesh.sidecars.confirmed(self.id, self.state.confirmed());
        self.mesh.sidecars.dropped(self.id, &self.state.dropped());
        let telemetry = &self.mesh.telemetry;
        for response in &responses {
            telemetry.responses.with_label_values(&[telemetry::kind_label(response.kind)]).inc();
            let bytes: usize = response.resources.iter().map(|(resource, _)| resource.body.len()).sum();
            telemetry.response_bytes.inc_by(bytes as u64);
        }
        let framed: Vec<Bytes> = responses.iter().map(framed).collect();
        room.keep(framed.iter().map(Bytes::len).sum());
        for mut response in framed {
            while !response.is_empty() {
                let part = response.split_to(response.len().min(PART));
                timeout(SLOW, http2::send(to, part)).await.map_err(|_| Unread)?.map_err(|_| Unread)?;
            }
        }
        if is_news && !responses.is_empty() {
            telemetry.push_seconds.observe(newest.at.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

fn find(snapshot: &Snapshot, client: &Identity, kind: TypeUrl, name: &str) -> Option<Arc<Encoded>> {
    match kind {
        INBOUND if snapshot.identity_of_workload(name)? != client.to_string() => None,
        _ => snapshot.seen_from(&client.namespace, kind, name),
    }
}

fn full(mesh: &Mesh, limit: &Full) -> Status {
    if let Some(left_out) = mesh.refusals.may_say() {
        tracing::warn!(left_out, "a sidecar is told no configuration: {limit}");
    }
    Status::resource_exhausted(limit.to_string())
}

fn refusal(error: &RequestError) -> Status {
    match error {
        RequestError::UnknownType(_) => Status::unimplemented(error.to_string()),
        RequestError::LongName(_) => Status::invalid_argument(error.to_string()),
        RequestError::TooManyNames => Status::resource_exhausted(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use h2::RecvStream;
    use selvedge_xds::{
        capability::Capabilities,
        kinds::DESTINATION,
        proto::{discovery::Node, mesh::Destination},
    };
    use tokio::time::Instant;

    use super::*;
    use crate::{audit::AuditLog, identity::Authority, skew, snapshot::Draft, telemetry::Telemetry};

    /// A session of `shop/web`, with its way to a client that makes room for so many bytes, and what that client reads.
    async fn session(mesh: &Arc<Mesh>, room: u32) -> (Session, SendStream<Bytes>, RecvStream) {
        let identity = session_identity();
        let held = Arc::new(mesh.shares.enter(&identity).await.unwrap()).stream().unwrap();
        let id = mesh.sidecars.open(identity.clone(), ([127, 0, 0, 1], 1).into(), 0);
        mesh.telemetry.sidecars.inc();
        let (mesh, state) = (Arc::clone(mesh), server::Stream::new(&SELVEDGE));
        let dialect = mesh.dialects.silent(&identity);
        let session =
            Session { dialect, is_begun: false, mesh, state, identity, id, seen: 0, unfinished: 0, until: 0, held };
        let (to, read) = call(room).await;
        (session, to, read)
    }

    /// Both ends of the responses of a call.
    async fn call(room: u32) -> (SendStream<Bytes>, RecvStream) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let mut client = h2::client::Builder::new();
        client.initial_window_size(room);
        let client = client.handshake::<_, Bytes>(theirs);
        let (client, server) = tokio::join!(client, h2::server::handshake(ours));
        let ((mut calls, client), mut server) = (client.unwrap(), server.unwrap());
        tokio::spawn(client);
        let (response, _) = calls.send_request(Request::new(()), true).unwrap();
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while server.accept().await.is_some() {} });
        let to = respond.send_response(Response::new(()), false).unwrap();
        (to, response.await.unwrap().into_body())
    }

    fn mesh() -> (Arc<Mesh>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let lifetime = Duration::from_secs(3600);
        let authority = Authority::open(directory.path(), "mesh.local", lifetime, clock::unix()).unwrap();
        let telemetry = Telemetry::new().unwrap();
        let audit = AuditLog::open(Some("/dev/null".as_ref()), telemetry.audit_events.clone()).unwrap();
        (Arc::new(Mesh::new(Arc::new(authority), telemetry, audit)), directory)
    }

    fn after(before: &Snapshot, content: u64) -> Arc<Snapshot> {
        let mut draft = Draft::after(before);
        let message = Destination { name: content.to_string(), ..Destination::default() };
        draft.put(Encoded::new(DESTINATION, "shop/api", Vec::new(), &message), false);
        draft.set_complete(true);
        Arc::new(draft.finish().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_cut_off_though_it_acknowledges() {
        let (mesh, _directory) = mesh();
        let (mut session, mut to, _unread) = session(&mesh, 1000).await;
        let request = |names: &[&str], nonce: u64| DeltaDiscoveryRequest {
            type_url: DESTINATION.to_string(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            response_nonce: nonce.to_string(),
            ..DeltaDiscoveryRequest::default()
        };
        session.request(request(&["shop/api"], 0)).unwrap();
        let (mut last, began) = (Arc::<Snapshot>::default(), Instant::now());
        for n in 1.. {
            let next = after(&last, n);
            if session.push(&Published::new(Arc::clone(&next), &last), &mut to).await.is_err() {
                assert!(n > 2, "response {n} has room");
                break;
            }
            assert!(n < 100, "nobody reads");
            session.request(request(&[], n)).unwrap();
            last = next;
        }
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_a_minute_for_others_of_its_identity_has_to_connect_again() {
        let (mesh, _directory) = mesh();
        let (mut session, mut to, mut responses) = session(&mesh, 1000).await;
        let request = DeltaDiscoveryRequest {
            type_url: DESTINATION.to_string(),
            resource_names_subscribe: vec!["shop/api".into()],
            ..DeltaDiscoveryRequest::default()
        };
        session.request(request).unwrap();
        let others = Arc::new(mesh.shares.enter(&session.identity).await.unwrap()).stream().unwrap();
        let mut under_way = Vec::new();
        while let Ok(room) = timeout(Duration::from_secs(1), others.room()).await {
            under_way.push(room);
        }
        let first = after(&Snapshot::default(), 1);
        let published = Published::new(Arc::clone(&first), &Snapshot::default());
        let began = Instant::now();
        assert!(session.push(&published, &mut to).await.is_err(), "others read nothing");
        assert_eq!(began.elapsed().as_secs(), 60);
        under_way.pop();
        assert!(session.push(&published, &mut to).await.is_ok(), "there is room again");
        responses.data().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_a_client_knows_it_says_in_its_first_request_alone() {
        let (mesh, _directory) = mesh();
        let (mut session, ..) = session(&mesh, 1000).await;
        let request = |knows: Capabilities| {
            let node = Some(Node { metadata: Some(knows.to_metadata()), ..Node::default() });
            DeltaDiscoveryRequest { type_url: DESTINATION.to_string(), node, ..DeltaDiscoveryRequest::default() }
        };
        session.request(request(skew::everything())).unwrap();
        let told = mesh.dialects.of(&request(skew::everything()).node.unwrap(), &session_identity()).unwrap();
        assert!(std::ptr::eq(&*session.dialect, &*told));
        session.request(request(skew::silent())).unwrap();
        assert!(std::ptr::eq(&*session.dialect, &*told), "it is told as before");
    }

    fn session_identity() -> Identity {
        "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap()
    }
}
