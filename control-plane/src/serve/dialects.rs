//! What sidecars that know the same are told: each resource is translated once for all of them ([`crate::skew`]).
//!
//! A fleet has as many dialects as it has releases, and thousands of sidecars, so translations are shared by whoever
//! has listed the same capabilities. The last forms that each dialect could enforce are kept on disk, because what
//! `keep` promises has to hold over a restart of the control plane too.

use std::{collections::HashMap, path::Path, sync::Arc};

use selvedge_xds::{
    capability::{Capabilities, TooMany},
    proto::discovery::Node,
    resource::{Encoded, TypeUrl},
};

mod kept;

use self::kept::Kept;
use super::table::Table;
use crate::{
    guarded::Guarded,
    skew::{self, Forms},
    snapshot::Snapshot,
};

/// What is kept of it in the state directory.
const FILE: &str = "last-forms.json";

/// The dialects that are spoken now.
#[derive(Debug)]
pub(crate) struct Dialects {
    known: Guarded<Table<Capabilities, Dialect>>,
    kept: Arc<Kept>,
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
    /// What holds instead of what is not known, over a restart.
    kept: Arc<Kept>,
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
        Self { known: Guarded::new(Table::default()), kept: Arc::default() }
    }
}

impl Dialects {
    /// Those that go on with what is kept in `state_dir`.
    pub(super) fn remembering(state_dir: &Path) -> Self {
        Self { kept: Arc::new(Kept::load(state_dir.join(FILE))), ..Self::default() }
    }

    /// Keeps what a restart has to know, for as long as it is polled.
    pub(super) async fn keep(&self) {
        self.kept.save().await;
    }

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
                kept: Arc::clone(&self.kept),
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
            let before = before.map_or_else(|| self.kept.get(&self.knows, &resource), |told| told.forms.clone());
            let told = skew::tell(&resource, &self.knows, &before);
            self.kept.put(&self.knows, &resource, told.kept);
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
            let is_there = |(kind, name): &(TypeUrl, String)| snapshot.get(*kind, name).is_some();
            let gone: Vec<_> = self.told.with(|all| all.extract_if(|key, _| !is_there(key)).collect());
            gone.iter().for_each(|(_, told)| self.kept.put(&self.knows, &told.resource, Forms::default()));
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

    #[tokio::test]
    async fn the_last_form_holds_over_a_restart_until_it_is_known_again() {
        let state = tempfile::tempdir().unwrap();
        let policies = |told: &Encoded| <Inbound as prost::Message>::decode(told.body.clone()).unwrap().policies.len();
        let saved = async |dialects: &Dialects, wanted: bool| {
            let path = state.path().join(FILE);
            let is_there = || std::fs::read_to_string(&path).is_ok_and(|text| text.contains("AUDIT") == wanted);
            let waiting = async {
                while !is_there() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                () = dialects.keep() => panic!("it keeps"),
                done = tokio::time::timeout(std::time::Duration::from_secs(10), waiting) => done.expect("it is saved"),
            }
        };
        let before = Dialects::remembering(state.path());
        let silent = before.silent();
        silent.tell(Arc::new(view(1, KNOWN)));
        assert_eq!(policies(&silent.tell(Arc::new(view(2, NEWER)))), 1);
        saved(&before, true).await;
        let after = Dialects::remembering(state.path());
        let silent = after.silent();
        assert_eq!(policies(&silent.tell(Arc::new(view(2, NEWER)))), 1, "as it was");
        silent.tell(Arc::new(view(3, KNOWN)));
        saved(&after, false).await;
        std::fs::write(state.path().join(FILE), "{").unwrap();
        let damaged = Dialects::remembering(state.path());
        assert_eq!(policies(&damaged.silent().tell(Arc::new(view(4, NEWER)))), 0, "nothing is known any more");
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
