//! A workload's own address, as callers see it who dial it and no service: what answers on each port is the workload
//! itself, with the settings of the service that it stands behind there.

use std::{collections::BTreeMap, net::IpAddr};

use selvedge_xds::proto::mesh::{AddressPort, Destination};

use super::{Mesh, destination, origin};
use crate::model::{Model, Object, service::ServicePort, workload::WorkloadSpec};

/// What answers at an address; `None` where no workload with a sidecar is.
pub(super) fn compile(model: &Model, mesh: &Mesh, ip: IpAddr) -> Option<Destination> {
    let there = model.claims().standing(ip).filter_map(|id| model.workload(&id.namespace, &id.name));
    let there = owners(there.collect());
    let (first, _) = there.iter().find(|(_, workload)| workload.sidecar)?;
    let mut claims: BTreeMap<u16, (u8, Option<AddressPort>)> = BTreeMap::new();
    for (object, workload) in &there {
        for port in ports_of(model, mesh, object, workload, ip) {
            let number = u16::try_from(port.port).unwrap_or_default();
            let rank = workload.rank();
            // Of two of one rank without a sidecar nobody can tell which is called.
            let undecided = |(first, known): &mut (u8, Option<AddressPort>)| {
                if *first == rank && !known.as_ref().is_some_and(is_proven) {
                    *known = None;
                }
            };
            claims.entry(number).and_modify(undecided).or_insert((rank, Some(port)));
        }
    }
    let mut ports: BTreeMap<u16, AddressPort> =
        claims.into_iter().filter_map(|(number, (_, port))| Some((number, port?))).collect();
    // Where the ports with a sidecar are listed, or pods share the address of their node, what else is called there is not
    // known.
    if let [(object, workload), others @ ..] = there.as_slice()
        && workload.sidecar
        && there.iter().all(|(_, workload)| workload.is_captured())
        && (others.is_empty() || there.iter().all(|(_, workload)| !workload.pod))
    {
        let endpoint = Some(destination::at(model, mesh, object, workload, ip, 0));
        ports.insert(0, AddressPort { endpoint, ..Default::default() });
        let direct = workload.direct_ports.iter().copied();
        let direct: Vec<u16> = direct.filter(|port| !ports.get(port).is_some_and(is_proven)).collect();
        ports.extend(direct.into_iter().map(|port| (port, AddressPort { port: port.into(), ..Default::default() })));
    }
    let address_ports = ports.into_values().collect();
    Some(Destination { address_ports, origin: Some(origin(first)), ..Default::default() })
}

/// True for a port that is called over mTLS, as one workload and no other.
fn is_proven(port: &AddressPort) -> bool {
    port.endpoint.as_ref().is_some_and(|endpoint| !endpoint.identity.is_empty())
}

/// Those of the workloads at one address that have it, those first that are called where several have a port.
///
/// A cluster gives an address to one pod at a time, so where a pod with a sidecar is, nothing else counts: another claim would
/// let calls go past that sidecar in plaintext. Of two pods one is gone already, and the newer one has the address.
fn owners<'a>(mut there: Vec<(&'a Object, &'a WorkloadSpec)>) -> Vec<(&'a Object, &'a WorkloadSpec)> {
    let pods = there.iter().filter(|(_, workload)| workload.pod);
    if pods.clone().any(|(_, pod)| pod.sidecar) {
        return pods.max_by_key(|(object, _)| object.created).map(|newest| vec![*newest]).unwrap_or_default();
    }
    there.sort_by_key(|(_, workload)| workload.rank());
    there
}

/// The ports that a workload or a service before it names, each once. Of several services the first by name counts.
fn ports_of(model: &Model, mesh: &Mesh, object: &Object, workload: &WorkloadSpec, ip: IpAddr) -> Vec<AddressPort> {
    let services = model.selecting(&object.id.namespace, &object.labels);
    let mut numbers: BTreeMap<u16, Option<(&Object, &ServicePort)>> =
        workload.ports.iter().map(|port| (port.port, None)).collect();
    for (service, spec) in services {
        for port in spec.carried() {
            let Some(number) = port.target(workload) else { continue };
            numbers.entry(number).or_default().get_or_insert((service, port));
        }
    }
    let port = |(number, service): (u16, Option<(&Object, &ServicePort)>)| {
        let endpoint = Some(destination::at(model, mesh, object, workload, ip, number));
        let bare = AddressPort { port: number.into(), endpoint, ..Default::default() };
        let Some((service, port)) = service else { return bare };
        AddressPort {
            service: service.id.path(),
            app_protocol: destination::protocol(port),
            policies: destination::settings(model, service),
            ..bare
        }
    };
    numbers.into_iter().map(port).collect()
}
