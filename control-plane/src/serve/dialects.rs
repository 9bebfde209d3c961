//! What sidecars that know the same are told: each resource is translated once for all of them ([`crate::skew`]).

use std::{collections::HashMap, sync::Arc};

use selvedge_xds::{
    capability::{Capabilities, TooMany},
    proto::discovery::Node,
    resource::{Encoded, TypeUrl},
};

use super::table::Table;
use crate::{
    guarded::Guarded,
    skew::{self, Forms},
    snapshot::Snapshot,
};

/// The dialects that are spoken now.
#[derive(Debug)]
pub(crate) struct Dialects {
    known: Guarded<Table<Capabilities, Dialect>>,
}

/// What is told to sidecars that know the same.
#[derive(Debug)]
pub(crate) struct Dialect {
    knows: Capabilities,
    /// Whether everything is told as it is.
    whole: bool,
    told: Guarded<HashMap<(TypeUrl, String), Told>>,
    /// Number of the snapshot that `told` was compared with last.
    swept: Guarded<u64>,
}

/// A resource as it was told last.
#[derive(Debug)]
struct Told {
    /// The version it was made of.
    version: String,
    resource: Arc<Encoded>,
    forms: Forms,
}

impl Default for Dialects {
    fn default() -> Self {
        Self { known: Guarded::new(Table::default()) }
    }
}

impl Dialects {
    /// The dialect of a sidecar that has not said what it knows.
    pub(super) fn silent(&self) -> Arc<Dialect> {
        self.of_those_that_know(skew::silent())
    }

    /// The dialect of a sidecar that says this of itself.
    pub(super) fn of(&self, node: &Node) -> Result<Arc<Dialect>, TooMany> {
        Ok(self.of_those_that_know(Capabilities::of(node)?.unwrap_or_else(skew::silent)))
    }

    fn of_those_that_know(&self, knows: Capabilities) -> Arc<Dialect> {
        self.known.with(|known| {
            Arc::clone(known.get(knows.clone(), || Dialect {
                whole: skew::is_everything(&knows),
                knows,
                told: Guarded::default(),
                swept: Guarded::default(),
            }))
        })
    }
}

impl Dialect {
    /// `resource` as it is told.
    pub(super) fn tell(&self, resource: Arc<Encoded>) -> Arc<Encoded> {
        if self.whole {
            return resource;
        }
        self.told.with(|all| {
            let key = (resource.kind, resource.name.clone());
            let before = all.get(&key);
            if let Some(same) = before.filter(|told| told.version == resource.version) {
                return Arc::clone(&same.resource);
            }
            let nothing = Forms::default();
            let told = skew::tell(&resource, &self.knows, before.map_or(&nothing, |told| &told.forms));
            for complaint in &told.complaints {
                tracing::warn!(resource = resource.name, "a sidecar of an older release cannot enforce {complaint}");
            }
            let version = resource.version.clone();
            let told = Told { version, resource: told.resource.map_or(resource, Arc::new), forms: told.forms };
            let newest = Arc::clone(&told.resource);
            all.insert(key, told);
            newest
        })
    }

    /// Forgets what was told of resources that `snapshot` has no more, once for each: what comes back under the same name
    /// begins anew.
    pub(super) fn sweep(&self, snapshot: &Snapshot) {
        let number = snapshot.number();
        if !self.whole && self.swept.with(|swept| std::mem::replace(swept, number) != number) {
            self.told.with(|all| all.retain(|(kind, name), _| snapshot.get(*kind, name).is_some()));
        }
    }
}
