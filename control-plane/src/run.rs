//! A whole control plane: listeners, authority, source and status, started and stopped as one.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use selvedge_identity::file;
use selvedge_policies::{facts::Moment, finding::Code};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, interval, timeout},
};

use crate::{
    Error,
    admin::{self, Pages, Scope},
    audit::AuditLog,
    clock,
    diagnostic::{Diagnostic, Place, Severity},
    identity::{
        Admission, Authority, Reviewer, Sightings,
        cluster::{Keeper, SECRET},
    },
    join_socket::{JoinSocket, Told},
    pod_events,
    serve::{self, Mesh},
    settings::{Kubernetes, Settings},
    snapshot::{self, Snapshot},
    source::{
        self, Confirm,
        files::Files,
        kubernetes::{self, Pods},
    },
    status,
    store::{self, Memory, Reports, Store},
    telemetry::Telemetry,
    webhook::{self, Webhook},
};

/// File descriptors that a control plane with all the connections it allows needs.
pub const DESCRIPTORS: u64 = (serve::MAX_CONNECTIONS + 2 * admin::CONNECTIONS + webhook::CONNECTIONS) as u64 + 256;
mod waiting;

/// How often it is looked whether there is an authority by now.
const LOOK: Duration = Duration::from_secs(1);
/// How often expired join tokens are removed.
const SWEEP: Duration = Duration::from_secs(600);
/// How often it is looked which pods have their sidecars connected, and which identities are borne.
const OBSERVATION: Duration = Duration::from_secs(5);
/// How often the state directory is looked at for a step of a CA rotation.
const ROTATION: Duration = Duration::from_secs(1);
/// How long the end waits for what is in force to be saved.
const LAST_SAVE: Duration = Duration::from_secs(5);

/// What the source of configuration gives the rest of the control plane.
pub struct Configuration {
    /// The newest snapshot, each as soon as it is in force.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What is to be said of the user's objects.
    pub reports: watch::Receiver<Arc<Reports>>,
    /// Takes what is said to be meant.
    pub confirms: mpsc::Sender<Confirm>,
}

/// What a control plane says of itself, beside its log.
struct Records {
    telemetry: Telemetry,
    audit: AuditLog,
}

impl Records {
    fn open(settings: &Settings) -> Result<Self, Error> {
        let telemetry = Telemetry::new()?;
        let audit = AuditLog::open(settings.audit_log.as_deref(), telemetry.audit_events.clone());
        let path = settings.audit_log.clone().unwrap_or_else(|| "on standard output".into());
        Ok(Self { telemetry, audit: audit.map_err(|source| Error::AuditLog { path, source })? })
    }
}

/// Runs a control plane over what the settings name as configuration until `shutdown` completes.
///
/// # Errors
/// What keeps it from starting or from following the configuration; what users write never does.
pub async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    keep_apart(&settings)?;
    let records = Records::open(&settings)?;
    let mut shutdown = std::pin::pin!(shutdown);
    let client = match &settings.kubernetes {
        Some(Kubernetes { kubeconfig, .. }) => Some(kubernetes::client(kubeconfig.as_deref()).await?),
        None => None,
    };
    let mut keeper = client.as_ref().map(|client| keeper(client, &settings));
    if let Some(keeper) = &mut keeper {
        tokio::select! {
            found = waiting::authority(&settings, keeper) => found?,
            () = shutdown.as_mut() => return Ok(()),
        }
    }
    let authority = open(&settings)?;
    let (snapshot_sender, snapshots) = snapshot::channel();
    let (report_sender, reports) = watch::channel(Arc::default());
    let (root_sender, roots) = watch::channel(roots(&authority));
    let (confirms, confirmed) = mpsc::channel(1);
    let mut chores = JoinSet::new();
    let memory = Memory::new(&settings.state_dir, settings.config_dir.as_deref().unwrap_or(Path::new("")));
    let store = Store::new(&settings.trust_domain).remember(&memory).auditing(records.audit.clone());
    let (mut sources, mut asked) = (Vec::new(), Vec::new());
    if let Some(config_dir) = &settings.config_dir {
        let (to_files, of_files) = mpsc::channel(1);
        sources.push(Files::new(config_dir, store.known(), of_files).source());
        asked.push(to_files);
    }
    let (mut admission, mut pods) = (Admission::default(), None);
    if let Some(client) = &client {
        let (to_cluster, of_cluster) = mpsc::channel(1);
        let cluster = kubernetes::Cluster::new(client.clone(), store.origins(kubernetes::NAME));
        admission.reviewer = Some(Reviewer::new(client, cluster.pods(), &settings.trust_domain));
        pods = Some((client.clone(), cluster.pods()));
        sources.push(cluster.confirmed_by(of_cluster).source());
        asked.push(to_cluster);
    }
    chores.spawn(source::share(confirmed, asked));
    let (save_sender, saves) = watch::channel(Arc::default());
    chores.spawn(follow(Arc::clone(&authority), root_sender));
    match keeper {
        Some(keeper) => {
            admission.closed = keeper.closed();
            chores.spawn(keeper.keep(Arc::clone(&authority)));
        }
        None => _ = chores.spawn(rotate(Arc::clone(&authority))),
    }
    let keeping = tokio::spawn(store::keep(memory, saves));
    let mut feeding = tokio::spawn(store::run(store, sources, roots, snapshot_sender, report_sender, save_sender));
    let ended = tokio::select! {
        served = admit(&settings, (authority, records), Configuration { snapshots, reports, confirms }, (admission, pods), shutdown) => served,
        // Ready over a configuration that nothing changes any more would be a lie.
        ended = &mut feeding => {
            ended.unwrap_or_else(|panic| Err(Error::Frozen { why: "the store", source: Some(panic) }))
        }
    };
    // Without the store nothing more comes to be saved, and what has come is saved at once.
    feeding.abort();
    if timeout(LAST_SAVE, keeping).await.is_err() {
        tracing::error!(
            "the state directory does not answer; a restart may keep earlier versions of what is broken then"
        );
    }
    ended
}

/// Refuses a state directory in the config directory: its files end like configuration, and configuration gets copied.
fn keep_apart(settings: &Settings) -> Result<(), Error> {
    let Settings { config_dir: Some(config_dir), state_dir, .. } = settings else { return Ok(()) };
    let real = |path: &Path| {
        let path = std::path::absolute(path).ok()?;
        // What is not there yet will be made in the first folder above it that is.
        path.ancestors().find_map(|path| path.canonicalize().ok())
    };
    match (real(config_dir), real(state_dir)) {
        (Some(config), Some(state)) if state.starts_with(&config) && config_dir.is_dir() => {
            Err(Error::StateInConfig { state: state_dir.clone(), config: config_dir.clone() })
        }
        _ => Ok(()),
    }
}

/// The authority in the state directory of `settings`.
pub fn open(settings: &Settings) -> Result<Arc<Authority>, Error> {
    let Settings { state_dir, trust_domain, certificate_lifetime, .. } = settings;
    let authority = Authority::open(state_dir, trust_domain, *certificate_lifetime, clock::unix())?;
    authority.promise_lifetime()?;
    Ok(Arc::new(authority))
}

fn keeper(client: &kube::Client, settings: &Settings) -> Keeper {
    let Settings { state_dir, trust_domain, certificate_lifetime, kubernetes, .. } = settings;
    let sidecars = kubernetes.as_ref().map(|cluster| cluster.sidecars.clone()).unwrap_or_default();
    Keeper::new(client, state_dir, trust_domain, *certificate_lifetime, sidecars)
}

/// Serves `configuration` until `shutdown` completes, to workloads that join with join tokens.
///
/// # Errors
/// A port that cannot be had, or TLS settings that cannot be made.
pub async fn serve(
    settings: &Settings,
    authority: Arc<Authority>,
    configuration: Configuration,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut chores = JoinSet::new();
    chores.spawn(rotate(Arc::clone(&authority)));
    let records = Records::open(settings)?;
    admit(settings, (authority, records), configuration, (Admission::default(), None), shutdown).await
}

/// Serves `configuration` until `shutdown` completes, to whom `admission` lets in, in this cluster with these pods.
async fn admit(
    settings: &Settings,
    (authority, records): (Arc<Authority>, Records),
    configuration: Configuration,
    (admission, cluster): (Admission, Option<(kube::Client, Pods)>),
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let Records { telemetry, audit } = records;
    let (sidecars, sidecars_at) = bind("sidecar", settings.listen).await?;
    let (admin, admin_at) = bind("admin", settings.admin).await?;
    let health = match settings.health {
        Some(address) => Some(bind("health", address).await?),
        None => None,
    };
    let join_socket = match &settings.join_socket {
        Some(path) => Some(JoinSocket::bind(path).map_err(|source| Error::JoinSocket { path: path.clone(), source })?),
        None => None,
    };
    let mesh =
        Mesh::new(authority, telemetry.clone(), audit.clone()).remembering(&settings.state_dir).admitting(admission);
    let mesh = Arc::new(mesh);
    let snapshots = configuration.snapshots.clone();
    let (stop_sender, stop) = watch::channel(false);
    let mut chores = JoinSet::new();
    if let Some(socket) = join_socket {
        let authority = Arc::clone(&mesh.authority);
        let told = Told {
            authority,
            audit: audit.clone(),
            config_dir: settings.config_dir.clone(),
            sidecars: sidecars_at,
            admin: admin_at,
        };
        chores.spawn(socket.serve(told, stop.clone()));
    }
    let webhook_at = match (settings.webhook, &cluster) {
        (Some(address), Some((client, _))) => {
            let (listener, at) = bind("webhook", address).await?;
            chores.spawn(Webhook::new(client, &mesh.authority, &telemetry).serve(listener, stop.clone())?);
            Some(at)
        }
        _ => None,
    };
    if let Some((client, pods)) = cluster {
        chores.spawn(pod_events::watch(client, pods, telemetry.clone()));
    }
    chores.spawn(sweep(Arc::clone(&mesh.authority)));
    chores.spawn(measure(telemetry.clone(), configuration.snapshots.clone(), configuration.reports.clone()));
    chores.spawn(tell(settings.ready.clone(), configuration.snapshots.clone()));
    let started = Instant::now();
    chores.spawn(observe(Arc::clone(&mesh), configuration.snapshots.clone(), configuration.reports.clone(), started));
    let pages = Arc::new(pages(&mesh, telemetry, configuration, started));
    chores.spawn(admin::serve(admin, Arc::clone(&pages), Scope::Admin, stop.clone()));
    let health_at = health.map(|(listener, address)| {
        chores.spawn(admin::serve(listener, pages, Scope::Health, stop.clone()));
        address
    });
    if let Some(path) = &settings.ports_file {
        let ports =
            [("listen", Some(sidecars_at)), ("admin", Some(admin_at)), ("health", health_at), ("webhook", webhook_at)];
        write_ports(path, &ports)?;
    }
    tracing::info!(sidecars = %sidecars_at, admin = %admin_at, trust_domain = settings.trust_domain, "serving");
    let mut serving = std::pin::pin!(serve::serve((sidecars, settings.threads), mesh, snapshots, stop));
    tokio::select! {
        result = serving.as_mut() => return result,
        () = shutdown => {}
    }
    stop_sender.send_replace(true);
    let served = serving.await;
    audit.finish().await;
    served
}

async fn bind(role: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Bind { role, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn write_ports(path: &Path, ports: &[(&str, Option<SocketAddr>)]) -> Result<(), Error> {
    let ports: Value =
        ports.iter().filter_map(|(name, address)| Some(((*name).to_owned(), json!((*address)?)))).collect();
    let content = ports.to_string();
    file::publish(path, content.as_bytes()).map_err(|source| Error::PortsFile { path: path.to_owned(), source })
}

fn pages(mesh: &Arc<Mesh>, telemetry: Telemetry, configuration: Configuration, started: Instant) -> Pages {
    let Configuration { snapshots, reports, confirms } = configuration;
    let complete = snapshots.clone();
    let unready = move || {
        let complete = complete.borrow().is_complete();
        (!complete).then(|| "the configuration has not been read completely yet".to_owned())
    };
    let admitting = Arc::clone(mesh);
    let closed = move || admitting.admission.why_closed();
    let mesh = Arc::clone(mesh);
    let status = move || {
        let (snapshot, reports) = (Arc::clone(&snapshots.borrow()), Arc::clone(&reports.borrow()));
        let report = reports.report();
        let now = clock::unix();
        let sidecars = mesh.sidecars.report(&snapshot, now);
        let mut findings = report.findings.clone();
        findings.extend(mesh.admission.why_closed().map(|why| finding(&why)));
        json!({
            "trustDomain": mesh.authority.trust_domain(),
            "authorities": mesh.authority.describe(),
            "snapshot": snapshot.number(),
            "complete": snapshot.is_complete(),
            "objects": status::objects(&report, &sidecars),
            "namespaces": mesh.sidecars.namespaces(&reports.pods, &snapshot, now, started.elapsed()),
            "findings": findings,
            "sidecars": sidecars,
        })
    };
    Pages { telemetry, unready: Box::new(unready), closed: Box::new(closed), status: Box::new(status), confirms }
}

/// What is wrong with the authority that a cluster keeps, as a finding.
fn finding(why: &str) -> Diagnostic {
    Diagnostic::new(Code::Unreadable, Severity::Error, Place::file(&format!("Secret {SECRET}")), why)
}

/// Says when the whole configuration has been read.
async fn tell(ready: watch::Sender<bool>, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    if snapshots.wait_for(|snapshot| snapshot.is_complete()).await.is_ok() {
        ready.send_replace(true);
    }
}

/// Keeps the gauges of the configuration current.
async fn measure(
    telemetry: Telemetry,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    mut reports: watch::Receiver<Arc<Reports>>,
) {
    loop {
        telemetry.snapshot.set(i64::try_from(snapshots.borrow_and_update().number()).unwrap_or(i64::MAX));
        telemetry.set_objects(reports.borrow_and_update().counts);
        let changed = tokio::select! {
            changed = snapshots.changed() => changed,
            changed = reports.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Looks again and again which pods have their sidecars connected.
async fn observe(
    mesh: Arc<Mesh>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    reports: watch::Receiver<Arc<Reports>>,
    started: Instant,
) {
    let mut ticks = interval(OBSERVATION);
    loop {
        ticks.tick().await;
        let (snapshot, reports) = (Arc::clone(&snapshots.borrow()), Arc::clone(&reports.borrow()));
        mesh.sidecars.look(&reports.pods, &snapshot, started.elapsed());
        mesh.bearers.look(&snapshot, reports.is_whole(), Instant::now());
    }
}

/// The trust bundle as the store takes it.
fn roots(authority: &Authority) -> Vec<Bytes> {
    authority.roots().iter().map(|root| root.to_vec().into()).collect()
}

/// Hands every change of the trust bundle on.
async fn follow(authority: Arc<Authority>, sender: watch::Sender<Vec<Bytes>>) {
    let mut changes = authority.changes();
    loop {
        sender.send_replace(roots(&authority));
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Takes the steps of a CA rotation when they are due.
async fn rotate(authority: Arc<Authority>) {
    let mut ticks = interval(ROTATION);
    let started = Instant::now();
    let mut sightings = Sightings::default();
    let mut known = None;
    loop {
        ticks.tick().await;
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let now = Moment { nanos, unix: clock::unix() };
        let authority = Arc::clone(&authority);
        let advanced = tokio::task::spawn_blocking(move || {
            let problem = authority.advance(&mut sightings, now).err();
            (sightings, problem)
        });
        let problem;
        (sightings, problem) = advanced.await.unwrap_or_default();
        let text = problem.as_ref().map(ToString::to_string);
        if let Some(e) = problem.filter(|_| text != known) {
            tracing::error!(error = &e as &dyn std::error::Error, "the CA rotation does not go on");
        }
        known = text;
    }
}

async fn sweep(authority: Arc<Authority>) {
    let mut ticks = interval(SWEEP);
    let mut known = BTreeSet::new();
    loop {
        ticks.tick().await;
        let authority = Arc::clone(&authority);
        let swept = tokio::task::spawn_blocking(move || authority.sweep(clock::unix())).await;
        let problems = swept.unwrap_or_default();
        for problem in problems.iter().filter(|problem| !known.contains(&problem.to_string())) {
            let error = problem as &dyn std::error::Error;
            tracing::warn!(error, "something in the state directory cannot be swept");
        }
        known = problems.iter().map(ToString::to_string).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_inside_the_config_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let inside = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(inside("mesh/there")).unwrap();
        std::os::unix::fs::symlink(inside("mesh"), inside("link")).unwrap();
        let check = |config: &str, state: &str| {
            keep_apart(&Settings { config_dir: Some(inside(config)), ..Settings::new(inside(state)) })
        };
        for state in ["mesh", "mesh/there", "mesh/.state/new", "link/new", "mesh/../mesh/new"] {
            let refused = check("mesh", state).unwrap_err().to_string();
            assert!(refused.contains("keep them apart"), "{state}: {refused}");
        }
        check("mesh", "state").unwrap();
        check("mesh/there", "mesh").unwrap();
        check("mesh/later", "mesh/state").unwrap();
    }
}
