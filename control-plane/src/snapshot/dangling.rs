//! Finds references from one resource to another that is not there.

use std::{collections::BTreeMap, fmt, sync::Arc};

use prost::Message;
use selvedge_policies::names::{self, PortName, ServiceName};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS},
    proto::mesh::Destination,
    resource::{Encoded, TypeUrl},
};

use super::Snapshot;

/// A reference to a resource that the snapshot does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dangling {
    /// Canonical name of the destination that refers.
    pub from: String,
    /// Name of the missing endpoints resource.
    pub missing: String,
}

impl fmt::Display for Dangling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "destination '{}' needs endpoints '{}', which are not there", self.from, self.missing)
    }
}

/// Checks the destinations that changed, and those whose endpoints were taken away.
pub(super) fn find(
    snapshot: &Snapshot,
    touched: &BTreeMap<(TypeUrl, Arc<str>), Option<Arc<Encoded>>>,
) -> Vec<Dangling> {
    let mut dangling = Vec::new();
    for ((kind, name), resource) in touched {
        match (*kind, resource) {
            (DESTINATION, Some(destination)) => check(snapshot, destination, &mut dangling),
            (ENDPOINTS, None) => {
                let Ok(PortName { service, .. }) = name.parse() else { continue };
                let untouched = !touched.contains_key(&(DESTINATION, service.text().clone()));
                if let Some(destination) = snapshot.get(DESTINATION, service.text()).filter(|_| untouched) {
                    check(snapshot, &destination, &mut dangling);
                }
            }
            _ => {}
        }
    }
    dangling.dedup();
    dangling
}

fn check(snapshot: &Snapshot, destination: &Encoded, dangling: &mut Vec<Dangling>) {
    let name = names::viewed(&destination.name).map_or(&*destination.name, |(service, _)| service);
    let Ok(service) = name.parse::<ServiceName>() else { return };
    for port in ports(destination) {
        let missing = service.port(port).to_string();
        if snapshot.get(ENDPOINTS, &missing).is_none() {
            dangling.push(Dangling { from: destination.name.clone(), missing });
        }
    }
}

/// The ports of an encoded destination.
pub(super) fn ports(destination: &Encoded) -> Vec<u16> {
    let ports = Destination::decode(destination.body.clone()).map(|message| message.ports).unwrap_or_default();
    ports.iter().filter_map(|port| u16::try_from(port.port).ok()).collect()
}
