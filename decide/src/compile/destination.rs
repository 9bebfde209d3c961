//! A service that can be called: its routes, the policies of its callers, and how it is tried.

use std::{collections::HashMap, sync::Arc};

use selvedge_policies::{
    attempt::TrafficPolicySpec,
    kind,
    names::ServiceName,
    policy::{Place, Posture, Role},
    registry,
    request::PolicySet,
};
use selvedge_xds::{kinds::object, proto::mesh};

use super::{
    attached::{apart, describe, problems, read, unsound, with_content_in_bounds},
    routes, traffic,
};
use crate::config::{AppProtocol, Destination, DestinationPort, RuntimeConfig};

/// What callers go by; where its ports and backends lead is not known yet.
pub(super) fn compile(message: &mesh::Destination, before: &PolicySet) -> Result<Destination, String> {
    let (mut trying, mut deciding) = (Vec::new(), Vec::new());
    let (attachments, refused) = apart(message.policies.iter());
    for attachment in &attachments {
        let (kind, document) = read(attachment)?;
        match registry::find(&kind).map(|kind| kind.role) {
            Some(Role::Tries) => {
                kind::parse::<TrafficPolicySpec>(&document.spec)
                    .map_err(|found| problems(&describe(attachment), &found))?;
                trying.push((object(&attachment.origin.clone().unwrap_or_default()), document));
            }
            // What no policy of callers is, compiling refuses.
            Some(Role::Decides(..) | Role::Routes(_)) | None => deciding.push((kind, document)),
        }
    }
    let (traffic, traffic_from) = traffic::compile(&trying).map_err(|found| problems(&message.name, &found))?;
    let policies = registry::compile(Place::Caller, &deciding, Posture::Allow, before);
    let policies = policies.map_err(|found| unsound(&attachments, &found)).and_then(with_content_in_bounds)?;
    let number = |port: &mesh::Port| u16::try_from(port.port).unwrap_or_default();
    let unlinked = |port: &mesh::Port| DestinationPort { protocol: AppProtocol::of(&port.app_protocol), cluster: None };
    let ports: Vec<u16> = message.ports.iter().map(number).collect();
    let name = ServiceName::new(&message.namespace, &message.name);
    Ok(Destination {
        service: name.text().clone(),
        name,
        external: message.external,
        routes: routes::by_port(message, &ports)?,
        policies: Arc::new(policies.refusing(refused)),
        ports: message.ports.iter().map(|port| (number(port), unlinked(port))).collect(),
        backends: HashMap::new(),
        traffic: Arc::new(traffic),
        traffic_from,
    })
}

/// Leads the ports and backends of a destination to their endpoints in `config`.
pub(super) fn link(destination: &mut Destination, config: &RuntimeConfig) {
    for (number, port) in &mut destination.ports {
        port.cluster = config.link(&destination.name.port(*number));
    }
    for (called, routes) in &destination.routes {
        let links =
            routes.backends().map(|backend| config.link(&backend.service.port(backend.port.unwrap_or(*called))));
        destination.backends.insert(*called, links.collect());
    }
}
