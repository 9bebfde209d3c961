//! Namespaces: of each whether its pods are to have sidecars.

use selvedge_inject::switch::{ENABLED, SYSTEM_NAMESPACES};
use serde::Deserialize;

use super::pruned::{Api, Aside, Key, Pruned, Version};
use crate::source::Reading;

/// What the mesh needs to know of a namespace.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Namespace {
    metadata: Metadata,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    resource_version: Version,
    #[serde(default)]
    labels: Labels,
}

/// Those that the mesh looks at.
#[derive(Clone, Debug, Default, Deserialize)]
struct Labels {
    #[serde(default, rename = "selvedge.dev/inject")]
    inject: String,
}

impl Pruned for Namespace {
    fn key(&self) -> Key {
        Key::new("", &self.metadata.name)
    }

    fn version(&self) -> Version {
        self.metadata.resource_version.clone()
    }

    fn aside(&self) -> Option<Aside> {
        let Metadata { name, labels, .. } = &self.metadata;
        Some(Aside::Enabled(labels.inject == ENABLED && !SYSTEM_NAMESPACES.contains(&name.as_str())))
    }

    fn reading(self, _: &Api) -> Reading {
        Reading::default()
    }
}
