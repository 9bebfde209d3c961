//! The control plane's port and the sidecar's client of it, over real sockets with a real authority: joining,
//! renewing, discovery, refusals, and life without a control plane.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use selvedge_control_plane::{
    identity::{Authority, Grant},
    run::{self, Configuration},
    settings::Settings,
    snapshot::{self, Draft, Snapshot},
};
use selvedge_decide::resources::Resources;
use selvedge_proxy::{
    channel,
    credentials::Credentials,
    grpc::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    identity::{self, IdentityError},
    xds::{self, Demand},
};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND, TRUST_BUNDLE, origin as origin_of},
    proto::{
        discovery::DeltaDiscoveryRequest,
        mesh::{Destination, Endpoint, Endpoints, Inbound, Origin, Port, TrustBundle},
    },
    resource::Encoded,
};
use tempfile::TempDir;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(10);
const WORKLOAD: &str = "shop/web-1";

/// A control plane whose configuration the test writes.
struct ControlPlane {
    state: TempDir,
    snapshots: watch::Sender<Arc<Snapshot>>,
    address: SocketAddr,
    admin: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), selvedge_control_plane::Error>>,
}

impl ControlPlane {
    async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap(), ([127, 0, 0, 1], 0).into(), Duration::from_secs(3600)).await
    }

    async fn start_in(state: TempDir, listen: SocketAddr, certificate_lifetime: Duration) -> Self {
        let ports = state.path().join("ports.json");
        let _absent = std::fs::remove_file(&ports);
        let settings = Settings {
            listen,
            admin: ([127, 0, 0, 1], 0).into(),
            ports_file: Some(ports.clone()),
            certificate_lifetime,
            ..Settings::new(state.path(), state.path())
        };
        let (snapshots, receiver) = snapshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let (_reports, reports) = watch::channel(Arc::default());
            let (confirms, _) = tokio::sync::mpsc::channel(1);
            let configuration = Configuration { snapshots: receiver, reports, confirms };
            let authority = run::open(&settings)?;
            run::serve(&settings, authority, configuration, async { drop(stopped.await) }).await
        });
        let (address, admin) = addresses(&ports).await;
        Self { address, admin, state, snapshots, stop, task }
    }

    async fn stop(self) -> TempDir {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
        self.state
    }

    fn token(&self, grant: Grant) -> String {
        authority(self.state.path()).create_token(&grant).unwrap()
    }

    fn address(&self) -> String {
        self.address.to_string()
    }

    async fn join(&self) -> Credentials {
        join(&self.address(), &self.token(grant("web"))).await.unwrap()
    }

    fn publish(&self, change: impl FnOnce(&mut Draft)) {
        let mut draft = Draft::after(&self.snapshots.borrow());
        let roots = authority(self.state.path()).roots();
        let roots_der = roots.iter().map(|root| root.to_vec().into()).collect();
        let bundle = TrustBundle { trust_domain: "mesh.local".into(), roots_der };
        draft.put(Encoded::new(TRUST_BUNDLE, "mesh.local", Vec::new(), &bundle), false);
        change(&mut draft);
        draft.set_complete(true);
        self.snapshots.send_replace(Arc::new(draft.finish().expect("no dangling reference")));
    }

    async fn get(&self, path: &str) -> String {
        get(self.admin, path).await
    }
}

async fn join(address: &str, token: &str) -> Result<Credentials, IdentityError> {
    identity::join(address, WORKLOAD, token, &identity::new_key().unwrap()).await
}

fn authority(state: &Path) -> Authority {
    Authority::open(state, "mesh.local", Duration::from_secs(3600), selvedge_control_plane::clock::unix()).unwrap()
}

fn grant(service_account: &str) -> Grant {
    let identity = format!("spiffe://mesh.local/ns/shop/sa/{service_account}").parse().unwrap();
    Grant { identity, workload: None, expires: u64::MAX }
}

/// Where a control plane listens for sidecars and for its operator.
async fn addresses(ports_file: &Path) -> (SocketAddr, SocketAddr) {
    let ports = eventually("the ports file", async || std::fs::read_to_string(ports_file).ok()).await;
    let ports: serde_json::Value = serde_json::from_str(&ports).unwrap();
    let address = |name: &str| ports[name].as_str().unwrap().parse().unwrap();
    (address("listen"), address("admin"))
}

/// Asks until there is an answer.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{what}: nothing in {PATIENCE:?}"))
}

async fn get(address: SocketAddr, path: &str) -> String {
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn origin(kind: &str, name: &str, generation: u64) -> Option<Origin> {
    Some(Origin { kind: kind.into(), namespace: "shop".into(), name: name.into(), generation })
}

/// Service `shop/<name>` with one port and one endpoint.
fn service(draft: &mut Draft, name: &str, generation: u64, alias: &str) {
    let endpoints =
        Endpoints { endpoints: vec![Endpoint { address: "127.0.0.1:9".into(), weight: 1, ..Endpoint::default() }] };
    draft.put(Encoded::new(ENDPOINTS, format!("shop/{name}:80"), Vec::new(), &endpoints), false);
    let destination = Destination {
        namespace: "shop".into(),
        name: name.into(),
        ports: vec![Port { port: 80, ..Port::default() }],
        origin: origin("Service", name, generation),
        ..Destination::default()
    };
    draft.put(Encoded::new(DESTINATION, format!("shop/{name}"), vec![alias.into()], &destination), false);
}

fn workload(draft: &mut Draft, name: &str, service_account: &str) {
    let identity = format!("spiffe://mesh.local/ns/shop/sa/{service_account}");
    let inbound = Inbound { workload: name.into(), identity: identity.clone(), ..Inbound::default() };
    draft.put(Encoded::new(INBOUND, name, Vec::new(), &inbound), false);
    draft.set_identity(name, Some(identity));
}

/// A sidecar's configuration task; it ends with this value.
struct Sidecar {
    handle: xds::Handle,
    credentials: watch::Sender<Option<Arc<Credentials>>>,
}

impl Sidecar {
    fn start(control_plane: String, state_dir: &Path, credentials: Option<Credentials>) -> Self {
        Self::start_idle(control_plane, state_dir, credentials, xds::IDLE)
    }

    /// One that gives up what was not used for `idle`.
    fn start_idle(control_plane: String, state_dir: &Path, credentials: Option<Credentials>, idle: Duration) -> Self {
        let (sender, receiver) = watch::channel(credentials.map(Arc::new));
        let settings = xds::Settings { control_plane, workload: WORKLOAD.into(), state_dir: state_dir.into(), idle };
        Self { handle: xds::spawn(settings, receiver, check), credentials: sender }
    }

    fn want(&self, name: &str) {
        self.handle.demand.send(Demand::Want(name.into())).unwrap();
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Resources) -> bool) -> Arc<Resources> {
        let resources = &mut self.handle.resources;
        let found = timeout(PATIENCE, resources.wait_for(|resources| wanted(resources))).await;
        let found = found.map(|found| Arc::clone(&found.expect("the task runs")));
        found.unwrap_or_else(|_| panic!("{what}: still {:?}", resources.borrow()))
    }
}

/// Refuses what a generation 666 made.
fn check(resource: &Encoded) -> Result<(), String> {
    let bad = origin_of(resource).is_some_and(|origin| origin.generation == 666);
    if bad { Err("the number of the beast".into()) } else { Ok(()) }
}

fn canonical<'a>(resources: &'a Resources, asked: &str) -> Option<&'a str> {
    resources.aliases.get(asked)?.as_deref()
}

fn generation(resources: &Resources, destination: &str) -> Option<u64> {
    Some(resources.destinations.get(destination)?.value.origin.as_ref()?.generation)
}

#[tokio::test]
async fn a_join_token_is_worth_one_certificate() {
    let control_plane = ControlPlane::start().await;
    let token = control_plane.token(grant("web"));
    let credentials = join(&control_plane.address(), &token).await.unwrap();
    assert_eq!(credentials.svid.identity, grant("web").identity);
    let refused = join(&control_plane.address(), &token).await.unwrap_err();
    assert!(matches!(&refused, IdentityError::Refused(why) if why.contains("used already")), "{refused}");
}

#[tokio::test]
async fn of_many_that_redeem_a_token_at_once_one_gets_a_certificate() {
    let control_plane = ControlPlane::start().await;
    let (address, token) = (control_plane.address(), control_plane.token(grant("web")));
    let attempts = (0..8).map(|_| join(&address, &token));
    let joined = futures_util::future::join_all(attempts).await;
    assert_eq!(joined.iter().filter(|result| result.is_ok()).count(), 1, "{joined:?}");
}

#[tokio::test]
async fn worthless_tokens_are_refused() {
    let control_plane = ControlPlane::start().await;
    let address = control_plane.address();
    let expired = control_plane.token(Grant { expires: 1, ..grant("web") });
    assert!(matches!(join(&address, &expired).await, Err(IdentityError::Refused(_))));

    let bound = control_plane.token(Grant { workload: Some("shop/other".into()), ..grant("web") });
    let refused = join(&address, &bound).await.unwrap_err();
    assert!(refused.to_string().contains("another workload"), "{refused}");

    let good = control_plane.token(grant("web"));
    let mut wrong_secret = good.clone();
    wrong_secret.replace_range(21..25, if &good[21..25] == "0000" { "1111" } else { "0000" });
    assert!(matches!(join(&address, &wrong_secret).await, Err(IdentityError::Refused(_))));

    let pin = good.rfind('.').unwrap() + 1;
    let wrong_pin = format!("{}{}", &good[..pin], "ab".repeat(32));
    let refused = join(&address, &wrong_pin).await.unwrap_err();
    let words = channel::explain(&refused);
    assert!(words.contains("not the one the join token pins"), "{words}");

    join(&address, &good).await.expect("failures by others do not use a token up");
}

#[tokio::test]
async fn a_certificate_renews_itself_and_only_itself() {
    let control_plane = ControlPlane::start().await;
    let current = control_plane.join().await;
    let renewed = identity::renew(&control_plane.address(), WORKLOAD, &current).await.unwrap();
    assert_eq!(renewed.svid.identity, current.svid.identity);
    assert_ne!(renewed.svid.key.secret_der(), current.svid.key.secret_der());

    let stranger = ControlPlane::start().await.join().await;
    let refused = identity::renew(&control_plane.address(), WORKLOAD, &stranger).await;
    assert!(matches!(refused, Err(IdentityError::Connect { .. } | IdentityError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn credentials_survive_a_restart_and_are_renewed_in_time() {
    let lifetime = Duration::from_secs(3);
    let listen = ([127, 0, 0, 1], 0).into();
    let control_plane = ControlPlane::start_in(TempDir::new().unwrap(), listen, lifetime).await;
    let state = TempDir::new().unwrap();
    let token_file = state.path().join("token");
    std::fs::write(&token_file, control_plane.token(grant("web"))).unwrap();
    let settings = identity::Settings {
        control_plane: control_plane.address(),
        workload: WORKLOAD.into(),
        join_token_file: Some(token_file),
        state_dir: state.path().join("state"),
    };
    let next = async |receiver: &mut watch::Receiver<Option<Arc<Credentials>>>| {
        timeout(PATIENCE, receiver.changed()).await.expect("credentials in time").unwrap();
        receiver.borrow_and_update().clone()
    };
    let (sender, mut receiver) = watch::channel(None);
    let keeper = tokio::spawn(identity::keep(settings.clone(), sender));
    assert!(next(&mut receiver).await.is_none(), "nothing is stored yet");
    let first = next(&mut receiver).await.unwrap();
    let second = next(&mut receiver).await.unwrap();
    assert!(second.svid.not_after > first.svid.not_after);
    keeper.abort();

    let (sender, mut receiver) = watch::channel(None);
    tokio::spawn(identity::keep(settings, sender));
    let restored = next(&mut receiver).await.expect("the disk has credentials");
    assert_eq!(restored.svid.chain, second.svid.chain);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(state.path().join("state/credentials.json")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn discovery_needs_a_client_certificate() {
    let control_plane = ControlPlane::start().await;
    let channel = channel::connect(&control_plane.address(), anonymous::client()).await.unwrap();
    let request = futures_util::stream::iter([DeltaDiscoveryRequest::default()]);
    let refused = AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
}

#[tokio::test]
async fn strangers_do_not_keep_workloads_out() {
    let control_plane = ControlPlane::start().await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        silent.push(socket.connect(control_plane.address).await.unwrap());
    }
    let joined = timeout(Duration::from_secs(3), control_plane.join()).await;
    assert!(joined.is_ok(), "who says nothing on another address held up a workload");
    let address = control_plane.address;
    let flooded = tokio::task::spawn_blocking(move || anonymous::flood(address)).await.unwrap();
    assert!(flooded < 1 << 20, "{flooded} bytes of PING were taken from a stranger");
    control_plane.join().await;
}

#[tokio::test]
async fn a_sidecar_learns_of_destinations_by_alias_and_of_their_changes() {
    let control_plane = ControlPlane::start().await;
    let state = TempDir::new().unwrap();
    let credentials = control_plane.join().await;
    let mut sidecar = Sidecar::start(control_plane.address(), state.path(), Some(credentials));
    sidecar.want("10.0.0.1:80");
    sidecar.want("nothing.shop");
    sidecar.until("a stream", |r| r.connected).await;
    assert!(sidecar.handle.resources.borrow().aliases.is_empty(), "an incomplete snapshot answers nothing");

    control_plane.publish(|draft| {
        service(draft, "cart", 1, "10.0.0.1:80");
        workload(draft, WORKLOAD, "web");
    });
    let resources = sidecar.until("both answers", |r| r.aliases.len() == 2 && r.inbound.is_some()).await;
    assert_eq!(resources.aliases["10.0.0.1:80"].as_deref(), Some("shop/cart"));
    assert_eq!(resources.aliases["nothing.shop"], None);
    assert_eq!(resources.endpoints["shop/cart:80"].value.endpoints.len(), 1, "endpoints come with their destination");
    assert_eq!(resources.bundle.as_ref().unwrap().trust_domain, "mesh.local");

    control_plane.publish(|draft| service(draft, "cart", 2, "10.0.0.1:80"));
    sidecar.until("the update", |r| generation(r, "shop/cart") == Some(2)).await;
    control_plane.publish(|draft| service(draft, "late", 1, "nothing.shop"));
    sidecar.until("what was absent", |r| canonical(r, "nothing.shop") == Some("shop/late")).await;
    control_plane.publish(|draft| {
        draft.remove(DESTINATION, "shop/cart");
        draft.remove(ENDPOINTS, "shop/cart:80");
    });
    let resources = sidecar.until("the removal", |r| r.aliases["10.0.0.1:80"].is_none()).await;
    assert!(!resources.destinations.contains_key("shop/cart") && !resources.endpoints.contains_key("shop/cart:80"));
}

#[tokio::test]
async fn a_workload_cannot_read_the_inbound_view_of_another_identity() {
    let control_plane = ControlPlane::start().await;
    control_plane.publish(|draft| {
        workload(draft, WORKLOAD, "somebody-else");
        service(draft, "cart", 1, "cart.shop");
    });
    let state = TempDir::new().unwrap();
    let mut sidecar = Sidecar::start(control_plane.address(), state.path(), Some(control_plane.join().await));
    sidecar.want("cart.shop");
    let resources = sidecar.until("the destination", |r| !r.destinations.is_empty()).await;
    assert_eq!(resources.inbound, None);
    let status: serde_json::Value = serde_json::from_str(&control_plane.get("/status").await).unwrap();
    let problem = status["sidecars"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("sa/somebody-else, but this sidecar proved"), "{problem}");
}

#[tokio::test]
async fn a_refusal_keeps_the_last_good_version_and_shows_in_the_status() {
    let control_plane = ControlPlane::start().await;
    control_plane.publish(|draft| service(draft, "cart", 1, "cart.shop"));
    let state = TempDir::new().unwrap();
    let mut sidecar = Sidecar::start(control_plane.address(), state.path(), Some(control_plane.join().await));
    sidecar.want("cart.shop");
    sidecar.until("the destination", |r| generation(r, "shop/cart") == Some(1)).await;

    control_plane.publish(|draft| service(draft, "cart", 666, "cart.shop"));
    let resources = sidecar.until("the refusal", |r| r.refusal.is_some()).await;
    assert_eq!(generation(&resources, "shop/cart"), Some(1), "the last good version is in force");
    let status = eventually("the refusal in the status", async || {
        let status: serde_json::Value = serde_json::from_str(&control_plane.get("/status").await).unwrap();
        (!status["sidecars"][0]["refused"].as_array()?.is_empty()).then_some(status)
    })
    .await;
    let sidecar_status = &status["sidecars"][0];
    assert_eq!(sidecar_status["workload"], WORKLOAD);
    assert_eq!(sidecar_status["acknowledged"]["Service shop/cart"], 1);
    let refused = &sidecar_status["refused"][0];
    assert_eq!(refused["objects"]["Service shop/cart"], 666);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("Service shop/cart generation 666") && message.contains("beast"), "{message}");
    assert!(control_plane.get("/metrics").await.contains("answer=\"nack\""));

    control_plane.publish(|draft| service(draft, "cart", 3, "cart.shop"));
    sidecar.until("the repair", |r| generation(r, "shop/cart") == Some(3) && r.refusal.is_none()).await;
}

#[tokio::test]
async fn the_status_knows_which_of_several_is_refused_and_forgets_what_a_sidecar_gives_up() {
    let control_plane = ControlPlane::start().await;
    let state = TempDir::new().unwrap();
    let (address, credentials) = (control_plane.address(), control_plane.join().await);
    let sidecar = Sidecar::start_idle(address, state.path(), Some(credentials), Duration::from_secs(1));
    control_plane.publish(|draft| {
        service(draft, "web", 1, "web.shop");
        service(draft, "web-2", 666, "web-2.shop");
    });
    let sidecar_status = async || {
        let status: serde_json::Value = serde_json::from_str(&control_plane.get("/status").await).unwrap();
        status["sidecars"][0].clone()
    };
    let told = eventually("both answers", async || {
        ["web.shop", "web-2.shop"].iter().for_each(|name| sidecar.want(name));
        let told = sidecar_status().await;
        (told["acknowledged"]["Service shop/web"] == 1 && told["refused"][0].is_object()).then_some(told)
    })
    .await;
    let refused: Vec<_> = told["refused"].as_array().unwrap().iter().map(|refused| &refused["resource"]).collect();
    assert_eq!(refused, ["Destination shop/web-2"], "the name of one is the beginning of the other's");
    assert_eq!(told["acknowledged"].as_object().unwrap().len(), 1);

    eventually("nothing that nobody uses any more", async || {
        let told = sidecar_status().await;
        (told["acknowledged"].as_object()?.is_empty() && told["refused"].as_array()?.is_empty()).then_some(())
    })
    .await;
    let resources = sidecar.handle.resources.borrow();
    assert_eq!((&resources.refusal, resources.connected), (&None, true));
}

#[tokio::test]
async fn a_connection_has_two_discovery_streams_at_most_and_says_so() {
    let control_plane = ControlPlane::start().await;
    let credentials = control_plane.join().await;
    let tls = selvedge_proxy::tls::to_control_plane(&credentials).unwrap();
    let channel = channel::connect(&control_plane.address(), tls).await.unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let mut open = async || {
        let (requests, mut queue) = tokio::sync::mpsc::unbounded_channel::<DeltaDiscoveryRequest>();
        let queued = futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx));
        client.delta_aggregated_resources(queued).await.map(|responses| (requests, responses))
    };
    let streams = [open().await.unwrap(), open().await.unwrap()];
    let refused = open().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("2 discovery streams"), "{refused}");
    drop(streams);
    eventually("a place of one that ended", async || open().await.ok()).await;
}

#[tokio::test]
async fn a_sidecar_lives_without_a_control_plane_and_goes_on_with_the_next() {
    let control_plane = ControlPlane::start().await;
    control_plane.publish(|draft| {
        service(draft, "cart", 1, "cart.shop");
        workload(draft, WORKLOAD, "web");
    });
    let state = TempDir::new().unwrap();
    let mut sidecar = Sidecar::start(control_plane.address(), state.path(), Some(control_plane.join().await));
    sidecar.want("cart.shop");
    sidecar.until("everything", |r| !r.destinations.is_empty() && r.inbound.is_some() && r.bundle.is_some()).await;
    eventually("the cache", async || std::fs::metadata(state.path().join("resources.pb")).ok()).await;

    let address = control_plane.address;
    let credentials = control_plane.join().await;
    let authority = control_plane.stop().await;
    let resources = sidecar.until("the loss", |r| !r.connected).await;
    assert_eq!(generation(&resources, "shop/cart"), Some(1), "what is known stays in force");
    drop(sidecar);

    let mut restarted = Sidecar::start(address.to_string(), state.path(), Some(credentials));
    let resources = Arc::clone(&restarted.handle.resources.borrow());
    assert_eq!(generation(&resources, "shop/cart"), Some(1), "the disk has it at once");
    assert_eq!(resources.aliases["cart.shop"].as_deref(), Some("shop/cart"));
    assert!(resources.inbound.is_some() && resources.bundle.is_some() && resources.endpoints.len() == 1);

    let control_plane = ControlPlane::start_in(authority, address, Duration::from_secs(3600)).await;
    control_plane.publish(|draft| {
        service(draft, "cart", 2, "cart.shop");
        workload(draft, WORKLOAD, "web");
    });
    restarted.until("the next control plane", |r| r.connected && generation(r, "shop/cart") == Some(2)).await;
}

#[tokio::test]
async fn a_new_certificate_makes_a_new_stream_on_which_nothing_is_said_again() {
    let control_plane = ControlPlane::start().await;
    control_plane.publish(|draft| {
        service(draft, "cart", 1, "cart.shop");
        workload(draft, WORKLOAD, "web");
    });
    let state = TempDir::new().unwrap();
    let current = control_plane.join().await;
    let renewed = identity::renew(&control_plane.address(), WORKLOAD, &current).await.unwrap();
    let mut sidecar = Sidecar::start(control_plane.address(), state.path(), Some(current));
    sidecar.want("cart.shop");
    sidecar.until("everything", |r| !r.destinations.is_empty() && r.inbound.is_some() && r.bundle.is_some()).await;
    let sent = async || {
        let metrics = control_plane.get("/metrics").await;
        let counters = metrics.lines().filter(|line| line.starts_with("selvedge_control_plane_responses_total"));
        counters.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = sent().await;
    let source = async || {
        let status: serde_json::Value = serde_json::from_str(&control_plane.get("/status").await).unwrap();
        let [only] = &status["sidecars"].as_array()?[..] else { return None };
        (only["acknowledged"]["Service shop/cart"] == 1).then(|| only["address"].clone())
    };
    let first = eventually("the first stream", source).await;
    sidecar.credentials.send_replace(Some(Arc::new(renewed)));
    let another = async || source().await.filter(|address| *address != first);
    eventually("the new stream alone, with what the sidecar has in force", another).await;
    control_plane.publish(|draft| service(draft, "other", 1, "other.shop"));
    sidecar.want("other.shop");
    let resources = sidecar.until("the new destination", |r| generation(r, "shop/other").is_some()).await;
    assert_eq!(generation(&resources, "shop/cart"), Some(1));
    let after = sent().await;
    assert_eq!(before.len(), 4, "{before:?}");
    for (before, after) in before.iter().zip(&after) {
        let more = after.contains("\"destination\"") || after.contains("\"endpoints\"");
        assert!(more || before == after, "{before} became {after}");
    }
}

#[tokio::test]
async fn the_admin_port_answers_only_what_it_should() {
    let control_plane = ControlPlane::start().await;
    assert!(control_plane.get("/ready").await.starts_with("not ready: "));
    control_plane.publish(|_| {});
    assert_eq!(control_plane.get("/ready").await, "ready\n");
    assert_eq!(control_plane.get("/live").await, "live\n");
    let socket = tokio::net::TcpStream::connect(control_plane.admin).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let rebound = http::Request::get("/status").header("host", "evil.example").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(rebound).await.unwrap().status(), 421);
}

const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: cart, namespace: shop }
spec:
  clusterIP: 10.0.0.1
  selector: { app: cart }
  ports: [{ name: http, port: 80, targetPort: 8080 }]
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: { name: cart-1, namespace: shop, labels: { app: cart } }
spec: { serviceAccount: cart, address: 192.0.2.1, ports: [{ port: 8080 }] }
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: { name: web-1, namespace: shop, labels: { app: web } }
spec: { serviceAccount: web, address: 192.0.2.2 }
"#;

#[tokio::test]
async fn what_is_saved_in_the_directory_reaches_the_sidecar_and_the_status_says_so() {
    let directory = TempDir::new().unwrap();
    let (config, state, ports) =
        (directory.path().join("mesh"), directory.path().join("state"), directory.path().join("ports.json"));
    std::fs::create_dir(&config).unwrap();
    let save = |text: &str| std::fs::write(config.join("shop.yaml"), text).unwrap();
    save(SHOP);
    let loopback = ([127, 0, 0, 1], 0).into();
    let settings = Settings {
        listen: loopback,
        admin: loopback,
        ports_file: Some(ports.clone()),
        ..Settings::new(&config, &state)
    };
    let (_stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(run::run(settings, async { drop(stopped.await) }));
    let bound = addresses(&ports).await;
    let address = bound.0.to_string();
    let token = authority(&state).create_token(&grant("web")).unwrap();
    let mut sidecar = Sidecar::start(address.clone(), &directory.path().join("web"), join(&address, &token).await.ok());
    sidecar.want("10.0.0.1:80");
    let resources = sidecar.until("everything", |r| !r.destinations.is_empty() && r.inbound.is_some()).await;
    assert_eq!(resources.endpoints["shop/cart:80"].value.endpoints[0].address, "192.0.2.1:8080");

    save(&SHOP.replace("10.0.0.1", "10.0.0.2"));
    sidecar.until("the alias to be gone", |r| r.aliases.get("10.0.0.1:80") == Some(&None)).await;
    save(&format!("{SHOP}        oops"));
    eventually("the complaint", async || get(bound.1, "/status").await.contains("\"current\": false").then_some(()))
        .await;
    save(SHOP);
    let service = eventually("the status", async || {
        let status: serde_json::Value = serde_json::from_str(&get(bound.1, "/status").await).unwrap();
        let objects = status["objects"].as_array()?.clone();
        objects.into_iter().find(|o| o["kind"] == "Service" && o["sidecars"]["current"] == 1)
    })
    .await;
    assert_eq!((&service["name"], &service["acceptedGeneration"]), (&"cart".into(), &3.into()));
    running.abort();
}

/// A TLS client without a certificate, that takes any server.
mod anonymous {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
        sync::Arc,
        time::Duration,
    };

    use rustls::{
        ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    };

    #[derive(Debug)]
    struct Anyone(Arc<CryptoProvider>);

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, leaf, signature, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }

    /// Sends HTTP/2 PINGs until the server has had enough, and tells how many bytes that took.
    pub(super) fn flood(address: SocketAddr) -> usize {
        let session = ClientConnection::new(client(), "control-plane".try_into().unwrap()).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut stream = StreamOwned::new(session, socket);
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let ping = b"\0\0\x08\x06\0\0\0\0\08 octets".repeat(100);
        let mut sent = 0;
        while sent < 4 << 20 {
            if stream.write_all(&ping).and_then(|()| stream.flush()).is_err() {
                break;
            }
            sent += ping.len();
            // What comes back must be read, or the server waits for that and not for us.
            if matches!(stream.read(&mut [0; 4096]), Ok(0)) {
                break;
            }
        }
        sent
    }

    pub(super) fn client() -> Arc<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}
