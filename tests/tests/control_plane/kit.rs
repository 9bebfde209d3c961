//! A control plane whose configuration the test writes, a sidecar's half of the channel, and what both are made of.

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
use selvedge_proxy::{Credentials, Demand, FollowSettings, Handle, IDLE, IdentityError, Tenure, follow, new_key};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND, SELVEDGE, TRUST_BUNDLE, origin as origin_of},
    proto::mesh::{Destination, Endpoint, Endpoints, Inbound, Origin, Port, TrustBundle},
    resource::Encoded,
};
use tempfile::TempDir;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const WORKLOAD: &str = "shop/web-1";
pub(crate) const DOMAIN: &str = "mesh.local";

/// A control plane whose configuration the test writes.
pub(crate) struct ControlPlane {
    trust_domain: String,
    pub(crate) state: TempDir,
    snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), selvedge_control_plane::Error>>,
}

impl ControlPlane {
    pub(crate) async fn start() -> Self {
        Self::start_with(Duration::from_secs(3600), DOMAIN).await
    }

    /// One of this trust domain, that issues certificates of this lifetime.
    pub(crate) async fn start_with(certificate_lifetime: Duration, trust_domain: &str) -> Self {
        let listen = ([127, 0, 0, 1], 0).into();
        Self::launch(TempDir::new().unwrap(), listen, certificate_lifetime, trust_domain).await
    }

    /// One that goes on with the state of another.
    pub(crate) async fn start_in(state: TempDir, listen: SocketAddr) -> Self {
        Self::launch(state, listen, Duration::from_secs(3600), DOMAIN).await
    }

    async fn launch(state: TempDir, listen: SocketAddr, certificate_lifetime: Duration, trust_domain: &str) -> Self {
        let ports = state.path().join("ports.json");
        let _absent = std::fs::remove_file(&ports);
        let settings = Settings {
            listen,
            admin: ([127, 0, 0, 1], 0).into(),
            ports_file: Some(ports.clone()),
            certificate_lifetime,
            trust_domain: trust_domain.to_owned(),
            audit_log: Some("/dev/null".into()),
            ..Settings::new(state.path())
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
        Self { address, admin, trust_domain: trust_domain.to_owned(), state, snapshots, stop, task }
    }

    pub(crate) async fn stop(self) -> TempDir {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
        self.state
    }

    pub(crate) fn token(&self, grant: Grant) -> String {
        authority(self.state.path(), &self.trust_domain).create_token(&grant).unwrap()
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) async fn join(&self) -> Credentials {
        join(&self.address(), &self.token(grant_of(&self.trust_domain, "web"))).await.unwrap()
    }

    pub(crate) fn publish(&self, change: impl FnOnce(&mut Draft)) {
        let mut draft = Draft::after(&self.snapshots.borrow());
        let roots = authority(self.state.path(), DOMAIN).roots();
        let roots_der = roots.iter().map(|root| root.to_vec().into()).collect();
        let bundle = TrustBundle { trust_domain: DOMAIN.into(), roots_der, ..TrustBundle::default() };
        draft.put(Encoded::new(TRUST_BUNDLE, DOMAIN, Vec::new(), &bundle), false);
        change(&mut draft);
        draft.set_complete(true);
        self.snapshots.send_replace(Arc::new(draft.finish().expect("no dangling reference")));
    }

    /// Bytes of everything that is published.
    pub(crate) fn resource_bytes(&self) -> usize {
        let published = self.snapshots.borrow();
        SELVEDGE.order().iter().flat_map(|kind| published.resources(*kind)).map(|resource| resource.body.len()).sum()
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        get(self.admin, path).await
    }
}

pub(crate) async fn join(address: &str, token: &str) -> Result<Credentials, IdentityError> {
    selvedge_proxy::join(address, WORKLOAD, token, &new_key().unwrap()).await
}

pub(crate) fn authority(state: &Path, trust_domain: &str) -> Authority {
    Authority::open(state, trust_domain, Duration::from_secs(3600), selvedge_control_plane::clock::unix()).unwrap()
}

pub(crate) fn grant(service_account: &str) -> Grant {
    grant_of(DOMAIN, service_account)
}

fn grant_of(trust_domain: &str, service_account: &str) -> Grant {
    let identity = format!("spiffe://{trust_domain}/ns/shop/sa/{service_account}").parse().unwrap();
    Grant { identity, workload: None, expires: u64::MAX }
}

/// Where a control plane listens for sidecars and for its operator.
pub(crate) async fn addresses(ports_file: &Path) -> (SocketAddr, SocketAddr) {
    let ports = eventually("the ports file", async || std::fs::read_to_string(ports_file).ok()).await;
    let ports: serde_json::Value = serde_json::from_str(&ports).unwrap();
    let address = |name: &str| ports[name].as_str().unwrap().parse().unwrap();
    (address("listen"), address("admin"))
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
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

pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

pub(crate) fn origin(kind: &str, name: &str, generation: u64) -> Option<Origin> {
    Some(Origin { kind: kind.into(), namespace: "shop".into(), name: name.into(), generation })
}

/// Service `shop/<name>` with one port and one endpoint.
pub(crate) fn service(draft: &mut Draft, name: &str, generation: u64, alias: &str) {
    let endpoints = Endpoints {
        endpoints: vec![Endpoint { address: "127.0.0.1:9".into(), weight: 1, ..Endpoint::default() }],
        ..Default::default()
    };
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

pub(crate) fn workload(draft: &mut Draft, name: &str, service_account: &str) {
    let identity = format!("spiffe://mesh.local/ns/shop/sa/{service_account}");
    let inbound = Inbound { workload: name.into(), identity: identity.clone(), ..Inbound::default() };
    draft.put(Encoded::new(INBOUND, name, Vec::new(), &inbound), false);
    draft.set_identity(name, Some(identity));
}

/// A sidecar's configuration task; it ends with this value.
pub(crate) struct Sidecar {
    pub(crate) handle: Handle,
    pub(crate) credentials: watch::Sender<Option<Arc<Credentials>>>,
}

impl Sidecar {
    pub(crate) fn start(control_plane: String, state_dir: &Path, credentials: Option<Credentials>) -> Self {
        Self::start_idle(control_plane, state_dir, credentials, IDLE)
    }

    /// One that gives up what was not used for `idle`.
    pub(crate) fn start_idle(
        control_plane: String,
        state_dir: &Path,
        credentials: Option<Credentials>,
        idle: Duration,
    ) -> Self {
        let (sender, receiver) = watch::channel(credentials.map(Arc::new));
        let tenure = Tenure::default();
        let settings =
            FollowSettings { control_plane, workload: WORKLOAD.into(), state_dir: state_dir.into(), idle, tenure };
        Self { handle: follow(settings, receiver, check), credentials: sender }
    }

    pub(crate) fn want(&self, name: &str) {
        self.handle.demand.send(Demand::Want(name.into())).unwrap();
    }

    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Resources) -> bool) -> Arc<Resources> {
        let resources = &mut self.handle.resources;
        let found = timeout(PATIENCE, resources.wait_for(|resources| wanted(resources))).await;
        let found = found.map(|found| Arc::clone(&found.expect("the task runs")));
        found.unwrap_or_else(|_| panic!("{what}: still {:?}", resources.borrow()))
    }
}

/// Refuses what a generation 666 made.
pub(crate) fn check(resource: &Encoded) -> Result<(), String> {
    let bad = origin_of(resource).is_some_and(|origin| origin.generation == 666);
    if bad { Err("the number of the beast".into()) } else { Ok(()) }
}

pub(crate) fn canonical<'a>(resources: &'a Resources, asked: &str) -> Option<&'a str> {
    resources.aliases.get(asked)?.as_deref()
}

pub(crate) fn generation(resources: &Resources, destination: &str) -> Option<u64> {
    Some(resources.destinations.get(destination)?.value.origin.as_ref()?.generation)
}
