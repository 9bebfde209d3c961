//! The task: one loop over the link to the control plane, the workers' demands, new credentials and a slow tick, which is slower
//! while nothing happens.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::stream;
use selvedge_decide::{assemble, capabilities::capabilities, resources::Resources};
use selvedge_xds::{
    client::{Answer, Change, Check, Client, Judge},
    kinds::{DESTINATION, ENDPOINTS, INBOUND, SELVEDGE, TRUST_BUNDLE, describe},
    plaintext::Seen,
    ports::{self, Port},
    proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tonic::Streaming;

use super::{Demand, Heard, Settings, cache::Cache, callers::Callers};
use crate::{
    channel::{connect, explain},
    credentials::Credentials,
    grpc::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    tls,
};

/// Longest response that is read.
const MAX_RESPONSE: usize = 16 << 20;
/// From nothing to an open stream.
const OPEN: Duration = Duration::from_secs(10);
/// How long what happened may wait to be told and saved together with what follows.
const TICK: Duration = Duration::from_secs(1);
/// How often in the time after which a name is given up it is looked for such names while nothing happens.
const LOOKS: u32 = 20;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

type Opening = Pin<Box<dyn Future<Output = Result<Open, String>> + Send>>;

/// The connection to the control plane.
enum Link {
    /// There are no credentials to connect with.
    Idle,
    /// The last attempt failed; the next is at this time.
    Pausing(Instant),
    Opening(Opening),
    Open(Box<Open>),
}

struct Open {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Open {
    /// Says something of this sidecar, in a request of a kind that is subscribed to already, which asks for nothing.
    fn tell(&self, node: Node) {
        let type_url = INBOUND.to_string();
        let _closed = self.requests.send(DeltaDiscoveryRequest { node: Some(node), type_url, ..Default::default() });
    }
}

/// What is known of the declared ports.
#[derive(Default)]
struct Ports {
    all: Vec<Port>,
    /// Whether the control plane knows it.
    told: bool,
}

/// What came over the link.
enum Event {
    PauseOver,
    Opened(Result<Open, String>),
    Response(DeltaDiscoveryResponse),
    Lost(String),
}

/// State of the task.
pub(super) struct Task {
    settings: Settings,
    credentials: watch::Receiver<Option<Arc<Credentials>>>,
    demands: mpsc::UnboundedReceiver<Demand>,
    resources: watch::Sender<Arc<Resources>>,
    heard: Heard,
    client: Client,
    cache: Cache,
    link: Link,
    pause: Duration,
    started: Instant,
    unsaved: bool,
    callers: Callers,
    ports: Ports,
    /// Whether it was said that the control plane has nothing for this workload.
    missed: bool,
}

impl Task {
    /// A task that holds what the disk has, and the receiver of what it publishes.
    pub(super) fn new(
        settings: Settings,
        credentials: watch::Receiver<Option<Arc<Credentials>>>,
        demands: mpsc::UnboundedReceiver<Demand>,
        check: Check,
    ) -> (Self, watch::Receiver<Arc<Resources>>) {
        let mut client = Client::new(&SELVEDGE, settings.idle, Judge { check, describe });
        let cache = Cache::new(&settings.state_dir);
        restore(&mut client, &cache, &settings.workload);
        client.pin(INBOUND, &settings.workload);
        let nothing = Resources::default();
        client.pin_exactly(ENDPOINTS, &assemble::endpoints_needed(&client, &nothing));
        let first = assemble::resources(&client, &nothing);
        let (resources, receiver) = watch::channel(Arc::new(first));
        let task = Self {
            settings,
            credentials,
            demands,
            resources,
            heard: Heard::default(),
            client,
            cache,
            link: Link::Idle,
            pause: FIRST_PAUSE,
            started: Instant::now(),
            unsaved: false,
            callers: Callers::default(),
            ports: Ports::default(),
            missed: false,
        };
        (task, receiver)
    }

    /// Counts what it hears of the control plane.
    pub(super) fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// Runs until nobody can ask or is told any more.
    pub(super) async fn run(mut self) {
        let rest = (self.settings.idle / LOOKS).max(TICK);
        let (mut ticked, mut happened) = (Instant::now(), true);
        self.credentials.mark_changed();
        loop {
            let due = ticked + if happened { TICK } else { rest };
            happened = true;
            tokio::select! {
                event = self.link.next() => self.event(event),
                demand = self.demands.recv() => match demand {
                    Some(demand) => self.demand(demand),
                    None => return,
                },
                Ok(()) = self.credentials.changed() => self.open(),
                () = sleep_until(due) => {
                    self.tick();
                    (ticked, happened) = (Instant::now(), false);
                }
                () = self.resources.closed() => return,
            }
            self.send();
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::PauseOver => self.open(),
            Event::Opened(Ok(open)) => {
                tracing::info!(control_plane = self.settings.control_plane, "configuration stream open");
                self.link = Link::Open(Box::new(open));
                self.client.connected(node(&self.settings.workload));
                self.callers.forget();
                self.ports.told = false;
                self.heard.note();
                self.note(true);
            }
            Event::Opened(Err(problem)) | Event::Lost(problem) => self.lost(problem),
            Event::Response(response) => self.response(response),
        }
    }

    /// Opens a new stream with the newest credentials. An open one is given up: it stands on older credentials.
    fn open(&mut self) {
        let Some(credentials) = self.credentials.borrow_and_update().clone() else { return };
        self.client.pin(TRUST_BUNDLE, &credentials.svid.identity.trust_domain);
        self.link = Link::Opening(Box::pin(open(self.settings.control_plane.clone(), credentials)));
    }

    fn lost(&mut self, problem: String) {
        let pause = self.pause.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.link = Link::Pausing(Instant::now() + pause);
        tracing::warn!(problem, ?pause, "no configuration stream; what is known stays in force");
        self.note(false);
    }

    fn response(&mut self, response: DeltaDiscoveryResponse) {
        self.pause = FIRST_PAUSE;
        self.heard.note();
        match self.client.response(response) {
            Ok(applied) => {
                if let Some(complaint) = applied.complaint {
                    tracing::error!(complaint, "configuration refused; the last good version stays in force");
                }
                self.publish(applied.change);
                if applied.change == Change::Known {
                    self.miss();
                }
                self.note(true);
            }
            Err(e) => self.lost(e.to_string()),
        }
    }

    /// Says once why the sidecar does not get ready: nothing else here looks wrong then.
    fn miss(&mut self) {
        let missed = self.client.answers(INBOUND).any(|(_, answer)| *answer == Answer::Absent);
        if missed && !self.missed {
            tracing::warn!(
                workload = self.settings.workload,
                "the control plane has no Workload of this name, or one whose serviceAccount is not that of the join \
                 token: nobody may call it; the control plane's /status says which"
            );
        }
        self.missed = missed;
    }

    fn demand(&mut self, demand: Demand) {
        let now = self.started.elapsed();
        match demand {
            Demand::Want(name) => {
                let address = assemble::asked(&name).nth(1);
                let made = assemble::asked(&name).map(|name| self.client.want(DESTINATION, &name, now)).max();
                self.publish(made.unwrap_or_default());
                // While nobody answers, enough may be known of an address already.
                let is_known = self.client.held(DESTINATION).any(|held| Some(&held.name) == address.as_ref());
                if is_known && !matches!(self.link, Link::Open(_)) {
                    self.publish(Change::Known);
                }
            }
            Demand::Pin(name) => self.client.pin(DESTINATION, &name),
            Demand::Used(names) => {
                let names = names.iter().flat_map(|name| assemble::asked(name));
                names.for_each(|name| self.client.touch(DESTINATION, &name, now));
            }
            Demand::Plaintext(seen) => self.callers.saw(seen, now),
            Demand::Ports(all) => self.ports = Ports { all, told: false },
            Demand::LookedUp(looked_up) => self.resources.send_modify(|resources| {
                let resources = Arc::make_mut(resources);
                resources.looked_up = looked_up;
                resources.generation += 1;
            }),
        }
    }

    fn tick(&mut self) {
        // What is given up while the control plane is away could not be had back.
        if matches!(self.link, Link::Open(_)) {
            let change = self.client.expire(self.started.elapsed());
            self.publish(change);
            self.note(true); // a refusal may be among what is given up
        }
        self.tell();
        if self.settings.tenure.is_ours()
            && std::mem::take(&mut self.unsaved)
            && let Err(e) = self.cache.store(&self.client)
        {
            tracing::warn!(error = &e as &dyn std::error::Error, "the last good configuration was not saved");
        }
    }

    /// Tells the control plane who calls in plaintext, and where policies are enforced, if somebody listens.
    fn tell(&mut self) {
        let Link::Open(open) = &self.link else { return };
        let seen = self.callers.tell(self.started.elapsed());
        if !seen.is_empty() {
            open.tell(Node { metadata: Some(seen.to_metadata()), ..Node::default() });
        }
        if !self.ports.told && !self.ports.all.is_empty() {
            open.tell(Node { metadata: Some(ports::to_metadata(&self.ports.all)), ..Node::default() });
            self.ports.told = true;
        }
    }

    /// Publishes what is another one now.
    fn publish(&mut self, change: Change) {
        match change {
            Change::Nothing => return,
            // Whoever makes configurations goes by the generation, which stays.
            Change::Absent if assemble::is_published(&self.client, &self.resources.borrow()) => {
                let absent = Arc::new(assemble::absent(&self.client));
                return self.resources.send_modify(|resources| Arc::make_mut(resources).absent = absent);
            }
            Change::Absent | Change::Known => {}
        }
        let next = assemble::resources(&self.client, &self.resources.borrow());
        // Endpoints go only after the last destination that needs them, and come before the first.
        self.client.pin_exactly(ENDPOINTS, &assemble::endpoints_needed(&self.client, &next));
        self.resources.send_replace(Arc::new(next));
        self.unsaved = true;
    }

    /// Publishes how things stand, if that is news.
    fn note(&self, connected: bool) {
        let refused = self.client.complaints().next().map(str::to_owned);
        self.resources.send_if_modified(|resources| {
            let news = resources.connected != connected || resources.refusal != refused;
            if news {
                let resources = Arc::make_mut(resources);
                resources.connected = connected;
                resources.refusal = refused;
            }
            news
        });
    }

    /// Sends what the client has to say, if somebody listens.
    fn send(&mut self) {
        if let Link::Open(open) = &self.link {
            for request in self.client.requests() {
                // A closed stream shows itself as the end of the responses.
                let _closed = open.requests.send(request);
            }
        }
    }
}

impl Link {
    /// The next event; loses nothing when it is dropped before it is ready.
    async fn next(&mut self) -> Event {
        match self {
            Self::Idle => std::future::pending().await,
            Self::Pausing(until) => {
                sleep_until(*until).await;
                Event::PauseOver
            }
            Self::Opening(opening) => Event::Opened(opening.await),
            Self::Open(open) => match open.responses.message().await {
                Ok(Some(response)) => Event::Response(response),
                Ok(None) => Event::Lost("the control plane ended the stream".to_owned()),
                Err(status) => Event::Lost(status.message().to_owned()),
            },
        }
    }
}

/// What a stream hears first: who asks, what this sidecar understands, and that it will say who calls in plaintext.
fn node(workload: &str) -> Node {
    let mut metadata = capabilities().to_metadata();
    Seen::default().add_to(&mut metadata);
    Node {
        id: workload.to_owned(),
        user_agent_name: "selvedge-proxy".to_owned(),
        user_agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        metadata: Some(metadata),
        ..Node::default()
    }
}

async fn open(address: String, credentials: Arc<Credentials>) -> Result<Open, String> {
    let opening = async {
        let tls = tls::to_control_plane(&credentials).map_err(|e| explain(&e))?;
        let channel = connect(&address, tls).await.map_err(|e| explain(&e))?;
        let mut service = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
        let (requests, mut queue) = mpsc::unbounded_channel();
        let outgoing = stream::poll_fn(move |cx| queue.poll_recv(cx));
        let response =
            service.delta_aggregated_resources(outgoing).await.map_err(|status| status.message().to_owned())?;
        Ok(Open { requests, responses: response.into_inner() })
    };
    timeout(OPEN, opening).await.unwrap_or_else(|_| Err(format!("no stream from {address} in time")))
}

/// Another workload's view, from a state directory that was used for it before, is not this one's.
fn restore(client: &mut Client, cache: &Cache, workload: &str) {
    let stored = cache.load().unwrap_or_else(|e| {
        tracing::warn!(error = &e as &dyn std::error::Error, "the last good configuration cannot be read");
        Vec::new()
    });
    for resource in stored.into_iter().filter(|stored| stored.kind != INBOUND || stored.name == workload) {
        let (kind, name) = (resource.kind, resource.name.clone());
        if let Err(problem) = client.restore(resource, Duration::ZERO) {
            tracing::warn!(?kind, name, problem, "a stored resource cannot be put in force");
        }
    }
}
