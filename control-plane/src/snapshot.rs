//! Everything the mesh can be told at one instant: immutable, versioned by content, free of dangling references.
//!
//! Two snapshots share every resource that did not change and almost all of the tables they stand in, so a new one costs
//! what changed, and so does telling them apart ([`Snapshot::changed_since`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_policies::names;
use selvedge_xds::{
    kinds::DESTINATION,
    resource::{Encoded, TypeUrl},
};
use tokio::sync::watch;

use crate::shared::Shared;

mod dangling;
mod diff;

pub use dangling::Dangling;
pub use diff::Change;

/// Resources of one kind.
#[derive(Clone, Debug, Default)]
struct Table {
    /// By canonical name.
    resources: Shared<Arc<str>, Arc<Encoded>>,
    aliases: Shared<Arc<str>, Claims>,
}

/// Who answers to an alias, best claim first: a service of the mesh before an external one, then by name. The
/// order keeps an `ExternalService` from taking over the name of a `Service`.
type Claims = BTreeSet<(bool, Arc<str>)>;

/// An immutable view of all resources. Cloning it is cheap; sharing it in an `Arc` is cheaper.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    number: u64,
    complete: bool,
    tables: BTreeMap<TypeUrl, Arc<Table>>,
    identities: Shared<Arc<str>, Arc<str>>,
    /// The namespaces whose callers are told something else in the place of a destination, by its name.
    views: Shared<Arc<str>, Arc<BTreeSet<Arc<str>>>>,
}

/// A channel that always holds the newest snapshot; it starts with an empty, incomplete one.
pub fn channel() -> (watch::Sender<Arc<Snapshot>>, watch::Receiver<Arc<Snapshot>>) {
    watch::channel(Arc::new(Snapshot::default()))
}

impl Snapshot {
    /// Counts up by one with every published snapshot of this process; 0 is the empty one before the first.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// True once the source has told everything it has. Before that an absent resource may only be late.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The resource of that canonical name, or the one that answers to it as an alias (of a destination `name.namespace`,
    /// `host:port`, `ip:port`).
    pub fn get(&self, kind: TypeUrl, name_or_alias: &str) -> Option<Arc<Encoded>> {
        let Table { resources, aliases } = &**self.tables.get(&kind)?;
        let found = resources.get(name_or_alias).or_else(|| {
            let (_, canonical) = aliases.get(name_or_alias)?.first()?;
            resources.get(canonical)
        });
        found.cloned()
    }

    /// What [`Self::get`] finds for a caller of `namespace`, which is told its own view of a destination where it has one. Nobody
    /// is told that of another namespace.
    pub fn seen_from(&self, namespace: &str, kind: TypeUrl, name_or_alias: &str) -> Option<Arc<Encoded>> {
        let is_view_of_others = names::viewed(name_or_alias).is_some_and(|(_, of)| of != namespace);
        let found = self.get(kind, name_or_alias).filter(|_| kind != DESTINATION || !is_view_of_others)?;
        let has_view = self.views.get(&*found.name).is_some_and(|namespaces| namespaces.contains(namespace));
        if has_view && kind == DESTINATION {
            return self.get(kind, &names::view(&found.name, namespace));
        }
        Some(found)
    }

    /// The SPIFFE identity the workload `namespace/name` runs as; only that identity may read its inbound view.
    pub fn identity_of_workload(&self, name: &str) -> Option<String> {
        self.identities.get(name).map(|identity| identity.to_string())
    }

    /// The SPIFFE identities that workloads run as, one for each workload.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<str>> {
        self.identities.iter().map(|(_, identity)| identity)
    }

    /// All resources of a kind, in no particular order.
    pub fn resources(&self, kind: TypeUrl) -> impl Iterator<Item = &Arc<Encoded>> {
        self.tables.get(&kind).into_iter().flat_map(|table| table.resources.iter()).map(|(_, resource)| resource)
    }

    /// How many resources of a kind there are.
    pub fn count(&self, kind: TypeUrl) -> usize {
        self.resources(kind).count()
    }
}

/// The next snapshot in the making: the previous one with some resources replaced.
#[derive(Debug)]
pub struct Draft {
    next: Snapshot,
    touched: BTreeMap<(TypeUrl, Arc<str>), Option<Arc<Encoded>>>,
}

impl Draft {
    /// Begins with everything `previous` has.
    pub fn after(previous: &Snapshot) -> Self {
        Self { next: Snapshot { number: previous.number + 1, ..previous.clone() }, touched: BTreeMap::new() }
    }

    /// Says whether the source has told everything.
    pub fn set_complete(&mut self, complete: bool) {
        self.next.complete = complete;
    }

    /// Puts a resource in place of the one with its name. One of equal content stays the object it was, so that
    /// nobody is told of a change that is none. `external` ranks its claim on its aliases.
    pub fn put(&mut self, resource: Encoded, external: bool) {
        let table = self.next.tables.entry(resource.kind).or_default();
        let known = table.resources.get(resource.name.as_str());
        if known.is_some_and(|known| known.version == resource.version) {
            return;
        }
        let table = Arc::make_mut(table);
        let name: Arc<str> = resource.name.as_str().into();
        let resource = Arc::new(resource);
        if let Some(before) = table.resources.insert(name.clone(), resource.clone()) {
            table.disclaim(&before);
        }
        for alias in &resource.aliases {
            table.claim(alias, (external, name.clone()));
        }
        self.touched.insert((resource.kind, name), Some(resource));
    }

    /// Takes a resource away.
    pub fn remove(&mut self, kind: TypeUrl, name: &str) {
        let table = self.next.tables.get_mut(&kind).filter(|table| table.resources.get(name).is_some());
        let Some(table) = table.map(Arc::make_mut) else { return };
        if let Some(resource) = table.resources.remove(name) {
            table.disclaim(&resource);
            self.touched.insert((kind, name.into()), None);
        }
    }

    /// Says whose callers are told something else in the place of a destination; takes that away of whoever is not any more.
    pub fn set_views(&mut self, destination: &str, namespaces: BTreeSet<Arc<str>>) {
        let before = self.next.views.get(destination).cloned().unwrap_or_default();
        if *before == namespaces {
            return;
        }
        for namespace in before.difference(&namespaces) {
            self.remove(DESTINATION, &names::view(destination, namespace));
        }
        if namespaces.is_empty() {
            self.next.views.remove(destination);
        } else {
            self.next.views.insert(destination.into(), Arc::new(namespaces));
        }
    }

    /// Says which identity a workload runs as; `None` when it is gone.
    pub fn set_identity(&mut self, workload: &str, identity: Option<String>) {
        if self.next.identities.get(workload).map(|known| &**known) == identity.as_deref() {
            return;
        }
        match identity {
            Some(identity) => self.next.identities.insert(workload.into(), identity.into()),
            None => self.next.identities.remove(workload),
        };
    }

    /// The ports a destination has so far; none when it is not there.
    pub fn ports_of(&self, destination: &str) -> Vec<u16> {
        let known = self.next.get(DESTINATION, destination);
        known.map_or_else(Vec::new, |destination| dangling::ports(&destination))
    }

    /// Finishes the snapshot.
    ///
    /// # Errors
    /// Every reference from a changed resource to one that is not there. The caller keeps the previous snapshot:
    /// a sidecar that follows a dangling reference would wait for a resource that never comes.
    pub fn finish(self) -> Result<Snapshot, Vec<Dangling>> {
        let dangling = dangling::find(&self.next, &self.touched);
        if dangling.is_empty() { Ok(self.next) } else { Err(dangling) }
    }
}

impl Table {
    fn claim(&mut self, alias: &str, claim: (bool, Arc<str>)) {
        let mut claims = self.aliases.get(alias).cloned().unwrap_or_default();
        claims.insert(claim);
        self.aliases.insert(alias.into(), claims);
    }

    /// Takes away the claims of `resource` on its aliases.
    fn disclaim(&mut self, resource: &Encoded) {
        for alias in &resource.aliases {
            let Some(mut claims) = self.aliases.remove(alias.as_str()) else { continue };
            claims.retain(|(_, name)| **name != *resource.name);
            if !claims.is_empty() {
                self.aliases.insert(alias.as_str().into(), claims);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_xds::{
        kinds::ENDPOINTS,
        proto::mesh::{Destination, Endpoints, Port},
    };

    use super::*;

    fn destination(name: &str, aliases: &[&str]) -> Encoded {
        let message = Destination { name: name.into(), ..Default::default() };
        Encoded::new(DESTINATION, name, aliases.iter().map(|alias| (*alias).to_owned()).collect(), &message)
    }

    fn snapshot(previous: &Snapshot, build: impl FnOnce(&mut Draft)) -> Snapshot {
        let mut draft = Draft::after(previous);
        build(&mut draft);
        draft.finish().expect("no dangling references")
    }

    #[test]
    fn a_destination_is_found_by_name_and_by_alias() {
        let one = snapshot(&Snapshot::default(), |draft| draft.put(destination("shop/web", &["web.shop"]), false));
        assert!(one.get(DESTINATION, "shop/web").is_some());
        assert_eq!(one.get(DESTINATION, "web.shop").unwrap().name, "shop/web");
        assert!(one.get(ENDPOINTS, "web.shop").is_none());
        let gone = snapshot(&one, |draft| draft.remove(DESTINATION, "shop/web"));
        assert!(gone.get(DESTINATION, "web.shop").is_none());
        assert!(one.get(DESTINATION, "web.shop").is_some(), "a snapshot never changes");
    }

    #[test]
    fn an_external_service_never_takes_the_alias_of_a_service() {
        let both = snapshot(&Snapshot::default(), |draft| {
            draft.put(destination("a/thief", &["web.shop"]), true);
            draft.put(destination("shop/web", &["web.shop"]), false);
        });
        assert_eq!(both.get(DESTINATION, "web.shop").unwrap().name, "shop/web");
        let only_thief = snapshot(&both, |draft| draft.remove(DESTINATION, "shop/web"));
        assert_eq!(only_thief.get(DESTINATION, "web.shop").unwrap().name, "a/thief");
    }

    #[test]
    fn equal_content_is_the_same_object_in_the_next_snapshot() {
        let one = snapshot(&Snapshot::default(), |draft| draft.put(destination("shop/web", &["web.shop"]), false));
        let two = snapshot(&one, |draft| draft.put(destination("shop/web", &["web.shop"]), false));
        let name = "shop/web";
        assert!(Arc::ptr_eq(&one.get(DESTINATION, name).unwrap(), &two.get(DESTINATION, name).unwrap()));
        assert_eq!(two.number(), one.number() + 1);
        assert!(two.changed_since(&one).is_empty());
    }

    #[test]
    fn a_namespace_with_a_view_of_a_destination_is_told_that_and_nobody_else() {
        let view = |content: &str| {
            let message = Destination { name: content.into(), ..Default::default() };
            Encoded::new(DESTINATION, "bank/ledger@shop", vec![], &message)
        };
        let one = snapshot(&Snapshot::default(), |draft| {
            draft.put(destination("bank/ledger", &["ledger.bank"]), false);
            draft.set_views("bank/ledger", BTreeSet::from(["shop".into()]));
            draft.put(view("1"), false);
        });
        let seen = |snapshot: &Snapshot, namespace: &str, name: &str| {
            snapshot.seen_from(namespace, DESTINATION, name).map(|found| found.name.clone())
        };
        let own = Some("bank/ledger@shop".to_owned());
        for name in ["bank/ledger", "ledger.bank", "bank/ledger@shop"] {
            assert_eq!(seen(&one, "shop", name), own, "{name}");
        }
        assert_eq!(seen(&one, "office", "ledger.bank").as_deref(), Some("bank/ledger"));
        assert_eq!(seen(&one, "office", "bank/ledger@shop"), None);
        let gone = snapshot(&one, |draft| draft.set_views("bank/ledger", BTreeSet::new()));
        assert_eq!(seen(&gone, "shop", "ledger.bank").as_deref(), Some("bank/ledger"));
        assert!(gone.get(DESTINATION, "bank/ledger@shop").is_none());
    }

    #[test]
    fn a_port_without_endpoints_is_a_dangling_reference() {
        let message = Destination {
            namespace: "shop".into(),
            name: "web".into(),
            ports: vec![Port { port: 80, ..Default::default() }],
            ..Default::default()
        };
        let mut draft = Draft::after(&Snapshot::default());
        draft.put(Encoded::new(DESTINATION, "shop/web", vec![], &message), false);
        let dangling = draft.finish().unwrap_err();
        assert_eq!(dangling.len(), 1);
        assert_eq!(dangling[0].missing, "shop/web:80");

        let with_endpoints = snapshot(&Snapshot::default(), |draft| {
            draft.put(Encoded::new(DESTINATION, "shop/web", vec![], &message), false);
            draft.put(Encoded::new(ENDPOINTS, "shop/web:80", vec![], &Endpoints::default()), false);
        });
        let mut draft = Draft::after(&with_endpoints);
        draft.remove(ENDPOINTS, "shop/web:80");
        assert_eq!(draft.finish().unwrap_err()[0].from, "shop/web", "removing what is referred to dangles too");
    }
}
