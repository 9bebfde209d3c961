//! Discovery: one task per stream around the state machine of [`selvedge_xds::server`].
//!
//! Guarantees: a client proved its identity; it is told its own inbound view only; it is told nothing before the
//! source said everything (an absent name would look deleted); responses that are not read, names and dialects are
//! bounded for each identity; who a client is and what it knows it says once, when the stream begins; a stream ends with the
//! certificate it was opened with.

use std::{sync::Arc, time::Duration};

use selvedge_policies::facts::Identity;
use selvedge_xds::{
    kinds::{INBOUND, SELVEDGE},
    plaintext::Seen,
    ports,
    proto::discovery::DeltaDiscoveryRequest,
    resource::{Encoded, TypeUrl},
    server::{self, Reply, RequestError},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Mesh, Peer,
    dialects::Speaker,
    outgoing::{Message, Outgoing},
    push::Published,
    shares::{Full, Held},
};
use crate::{
    clock,
    grpc::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService,
    snapshot::Snapshot,
    status::StreamId,
    stop::{self, Stop},
};

/// Responses that may wait for a client to read them; the protocol itself allows one per kind.
const BACKLOG: usize = SELVEDGE.order().len();
/// How long responses wait for their client to read before it is cut off.
const SLOW: Duration = Duration::from_secs(10);
/// How long one waits for others of its identity, which may be thousands that are all told the same news.
const CROWDED: Duration = Duration::from_secs(60);

/// The discovery service of one connection.
#[derive(Clone, Debug)]
pub(super) struct Ads {
    pub(super) mesh: Arc<Mesh>,
    pub(super) published: watch::Receiver<Arc<Published>>,
    pub(super) stop: Stop,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type DeltaAggregatedResourcesStream = Outgoing;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let Some(Peer { leaf: Some(leaf), address, place }) = peer else {
            return Err(Status::unauthenticated(
                "discovery needs a client certificate; get one from Certificates.Sign",
            ));
        };
        let place = place.ok_or_else(|| full(&self.mesh, &self.mesh.shares.no_place(&leaf.identity)))?;
        let held = place.stream().map_err(|e| full(&self.mesh, &e))?;
        let until = u64::try_from(leaf.not_after).unwrap_or(0);
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let id = self.mesh.sidecars.open(leaf.identity.clone(), address, clock::unix());
        self.mesh.telemetry.sidecars.inc();
        let session = Session {
            mesh: Arc::clone(&self.mesh),
            state: server::Stream::new(&SELVEDGE),
            identity: leaf.identity.clone(),
            dialect: self.mesh.dialects.silent(&leaf.identity),
            is_begun: false,
            id,
            seen: 0,
            sender,
            held,
        };
        tokio::spawn(session.run(request.into_inner(), self.published.clone(), self.stop.clone(), until));
        Ok(Response::new(Outgoing::new(receiver)))
    }
}

/// Responses are not read in time.
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
    sender: mpsc::Sender<Message>,
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
        mut requests: Streaming<DeltaDiscoveryRequest>,
        mut published: watch::Receiver<Arc<Published>>,
        mut stop: Stop,
        until: u64,
    ) {
        let expiry = clock::reached(until);
        tokio::pin!(expiry);
        let status = loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => if let Err(status) = self.request(request) { break status },
                    Ok(None) => return,
                    // One that is too large, say; where the transport is gone nobody is told.
                    Err(status) => break status,
                },
                result = published.changed() => {
                    if result.is_err() { break Status::unavailable("the control plane is shutting down") }
                }
                () = &mut expiry => break Status::unauthenticated("the client certificate has expired"),
                () = stop::requested(&mut stop) => break Status::unavailable("the control plane is shutting down"),
            }
            let newest = Arc::clone(&published.borrow_and_update());
            if self.push(&newest).await.is_err() {
                break Status::resource_exhausted("responses to the sidecars of this identity were not read in time");
            }
        };
        // The client may have stopped reading; then the closed stream has to be enough.
        let _unread = self.sender.try_send((Err(status), None));
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
        self.held.weigh(self.state.weight()).map_err(|e| full(&self.mesh, &e))
    }

    fn record(&self, reply: Reply) {
        let answer = if reply.complaint.is_some() { "nack" } else { "ack" };
        if let Some(complaint) = &reply.complaint
            && let Some(left_out) = self.mesh.refusals.may_say()
        {
            tracing::warn!(sidecar = %self.identity, %complaint, left_out, "a sidecar refused configuration");
        }
        self.mesh.telemetry.replies.with_label_values(&[&*label(reply.kind), answer]).inc();
        self.mesh.sidecars.reply(self.id, reply, clock::unix());
    }

    /// Sends all that may go out now. An error means that the client does not read, or others of its identity do not.
    async fn push(&mut self, newest: &Published) -> Result<(), Unread> {
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
        let responses = self.state.responses(&find, &snapshot.number().to_string());
        self.mesh.sidecars.confirmed(self.id, self.state.confirmed());
        self.mesh.sidecars.dropped(self.id, &self.state.dropped());
        let telemetry = &self.mesh.telemetry;
        let mut sent = false;
        for response in responses {
            if let Some(kind) = SELVEDGE.find(&response.type_url) {
                telemetry.responses.with_label_values(&[label(kind)]).inc();
            }
            let bytes: usize =
                response.resources.iter().filter_map(|r| r.resource.as_ref()).map(|r| r.value.len()).sum();
            telemetry.response_bytes.inc_by(bytes as u64);
            sent = true;
            let names: usize = response.removed_resources.iter().map(String::len).sum();
            let message = (Ok(response), Some(room.take(bytes + names)));
            self.sender.send_timeout(message, SLOW).await.map_err(|_| Unread)?;
        }
        if is_news && sent {
            telemetry.push_seconds.observe(newest.at.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

fn find(snapshot: &Snapshot, client: &Identity, kind: TypeUrl, name: &str) -> Option<Arc<Encoded>> {
    match kind {
        INBOUND if snapshot.identity_of_workload(name)? != client.to_string() => None,
        _ => snapshot.get(kind, name),
    }
}

/// The kind as metrics have it, such as `trust_bundle`.
fn label(kind: TypeUrl) -> String {
    let mut label = String::new();
    for c in kind.name().chars() {
        if c.is_ascii_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(c.to_ascii_lowercase());
    }
    label
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
    use selvedge_xds::{
        capability::Capabilities,
        kinds::DESTINATION,
        proto::{discovery::Node, mesh::Destination},
    };
    use tokio::time::Instant;

    use super::*;
    use crate::{identity::Authority, skew, snapshot::Draft, telemetry::Telemetry};

    /// A session of `shop/web`, with the end that the transport would read from.
    async fn session(mesh: &Arc<Mesh>) -> (Session, mpsc::Receiver<Message>) {
        let identity = session_identity();
        let held = Arc::new(mesh.shares.enter(&identity).await.unwrap()).stream().unwrap();
        let id = mesh.sidecars.open(identity.clone(), ([127, 0, 0, 1], 1).into(), 0);
        mesh.telemetry.sidecars.inc();
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let (mesh, state) = (Arc::clone(mesh), server::Stream::new(&SELVEDGE));
        let dialect = mesh.dialects.silent(&identity);
        (Session { dialect, is_begun: false, mesh, state, identity, id, seen: 0, sender, held }, receiver)
    }

    fn mesh() -> (Arc<Mesh>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let lifetime = Duration::from_secs(3600);
        let authority = Authority::open(directory.path(), "mesh.local", lifetime, clock::unix()).unwrap();
        (Arc::new(Mesh::new(Arc::new(authority), Telemetry::new().unwrap())), directory)
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
        let (mut session, _unread) = session(&mesh).await;
        let request = |names: &[&str], nonce: u64| DeltaDiscoveryRequest {
            type_url: DESTINATION.to_string(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            response_nonce: nonce.to_string(),
            ..DeltaDiscoveryRequest::default()
        };
        session.request(request(&["shop/api"], 0)).unwrap();
        let mut last = Arc::<Snapshot>::default();
        for n in 1..=BACKLOG as u64 {
            let next = after(&last, n);
            assert!(session.push(&Published::new(Arc::clone(&next), &last)).await.is_ok(), "response {n} has room");
            session.request(request(&[], n)).unwrap();
            last = next;
        }
        let (next, began) = (after(&last, 0), Instant::now());
        assert!(session.push(&Published::new(next, &last)).await.is_err(), "nobody reads");
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_a_minute_for_others_of_its_identity_has_to_connect_again() {
        let (mesh, _directory) = mesh();
        let (mut session, mut responses) = session(&mesh).await;
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
        assert!(session.push(&published).await.is_err(), "others read nothing");
        assert_eq!(began.elapsed().as_secs(), 60);
        under_way.pop();
        assert!(session.push(&published).await.is_ok() && responses.try_recv().is_ok(), "there is room again");
    }

    #[tokio::test]
    async fn what_a_client_knows_it_says_in_its_first_request_alone() {
        let (mesh, _directory) = mesh();
        let (mut session, _responses) = session(&mesh).await;
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
