//! Which pods there are, for who has to know whether a pod is what it says or has the sidecar that it should have.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::pruned::{Aside, Key, Known, Lacking, Misspelt, NAMESPACE, POD};
use crate::guarded::Guarded;

/// The pods of a cluster as its watch tells of them.
#[derive(Clone, Debug, Default)]
pub struct Pods(Arc<Guarded<Told>>);

#[derive(Debug, Default)]
struct Told {
    pods: HashMap<Key, Known>,
    /// The namespaces whose pods are to have sidecars.
    enabled: HashSet<Key>,
}

impl Pods {
    /// The pod of that name, if it is known.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Known> {
        self.0.with(|told| told.pods.get(&Key::new(namespace, name)).cloned())
    }

    /// The pods that run without the sidecar that they should have.
    pub fn without_sidecar(&self) -> Vec<Arc<Lacking>> {
        self.0.with(|Told { pods, enabled }| {
            let alive = pods.values().filter(|known| known.is_alive);
            let lacking = alive.filter_map(|known| known.lacks_sidecar.as_ref());
            let should =
                |lacking: &&Arc<Lacking>| lacking.asks || enabled.contains(&Key::new("", &lacking.pod.namespace));
            lacking.filter(should).cloned().collect()
        })
    }

    /// The pods with annotations that nobody reads.
    pub fn misspelt(&self) -> Vec<Arc<Misspelt>> {
        self.0.with(|Told { pods, .. }| {
            let alive = pods.values().filter(|known| known.is_alive);
            alive.filter_map(|known| known.misspelt.clone()).collect()
        })
    }

    /// A pod that is there in a test, with a uid of its own name.
    #[cfg(test)]
    pub(crate) fn with(self, namespace: &str, name: &str, account: &str) -> Self {
        let known =
            Known { uid: name.into(), account: account.into(), is_alive: true, lacks_sidecar: None, misspelt: None };
        self.put(Key::new(namespace, name), Aside::Pod(known));
        self
    }

    pub(super) fn put(&self, key: Key, aside: Aside) {
        self.0.with(|told| match aside {
            Aside::Pod(known) => drop(told.pods.insert(key, known)),
            Aside::Enabled(true) => drop(told.enabled.insert(key)),
            Aside::Enabled(false) => drop(told.enabled.remove(&key)),
        });
    }

    /// Forgets the object of that kind.
    pub(super) fn remove(&self, kind: &str, key: &Key) {
        self.0.with(|told| match kind {
            POD => drop(told.pods.remove(key)),
            NAMESPACE => drop(told.enabled.remove(key)),
            _ => {}
        });
    }
}
