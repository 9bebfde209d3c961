//! Which pods there are, for who has to know whether a pod is what it says.

use std::{collections::HashMap, sync::Arc};

use super::pruned::{Key, Known, Lacking};
use crate::guarded::Guarded;

/// The pods of a cluster as its watch tells of them.
#[derive(Clone, Debug, Default)]
pub struct Pods(Arc<Guarded<HashMap<Key, Known>>>);

impl Pods {
    /// The pod of that name, if it is known.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Known> {
        self.0.with(|pods| pods.get(&Key::new(namespace, name)).cloned())
    }

    /// The pods that run without the sidecar that they should have.
    pub fn without_sidecar(&self, is_enabled: impl Fn(&str) -> bool) -> Vec<Arc<Lacking>> {
        let should = |lacking: &&Arc<Lacking>| lacking.asks || is_enabled(&lacking.namespace);
        self.0.with(|pods| {
            let alive = pods.values().filter(|known| known.is_alive);
            alive.filter_map(|known| known.lacks_sidecar.as_ref()).filter(should).cloned().collect()
        })
    }

    /// A pod that is there in a test, with a uid of its own name.
    #[cfg(test)]
    pub(crate) fn with(self, namespace: &str, name: &str, account: &str) -> Self {
        let known = Known { uid: name.into(), account: account.into(), is_alive: true, lacks_sidecar: None };
        self.put(&Key::new(namespace, name), known);
        self
    }

    pub(super) fn put(&self, key: &Key, known: Known) {
        self.0.with(|pods| pods.insert(key.clone(), known));
    }

    pub(super) fn remove(&self, key: &Key) {
        self.0.with(|pods| pods.remove(key));
    }
}
