//! Everything the demo writes, in one temporary folder: the mesh's YAML, join tokens, the sidecars' bootstrap files,
//! logs. The folder goes when the demo does; that of one which was killed, when the next begins.

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use selvedge_control_plane::{
    clock,
    identity::{Authority, Grant, LEAF_LIFETIME},
};
use selvedge_policies::facts::Identity;
use selvedge_saas::{
    local_postgres::{Installed, LocalPostgres},
    mesh::{NAMESPACE, POLICIES},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    leftovers,
    stage::{Place, Stage},
};

const TRUST_DOMAIN: &str = "mesh.local";
/// Tokens are used within seconds.
const TOKEN_SECONDS: u64 = 300;

/// The folder.
pub(super) struct Files {
    folder: TempDir,
    /// A second one, because a database server may run as another user.
    database: Option<(LocalPostgres, TempDir)>,
}

impl Files {
    /// A new folder that only this user can look into, and no more of those that demos have left which are gone.
    pub(super) fn new() -> anyhow::Result<Self> {
        leftovers::sweep(&env::temp_dir());
        let folder = temporary(leftovers::FOLDER)?;
        leftovers::claim(folder.path(), None).context("marking the temporary folder")?;
        let files = Self { folder, database: None };
        for name in ["mesh", "control-plane", "sidecars", "tokens", "logs"] {
            let path = files.path(name);
            fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(files)
    }

    /// Makes the folder of a database server.
    pub(super) fn add_database(&mut self, installed: &Installed) -> anyhow::Result<()> {
        let folder = temporary(leftovers::DATABASE)?;
        leftovers::claim(self.folder.path(), Some(folder.path())).context("marking the temporary folder")?;
        self.database = Some((LocalPostgres::prepare(installed, folder.path())?, folder));
        Ok(())
    }

    /// The database server, unless `data` keeps everything in a file.
    pub(super) fn database(&self) -> Option<&LocalPostgres> {
        self.database.as_ref().map(|(database, _)| database)
    }

    /// A path in the folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the example's policies, and where its instances are.
    pub(super) fn write_mesh(&self, stage: &Stage) -> anyhow::Result<()> {
        for (name, yaml) in POLICIES {
            self.write(&format!("mesh/{name}"), yaml)?;
        }
        // JSON is YAML; one document each.
        let workloads: Vec<String> = stage.places.iter().map(|place| format!("---\n{}\n", workload(place))).collect();
        self.write("mesh/workloads.yaml", &workloads.concat())?;
        self.write("mesh/external.yaml", &external(stage.third_party).to_string())
    }

    /// Founds the mesh's authority and gives every sidecar a token.
    pub(super) fn write_tokens(&self, stage: &Stage) -> anyhow::Result<()> {
        let now = clock::unix();
        let authority = Authority::open(&self.path("control-plane"), TRUST_DOMAIN, LEAF_LIFETIME, now)?;
        for place in &stage.places {
            let instance = place.instance;
            let grant = Grant {
                identity: Identity::new(TRUST_DOMAIN, NAMESPACE, instance.service)?,
                workload: Some(format!("{NAMESPACE}/{}", instance.name)),
                expires: now + TOKEN_SECONDS,
            };
            self.write(&format!("tokens/{}", instance.name), &authority.create_token(&grant)?)?;
        }
        Ok(())
    }

    /// Writes the bootstrap file of one sidecar; returns where it is.
    pub(super) fn write_bootstrap(&self, place: &Place, control_plane: SocketAddr) -> anyhow::Result<PathBuf> {
        let name = format!("sidecars/{}.yaml", place.instance.name);
        self.write(&name, &self.bootstrap(place, control_plane).to_string())?;
        Ok(self.path(&name))
    }

    fn bootstrap(&self, place: &Place, control_plane: SocketAddr) -> Value {
        let name = place.instance.name;
        let mut bootstrap = json!({
            "workload": format!("{NAMESPACE}/{name}"),
            "controlPlane": control_plane,
            "joinTokenFile": self.path(&format!("tokens/{name}")),
            "stateDir": self.path(&format!("sidecars/{name}")),
            "admin": "127.0.0.1:0",
            "metrics": place.metrics,
            "accessLogFile": self.path(&format!("logs/{name}-access.log")),
            "drainDeadline": "2s",
        });
        if place.namespace.is_some() {
            bootstrap["capture"] = "transparent".into();
            return bootstrap;
        }
        if let (Some(listen), Some(forward)) = (place.inbound, place.app) {
            bootstrap["inbound"] = json!([{ "listen": listen, "forward": forward, "port": place.instance.port }]);
        }
        let calls = place.instance.calls.iter().zip(&place.outbound);
        bootstrap["outbound"] = calls.map(|(call, listen)| json!({ "listen": listen, "to": call.to })).collect();
        bootstrap
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// A new folder that only this user can look into.
fn temporary(prefix: &str) -> anyhow::Result<TempDir> {
    let own = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix(prefix).permissions(own).tempdir().context("making a temporary folder")
}

/// The object that says where an instance is.
fn workload(place: &Place) -> Value {
    let instance = place.instance;
    let mut labels = json!({ "app": instance.service });
    if let Some(version) = instance.version {
        labels["version"] = version.into();
    }
    let mut spec = json!({ "serviceAccount": instance.service, "address": place.address });
    if let Some(port) = instance.port {
        let dial = place.inbound.map_or(port, |address| address.port());
        spec["ports"] = json!([{ "port": port, "dial": dial }]);
    }
    object("Workload", instance.name, Some(labels), spec)
}

/// The object that says where the third party is.
fn external(address: SocketAddr) -> Value {
    let spec = json!({
        "hosts": ["hooks.third-party.example"],
        "ports": [{ "port": 80, "appProtocol": "http" }],
        "endpoints": [{ "address": address.ip(), "port": address.port() }],
    });
    object("ExternalService", "third-party", None, spec)
}

fn object(kind: &str, name: &str, labels: Option<Value>, spec: Value) -> Value {
    let mut metadata = json!({ "name": name, "namespace": NAMESPACE });
    if let Some(labels) = labels {
        metadata["labels"] = labels;
    }
    json!({ "apiVersion": "selvedge.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec })
}

/// The address under `key` in a ports file, once it is written.
pub(super) fn read_port(path: &Path, key: &str) -> Option<SocketAddr> {
    let ports: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    ports[key].as_str()?.parse().ok()
}
