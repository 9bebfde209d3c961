//! Where an object comes from, down to the field as far as that is known.

use std::{ops::Range, sync::Arc};

use selvedge_policies::finding::Code;

use super::files::Node;
use crate::diagnostic::{Diagnostic, Place, Severity};

/// What tells one origin from another: a source, and what the source calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The name of the source ([`Source::name`](super::Source::name)).
    pub source: Arc<str>,
    /// What the source tells of as one: the path of a file, an object of a cluster.
    pub name: Arc<str>,
}

/// Where one version of an object comes from.
#[derive(Clone, Debug)]
pub enum Provenance {
    /// It was written into a file.
    File(Written),
    /// It is an object of a cluster.
    Cluster(ClusterObject),
    /// It was in force before the control plane was started; what is known is the origin.
    Remembered(Arc<str>),
}

/// A document in a file.
#[derive(Clone, Debug)]
pub struct Written {
    pub(super) file: Arc<str>,
    pub(super) text: Arc<str>,
    pub(super) node: Arc<Node>,
}

/// One version of an object of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterObject {
    /// The cluster, and the object in words a user knows.
    pub name: Arc<str>,
    /// What tells it from an earlier object of its name (`metadata.uid`).
    pub uid: Arc<str>,
    /// Its version, opaque, as the cluster counts (`metadata.resourceVersion`).
    pub resource_version: Arc<str>,
    /// Who wrote this version last: the newest of `metadata.managedFields` that is not about its status; empty when it does not
    /// say.
    pub manager: Arc<str>,
    /// How often its `spec` has changed, as the cluster counts (`metadata.generation`).
    pub generation: u64,
}

impl Provenance {
    /// What the source calls it: the path of a file, an object of a cluster.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::File(written) => &written.file,
            Self::Cluster(object) => &object.name,
            Self::Remembered(name) => name,
        }
    }

    /// True when both are one version of one object in one place, so that nothing can have changed.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => Arc::ptr_eq(&one.node, &other.node),
            (Self::Cluster(one), Self::Cluster(other)) => one == other,
            _ => false,
        }
    }

    /// The place of a field, as `spec.rules[0].to`.
    pub fn place(&self, path: &str) -> Place {
        match self {
            Self::File(written) => written.at(written.node.locate(path, false)),
            Self::Cluster(_) | Self::Remembered(_) => Place::file(self.name()),
        }
    }

    /// A complaint at a field.
    pub fn finding(&self, code: Code, severity: Severity, path: &str, message: impl Into<String>) -> Diagnostic {
        let message = message.into();
        let place = match self {
            Self::File(written) => written.at(written.node.locate(path, message.starts_with("unknown field"))),
            Self::Cluster(_) | Self::Remembered(_) => Place::file(self.name()),
        };
        Diagnostic::new(code, severity, place, message).field(path)
    }
}

impl Written {
    pub(super) fn at(&self, span: Range<usize>) -> Place {
        Place::new(&self.file, &self.text, span)
    }
}
