//! The last forms that hold at older sidecars, over a restart of the control plane.
//!
//! Guarantees: the file is there whole or not at all; nobody waits for it; one that cannot be read or written costs no more
//! than what it is for, and the log says so.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use selvedge_identity::file;
use selvedge_xds::{capability::Capabilities, resource::Encoded};
use tokio::sync::Notify;

use crate::{guarded::Guarded, skew::Forms};

/// Sets of capabilities that are remembered; a mesh has a few releases at a time.
const MOST_SETS: usize = 64;

/// Forms by what sidecars know, then by resource.
type Sets = BTreeMap<Capabilities, BTreeMap<String, Forms>>;
/// As it stands in the file.
type Stored = Vec<(BTreeMap<String, std::collections::BTreeSet<String>>, BTreeMap<String, Forms>)>;

/// The last forms that sidecars of each set of capabilities knew, in memory and on disk.
#[derive(Debug, Default)]
pub(super) struct Kept {
    path: Option<PathBuf>,
    sets: Guarded<Sets>,
    changed: Notify,
}

impl Kept {
    /// What the file at `path` has, to be kept there.
    pub(super) fn load(path: PathBuf) -> Self {
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Stored::new()),
            read => read.and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other)),
        };
        let stored = read.unwrap_or_else(|error| {
            let path = path.display();
            tracing::warn!(%path, %error, "what older sidecars knew last cannot be read; they may get errors for it");
            Stored::new()
        });
        let sets = stored.into_iter().map(|(knows, resources)| (Capabilities(knows), resources));
        Self { path: Some(path), sets: Guarded::new(sets.collect()), changed: Notify::new() }
    }

    /// What holds of `resource` where this is known.
    pub(super) fn get(&self, knows: &Capabilities, resource: &Encoded) -> Forms {
        self.sets.with(|sets| sets.get(knows).and_then(|of| of.get(&key(resource))).cloned()).unwrap_or_default()
    }

    /// Keeps what holds of `resource` where this is known.
    pub(super) fn put(&self, knows: &Capabilities, resource: &Encoded, forms: Forms) {
        let changed = self.sets.with(|sets| {
            if forms == Forms::default() {
                let gone = sets.get_mut(knows).and_then(|of| of.remove(&key(resource))).is_some();
                sets.retain(|_, of| !of.is_empty());
                return gone;
            }
            if sets.len() >= MOST_SETS && !sets.contains_key(knows) {
                return false;
            }
            let before = sets.entry(knows.clone()).or_default().insert(key(resource), forms.clone());
            before != Some(forms)
        });
        if changed {
            self.changed.notify_one();
        }
    }

    /// Gives up what is kept where this is known.
    pub(super) fn forget(&self, knows: &Capabilities) {
        if self.sets.with(|sets| sets.remove(knows)).is_some() {
            self.changed.notify_one();
        }
    }

    /// Writes every change to the file.
    pub(super) async fn save(&self) {
        let Some(path) = self.path.clone() else { return };
        loop {
            self.changed.notified().await;
            let path = path.clone();
            let stored: Stored = self.sets.with(|sets| sets.iter().map(|(k, of)| (k.0.clone(), of.clone())).collect());
            let text = serde_json::to_vec(&stored).unwrap_or_default();
            let written = tokio::task::spawn_blocking(move || file::replace(&path, &text)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "what older sidecars knew last is not saved; after a restart they may get errors for it");
            }
        }
    }
}

fn key(resource: &Encoded) -> String {
    format!("{:?} {}", resource.kind, resource.name)
}
