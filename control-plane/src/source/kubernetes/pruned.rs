//! Objects of a cluster without what only the cluster needs.

use std::{fmt, sync::Arc};

use selvedge_inject::warning::Warning;
use serde::{Deserialize, de::DeserializeOwned};

use crate::source::Reading;

/// The kind of pods.
pub(super) const POD: &str = "Pod";
/// The kind of namespaces.
pub(super) const NAMESPACE: &str = "Namespace";

/// A kind, and where the API server lists all of it.
#[derive(Clone, Debug)]
pub struct Api {
    /// The kind, as objects name it.
    pub kind: &'static str,
    /// Its API group and version, as objects name them.
    pub api_version: &'static str,
    /// Where the API server lists the objects of all namespaces.
    pub path: String,
}

/// Namespace and name of an object of a kind, written `namespace/name`; of one without namespace its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(Arc<str>);

/// `metadata.resourceVersion`: from where a watch goes on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Version(String);

/// What is known of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Told apart from pods of the same name before and after it by this.
    pub uid: Arc<str>,
    /// The name of its service account.
    pub account: Arc<str>,
    /// True until all its containers have ended for good.
    pub is_alive: bool,
    /// What there is to say when it is without a sidecar that it may be asked to have.
    pub lacks_sidecar: Option<Arc<Lacking>>,
    /// What there is to say of annotations that nobody reads.
    pub misspelt: Option<Arc<Misspelt>>,
}

/// What an object says beside what the mesh takes of it, for who asks about the cluster itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Aside {
    /// What is known of a pod.
    Pod(Known),
    /// Whether the pods of a namespace are to have sidecars.
    Enabled(bool),
}

/// Which pod it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The namespace that it is in (`metadata.namespace`).
    pub namespace: String,
    /// Its name among the pods there (`metadata.name`).
    pub name: String,
    /// Told apart from pods of the same name before and after it by this.
    pub uid: Arc<str>,
}

/// A pod with annotations that nobody reads, though they are written to the injector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspelt {
    /// The pod that has them.
    pub pod: Named,
    /// What there is to say of the first of them, each by its key.
    pub said: Vec<Warning>,
}

/// A pod without a sidecar, into which one could be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// The pod without it.
    pub pod: Named,
    /// True when its own label asks for a sidecar, wherever it is.
    pub asks: bool,
}

/// What one object of a kind is to this source, pruned while it is read.
pub(super) trait Pruned: DeserializeOwned + Clone + Send + 'static {
    /// Its namespace and name.
    fn key(&self) -> Key;
    /// Its version.
    fn version(&self) -> Version;
    /// What it says of the cluster itself; told before what the mesh takes of it.
    fn aside(&self) -> Option<Aside> {
        None
    }
    /// What the mesh takes of it.
    fn reading(self, api: &Api) -> Reading;
}

impl Key {
    /// The object as people and the store know it.
    pub(super) fn of(&self, kind: &str) -> Arc<str> {
        format!("{kind} {self}").into()
    }

    /// The kind and the object that [`Self::of`] made this of.
    pub(super) fn told(origin: &str) -> (&str, Self) {
        origin.split_once(' ').map_or((origin, Self(Arc::default())), |(kind, key)| (kind, Self(key.into())))
    }

    pub(super) fn new(namespace: &str, name: &str) -> Self {
        if namespace.is_empty() { Self(name.into()) } else { Self(format!("{namespace}/{name}").into()) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Version {
    pub(super) fn new(version: String) -> Self {
        Self(version)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// True when both are numbers, as API servers write them (KEP-5504), and this is the greater.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        self.number().zip(other.number()).map_or(self != other, |(this, other)| this > other)
    }

    /// True when both are numbers, and this is the lesser: of others nobody can tell.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        self.number().zip(other.number()).is_some_and(|(this, other)| this < other)
    }

    fn number(&self) -> Option<u128> {
        self.0.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_numbers_compare_as_numbers_and_others_by_being_others() {
        let version = |text: &str| Version::new(text.to_owned());
        assert!(version("10").is_newer_than(&version("9")) && !version("9").is_newer_than(&version("10")));
        assert!(!version("9").is_newer_than(&version("9")));
        assert!(version("b").is_newer_than(&version("a")) && version("a").is_newer_than(&version("b")));
        assert!(!version("a").is_newer_than(&version("a")));
        assert!(version("9").is_older_than(&version("10")) && !version("9").is_older_than(&version("9")));
        assert!(!version("a").is_older_than(&version("b")) && !version("1").is_older_than(&version("b")));
    }
}
