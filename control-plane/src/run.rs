//! A whole control plane: listeners, authority, source and status, started and stopped as one.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::interval};

use crate::{
    Error,
    admin::{self, Pages},
    clock,
    identity::Authority,
    serve::{self, Mesh},
    settings::Settings,
    snapshot::Snapshot,
    telemetry::Telemetry,
};

/// How often expired join tokens are removed.
const SWEEP: Duration = Duration::from_secs(600);

/// What the source of configuration gives the rest of the control plane.
pub struct Configuration {
    /// The newest snapshot.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The user's objects with what was said of each, as `/status` shows them.
    pub objects: Box<dyn Fn() -> Value + Send + Sync>,
}

/// Serves `configuration` until `shutdown` completes.
pub async fn serve(
    settings: &Settings,
    configuration: Configuration,
    telemetry: Telemetry,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let authority =
        Authority::open(&settings.state_dir, &settings.trust_domain, settings.certificate_lifetime, clock::unix())?;
    let (sidecars, sidecars_at) = bind("sidecar", settings.listen).await?;
    let (admin, admin_at) = bind("admin", settings.admin).await?;
    let Configuration { snapshots, objects } = configuration;
    let mesh = Arc::new(Mesh::new(authority, telemetry.clone()));
    let pages = pages(&mesh, telemetry, &snapshots, objects);
    let (stop_sender, stop) = watch::channel(false);
    let mut chores = JoinSet::new();
    chores.spawn(admin::serve(admin, Arc::new(pages), stop.clone()));
    chores.spawn(sweep(Arc::clone(&mesh.authority)));
    if let Some(path) = &settings.ports_file {
        write_ports(path, sidecars_at, admin_at)?;
    }
    tracing::info!(sidecars = %sidecars_at, admin = %admin_at, trust_domain = settings.trust_domain, "serving");
    let mut serving = std::pin::pin!(serve::serve(sidecars, mesh, snapshots, stop));
    tokio::select! {
        result = serving.as_mut() => return result,
        () = shutdown => {}
    }
    stop_sender.send_replace(true);
    serving.await
}

async fn bind(role: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Bind { role, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Written under another name first, so that a reader never sees half of it.
fn write_ports(path: &Path, sidecars: SocketAddr, admin: SocketAddr) -> Result<(), Error> {
    let draft = path.with_extension("draft");
    let content = json!({ "listen": sidecars, "admin": admin }).to_string();
    let written = fs::write(&draft, content).and_then(|()| fs::rename(&draft, path));
    written.map_err(|source| Error::PortsFile { path: path.to_owned(), source })
}

fn pages(
    mesh: &Arc<Mesh>,
    telemetry: Telemetry,
    snapshots: &watch::Receiver<Arc<Snapshot>>,
    objects: Box<dyn Fn() -> Value + Send + Sync>,
) -> Pages {
    let complete = snapshots.clone();
    let unready = move || {
        let complete = complete.borrow().is_complete();
        (!complete).then(|| "the configuration has not been read completely yet".to_owned())
    };
    let (mesh, snapshots) = (Arc::clone(mesh), snapshots.clone());
    let status = move || {
        let snapshot = Arc::clone(&snapshots.borrow());
        json!({
            "trustDomain": mesh.authority.trust_domain(),
            "snapshot": snapshot.number(),
            "complete": snapshot.is_complete(),
            "objects": objects(),
            "sidecars": mesh.sidecars.report(),
        })
    };
    Pages { telemetry, unready: Box::new(unready), status: Box::new(status) }
}

async fn sweep(authority: Arc<Authority>) {
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        let authority = Arc::clone(&authority);
        let swept = tokio::task::spawn_blocking(move || authority.sweep(clock::unix())).await;
        if let Ok(Err(e)) = swept {
            tracing::warn!(error = &e as &dyn std::error::Error, "expired join tokens could not be removed");
        }
    }
}
