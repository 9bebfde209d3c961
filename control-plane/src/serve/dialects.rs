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

#[cfg(test)]
mod tests {
    use selvedge_policies::registry;
    use selvedge_xds::{
        kinds::INBOUND,
        proto::mesh::{Attachment, Inbound, Origin},
    };

    use super::*;
    use crate::snapshot::Draft;

    /// The view of a workload that is covered by this policy.
    fn view(generation: u64, document: &str) -> Encoded {
        let origin = Origin { kind: "AuthorizationPolicy".into(), generation, ..Origin::default() };
        let policy = Attachment { origin: Some(origin), document: document.into(), stands_for: None };
        Encoded::new(INBOUND, "shop/web-1", Vec::new(), &Inbound { policies: vec![policy], ..Inbound::default() })
    }

    const KNOWN: &str = r#"{"action":"AUDIT","rules":[{}],"onUnsupported":"keep"}"#;
    const NEWER: &str = r#"{"action":"AUDIT","rules":[{"when":1}],"onUnsupported":"keep"}"#;

    #[test]
    fn two_thousand_sidecars_that_know_the_same_cost_one_translation() {
        let dialects = Dialects::default();
        let resource = Arc::new(view(1, NEWER));
        let silent = dialects.silent();
        let first = silent.tell(Arc::clone(&resource));
        assert_ne!(first.version, resource.version, "it is translated");
        let sidecars: Vec<_> = (0..2000).map(|_| dialects.of(&Node::default()).unwrap()).collect();
        let told = sidecars.iter().map(|dialect| dialect.tell(Arc::clone(&resource)));
        assert!(told.into_iter().all(|told| Arc::ptr_eq(&told, &first)), "it is the very same for all");
    }

    #[test]
    fn a_sidecar_of_this_release_is_told_the_very_resource() {
        let metadata = Some(Capabilities(registry::vocabulary()).to_metadata());
        let dialect = Dialects::default().of(&Node { metadata, ..Node::default() }).unwrap();
        let resource = Arc::new(view(1, NEWER));
        assert!(Arc::ptr_eq(&dialect.tell(Arc::clone(&resource)), &resource));
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_comes_back_begins_anew() {
        let dialect = Dialects::default().silent();
        let snapshot = |before: &Snapshot, put: bool| {
            let mut draft = Draft::after(before);
            if put {
                draft.put(view(1, KNOWN), false)
            } else {
                draft.remove(INBOUND, "shop/web-1")
            }
            draft.finish().unwrap()
        };
        let policies = |told: &Encoded| <Inbound as prost::Message>::decode(told.body.clone()).unwrap().policies.len();
        let there = snapshot(&Snapshot::default(), true);
        dialect.tell(Arc::new(view(1, KNOWN)));
        dialect.sweep(&there);
        assert_eq!(policies(&dialect.tell(Arc::new(view(2, NEWER)))), 1, "the last form is kept");
        dialect.sweep(&snapshot(&there, false));
        assert_eq!(policies(&dialect.tell(Arc::new(view(3, NEWER)))), 0, "there is none any more");
    }
}
