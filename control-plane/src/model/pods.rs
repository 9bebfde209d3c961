//! Which pods of namespaces have sidecars, and which are to have none. A copy is cheap.

use std::{net::IpAddr, sync::Arc};

use selvedge_inject::switch::{DISABLED, LABEL};

use super::{Object, Spec};
use crate::shared::Shared;

/// All pods that have an address.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    /// By namespace and name.
    all: Shared<(Arc<str>, Arc<str>), Pod>,
}

/// What is to be known of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its address, which is that of its node where it has none of its own.
    pub address: IpAddr,
    /// When it was made, in seconds since the Unix epoch; one of the same name may have been there before.
    pub created: Option<u64>,
    /// Whether a sidecar stands before it.
    pub standing: Standing,
}

/// Whether a sidecar stands before a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// One does.
    Meshed,
    /// None does, and nobody says that this is meant.
    Bare,
    /// It shares its node's network, where no sidecar can be.
    HostNetwork,
    /// Its label says that it is to have none.
    Disabled,
}

impl Standing {
    /// Of a pod that is to have no sidecar, why; `None` of any other.
    pub fn why_left_out(self) -> Option<&'static str> {
        match self {
            Self::Meshed | Self::Bare => None,
            Self::HostNetwork => Some("it shares its node's network, where no sidecar can be"),
            Self::Disabled => Some("its label selvedge.dev/inject: disabled"),
        }
    }
}

impl Pods {
    /// Namespace and name of each pod, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, Pod)> {
        self.all.iter().map(|((namespace, name), pod)| (&**namespace, &**name, *pod))
    }

    /// Adds `object` where it is a pod, or takes it away.
    pub(super) fn index(&mut self, object: &Object, add: bool) {
        let Spec::Workload(spec) = &object.spec else { return };
        if !spec.pod {
            return;
        }
        let key = (object.id.namespace.clone(), object.id.name.clone());
        if !add {
            self.all.remove(&key);
            return;
        }
        let is_disabled = object.labels.get(LABEL).is_some_and(|said| said == DISABLED);
        let standing = match spec.sidecar {
            true => Standing::Meshed,
            false if spec.host_network => Standing::HostNetwork,
            false if is_disabled => Standing::Disabled,
            false => Standing::Bare,
        };
        self.all.insert(key, Pod { address: spec.ip(), created: object.created, standing });
    }
}
