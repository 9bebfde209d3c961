//! What is shown at zero before anything of it has happened: a rate sees a burst only in a series that was there before it.

use selvedge_decide::config::{AppProtocol, Destination, RuntimeConfig};
use selvedge_policies::{
    names::{self, WorkloadName},
    registry,
};
use selvedge_xds::proto::mesh::Attachment;

use super::{
    Direction,
    metrics::{self, Metric},
};

/// The series that a configuration makes known: each a metric and the values of all labels but the last, whose values are
/// [known](Metric::zeros).
#[derive(Debug)]
pub(super) struct Configured(pub(super) Vec<(&'static Metric, Vec<Box<str>>)>);

impl Default for Configured {
    /// What there is without any configuration: the reasons, and what becomes of events for the audit log.
    fn default() -> Self {
        let reasons = [Direction::Inbound, Direction::Outbound].map(|direction| (&metrics::REASONS_SEEN, direction));
        let reasons = reasons.map(|(metric, direction)| (metric, vec![direction.as_str().into()]));
        Self(reasons.into_iter().chain([(&metrics::AUDIT_EVENTS, Vec::new())]).collect())
    }
}

impl Configured {
    /// The edges to the services that may be called, their retries, and the policies at both ends.
    pub(super) fn of(config: &RuntimeConfig) -> Self {
        let mut known = Self::default();
        if let Some(inbound) = &config.resources.inbound {
            let posture = vec![Direction::Inbound.as_str().into(), "".into()];
            known.0.push((&metrics::POLICY_ACTIONS, posture));
            let of_ports = inbound.ports.iter().flat_map(|port| &port.policies);
            known.policies(Direction::Inbound, inbound.policies.iter().chain(of_ports));
        }
        for destination in config.resources.destinations.values() {
            known.policies(Direction::Outbound, destination.value.policies.iter());
        }
        let mut called: Vec<&Destination> = config.destinations.values().map(AsRef::as_ref).collect();
        called.sort_unstable_by_key(|destination| &destination.service);
        called.iter().for_each(|destination| known.edge(config, destination));
        known
    }

    fn edge(&mut self, config: &RuntimeConfig, destination: &Destination) {
        let own = &config.own;
        let (workload, namespace) =
            own.workload.as_ref().map_or(("", ""), |name| (WorkloadName::name(name), name.namespace()));
        let edge = [Direction::Outbound.as_str(), workload, namespace, &own.identity, &destination.service];
        let edge: Vec<Box<str>> = edge.map(Box::from).into();
        let is_opaque = |protocol| protocol == AppProtocol::Opaque;
        if destination.ports.values().any(|port| is_opaque(port.protocol)) {
            self.0.push((&metrics::EDGE_CONNECTIONS, edge.clone()));
        }
        if destination.ports.values().any(|port| !is_opaque(port.protocol)) {
            self.0.push((&metrics::EDGE_REQUESTS, edge));
            self.0.push((&metrics::RETRIES, vec![(*destination.service).into()]));
        }
    }

    /// Those that decide; settings do nothing to a request that could be counted.
    fn policies<'a>(&mut self, direction: Direction, attached: impl Iterator<Item = &'a Attachment>) {
        for origin in attached.filter_map(|attachment| attachment.origin.as_ref()) {
            if registry::find(&origin.kind).is_some_and(|kind| kind.phase().is_some()) {
                let policy = names::object(&origin.namespace, &origin.name);
                self.0.push((&metrics::POLICY_ACTIONS, vec![direction.as_str().into(), policy.into()]));
            }
        }
    }
}
