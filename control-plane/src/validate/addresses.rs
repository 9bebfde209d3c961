//! Who claims which address: two objects that claim one are a mistake, or an attempt to draw the calls of another.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use crate::model::{Model, ObjectId, Spec, external_service::ExternalServiceSpec};

/// The claims of all objects.
#[derive(Default)]
pub(super) struct Addresses<'a> {
    services: HashMap<IpAddr, BTreeSet<&'a ObjectId>>,
    workloads: HashMap<SocketAddr, &'a ObjectId>,
}

impl<'a> Addresses<'a> {
    pub(super) fn of(model: &'a Model) -> Self {
        let mut addresses = Self::default();
        for object in model.objects() {
            match &object.spec {
                Spec::Service(spec) => {
                    for address in spec.addresses() {
                        addresses.services.entry(address).or_default().insert(&object.id);
                    }
                }
                Spec::Workload(spec) => {
                    // On a machine that several workloads share only address and port together tell them apart.
                    let ports = spec.ports.iter().flat_map(|port| [port.port, spec.dial(port.port)]);
                    let sockets = ports.map(|port| (SocketAddr::new(spec.ip(), port), &object.id));
                    addresses.workloads.extend(sockets);
                }
                _ => {}
            }
        }
        addresses
    }

    /// The services with this `clusterIP`, in the order in which they answer to it.
    pub(super) fn services(&self, address: IpAddr) -> impl Iterator<Item = &'a ObjectId> + use<'a, '_> {
        self.services.get(&address).into_iter().flatten().copied()
    }

    /// The object of the mesh that an endpoint of an `ExternalService` is the address of.
    pub(super) fn owner(&self, spec: &ExternalServiceSpec, endpoint: usize) -> Option<&'a ObjectId> {
        let endpoint = spec.endpoints.get(endpoint)?;
        let address: IpAddr = endpoint.address.parse().ok()?;
        let mut sockets = spec.ports.iter().map(|port| SocketAddr::new(address, endpoint.port.unwrap_or(port.port)));
        self.services(address).next().or_else(|| sockets.find_map(|socket| self.workloads.get(&socket).copied()))
    }
}
