//! Who refers to whom, and who claims which address: what an object has to do with the others beside labels and targets.
//!
//! Two objects that claim one address are a mistake, or an attempt to draw the calls of another.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use selvedge_policies::names::service_of_host;

use super::{
    Object, ObjectId, Spec, Target,
    endpoint_slice::{EndpointSliceSpec, SliceEndpoint},
    external_service::ExternalServiceSpec,
    workload::WorkloadSpec,
};
use crate::few::Few;

/// The claims and references of all objects.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    services: HashMap<IpAddr, Few<ObjectId>>,
    workloads: HashMap<SocketAddr, Few<ObjectId>>,
    externals: HashMap<IpAddr, Few<ObjectId>>,
    referring: HashMap<Target, BTreeSet<ObjectId>>,
    standing: HashMap<IpAddr, Few<ObjectId>>,
    pointing: HashMap<IpAddr, Few<ObjectId>>,
}

impl Claims {
    /// The services with this `clusterIP`, in the order in which they answer to it.
    pub fn services(&self, address: IpAddr) -> impl Iterator<Item = &ObjectId> {
        self.services.get(&address).into_iter().flat_map(Few::iter)
    }

    /// The `ExternalService` objects with an endpoint at this address.
    pub fn externals(&self, address: IpAddr) -> impl Iterator<Item = &ObjectId> {
        self.externals.get(&address).into_iter().flat_map(Few::iter)
    }

    /// The objects that name this target.
    pub fn referring(&self, target: &Target) -> impl Iterator<Item = &ObjectId> {
        self.referring.get(target).into_iter().flatten()
    }

    /// The workloads at this address, on whatever port.
    pub fn standing(&self, address: IpAddr) -> impl Iterator<Item = &ObjectId> {
        self.standing.get(&address).into_iter().flat_map(Few::iter)
    }

    /// The `EndpointSlice` objects that say of an endpoint no more than this address.
    pub fn pointing(&self, address: IpAddr) -> impl Iterator<Item = &ObjectId> {
        self.pointing.get(&address).into_iter().flat_map(Few::iter)
    }

    /// The object of the mesh that an endpoint of an `ExternalService` is the address of.
    pub fn owner(&self, spec: &ExternalServiceSpec, endpoint: usize) -> Option<&ObjectId> {
        let endpoint = spec.endpoints.get(endpoint)?;
        let address: IpAddr = endpoint.address.parse().ok()?;
        let mut sockets = spec.ports.iter().map(|port| SocketAddr::new(address, endpoint.port.unwrap_or(port.port)));
        self.services(address).next().or_else(|| sockets.find_map(|socket| self.workloads.get(&socket)?.iter().last()))
    }

    /// Adds what `object` claims and names, or takes it away.
    pub(super) fn index(&mut self, object: &Object, add: bool) {
        let id = &object.id;
        match &object.spec {
            Spec::Service(spec) => {
                for address in spec.addresses() {
                    claim(&mut self.services, address, id.clone(), add);
                }
            }
            Spec::Workload(spec) => {
                for socket in sockets(spec) {
                    claim(&mut self.workloads, socket, id.clone(), add);
                }
                for address in spec.ips() {
                    claim(&mut self.standing, address, id.clone(), add);
                }
            }
            Spec::ExternalService(spec) => {
                for address in spec.endpoints.iter().filter_map(|endpoint| endpoint.address.parse().ok()) {
                    claim(&mut self.externals, address, id.clone(), add);
                }
            }
            Spec::EndpointSlice(spec) => {
                let bare = spec.endpoints.iter().filter(|endpoint| endpoint.pod().is_none());
                for address in bare.filter_map(SliceEndpoint::ip) {
                    claim(&mut self.pointing, address, id.clone(), add);
                }
            }
            Spec::Node(_) | Spec::MeshPolicy(_) | Spec::ReferenceGrant(_) | Spec::Attached(_) => {}
        }
        for target in named(object) {
            set(&mut self.referring, target, id.clone(), add);
        }
    }
}

/// On a machine that several workloads share only address and port together tell them apart.
fn sockets(spec: &WorkloadSpec) -> BTreeSet<SocketAddr> {
    let ports = spec.ports.iter().flat_map(|port| [port.port, spec.dial(port.port)]);
    ports.flat_map(|port| spec.ips().map(move |address| SocketAddr::new(address, port))).collect()
}

/// Everything that `object` names, or would answer to beside.
fn named(object: &Object) -> BTreeSet<Target> {
    let ObjectId { namespace, name, .. } = &object.id;
    match &object.spec {
        Spec::Attached(attached) => attached.references.iter().map(|reference| reference.to.clone()).collect(),
        Spec::MeshPolicy(spec) => spec.target_ref.iter().filter_map(|target| target.target(namespace)).collect(),
        Spec::ExternalService(spec) => {
            let shadowed = spec.hosts.iter().filter_map(|host| service_of_host(host));
            let shadowed = shadowed.map(|(namespace, name)| Target::Service(namespace.into(), name.into()));
            shadowed.chain([Target::Service(namespace.clone(), name.clone())]).collect()
        }
        Spec::EndpointSlice(spec) => {
            let pods = spec.endpoints.iter().filter_map(SliceEndpoint::pod);
            let pods = pods.map(|name| Target::Workload(namespace.clone(), name.into()));
            let service = EndpointSliceSpec::service(&object.labels);
            pods.chain(service.map(|name| Target::Service(namespace.clone(), name.into()))).collect()
        }
        Spec::Service(_) | Spec::Workload(_) | Spec::Node(_) | Spec::ReferenceGrant(_) => BTreeSet::new(),
    }
}

/// Notes that `id` claims `key`, or that it does no more.
fn claim<K: std::hash::Hash + Eq>(index: &mut HashMap<K, Few<ObjectId>>, key: K, id: ObjectId, add: bool) {
    if add {
        index.entry(key).or_default().insert(id);
    } else if let Some(ids) = index.get_mut(&key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(&key);
        }
    }
}

/// Adds a value to those of a key in an index, or takes it away.
pub(super) fn set<K: std::hash::Hash + Eq, V: Ord>(index: &mut HashMap<K, BTreeSet<V>>, key: K, value: V, add: bool) {
    if add {
        index.entry(key).or_default().insert(value);
    } else if let Some(values) = index.get_mut(&key) {
        values.remove(&value);
        if values.is_empty() {
            index.remove(&key);
        }
    }
}
