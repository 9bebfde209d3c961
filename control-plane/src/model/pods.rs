//! How far the pods of namespaces have sidecars. A copy is cheap.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{Object, Spec};
use crate::shared::Shared;

/// All pods, by whether a sidecar stands before them.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    counts: Shared<Arc<str>, Counts>,
    /// Those without a sidecar, by namespace and name.
    bare: Shared<(Arc<str>, Arc<str>), IpAddr>,
}

/// How many pods a namespace has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pods that a sidecar stands before.
    pub meshed: usize,
    /// Pods that are called in plaintext.
    pub bare: usize,
}

/// A pod without a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bare<'a> {
    /// The namespace it is in.
    pub namespace: &'a str,
    /// Its name among the pods of the namespace.
    pub name: &'a str,
    /// Its address, which is that of its node where it has none of its own.
    pub address: IpAddr,
}

impl Pods {
    /// The namespaces that have pods.
    pub fn namespaces(&self) -> BTreeMap<&str, Counts> {
        self.counts.iter().map(|(namespace, counts)| (&**namespace, *counts)).collect()
    }

    /// The pods without a sidecar, in no particular order.
    pub fn bare(&self) -> impl Iterator<Item = Bare<'_>> {
        self.bare.iter().map(|((namespace, name), address)| Bare { namespace, name, address: *address })
    }

    /// Adds `object` where it is a pod, or takes it away.
    pub(super) fn index(&mut self, object: &Object, add: bool) {
        let Spec::Workload(spec) = &object.spec else { return };
        if !spec.pod {
            return;
        }
        let (namespace, name) = (&object.id.namespace, &object.id.name);
        let mut counts = self.counts.get(namespace).copied().unwrap_or_default();
        let count = if spec.sidecar { &mut counts.meshed } else { &mut counts.bare };
        *count = if add { *count + 1 } else { count.saturating_sub(1) };
        match counts {
            Counts { meshed: 0, bare: 0 } => self.counts.remove(namespace),
            counts => self.counts.insert(namespace.clone(), counts),
        };
        let key = (namespace.clone(), name.clone());
        match add && !spec.sidecar {
            true => self.bare.insert(key, spec.ip()),
            false => self.bare.remove(&key),
        };
    }
}
