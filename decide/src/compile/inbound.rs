//! The calls that a workload receives: each port of its application, with everything that covers it.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_policies::{
    policy::{Place, Posture, RequestPolicy},
    registry,
    request::PolicySet,
    settings::Settings,
};
use selvedge_xds::proto::mesh::{self, Attachment};

use super::{
    attached::{apart, read, sorted, unsound, with_content_in_bounds},
    routes,
};
use crate::config::{AppProtocol, InboundPort};

/// Each port once, by number. Several services, or several ports of one, may stand for one port of the application, and a
/// caller could name whichever suits it: what is attached to any of them covers every call.
///
/// ```
/// use selvedge_decide::compile::by_number;
/// use selvedge_xds::proto::mesh::InboundPort;
///
/// let port = |service: &str| InboundPort { port: 8080, service: service.into(), ..InboundPort::default() };
/// let merged = by_number(&[port("shop/web"), port("shop/web-v1")]);
/// assert_eq!((merged.len(), &*merged[0].service), (1, "shop/web"));
/// ```
pub fn by_number(ports: &[mesh::InboundPort]) -> Vec<mesh::InboundPort> {
    let mut merged: BTreeMap<u32, mesh::InboundPort> = BTreeMap::new();
    for port in ports {
        let whole = merged.entry(port.port).or_insert_with(|| mesh::InboundPort {
            policies: Vec::new(),
            routes: Vec::new(),
            ..port.clone()
        });
        if whole.app_protocol.is_empty() {
            whole.app_protocol.clone_from(&port.app_protocol);
        }
        for (into, from) in [(&mut whole.policies, &port.policies), (&mut whole.routes, &port.routes)] {
            let new: Vec<_> = from.iter().filter(|attachment| !into.contains(attachment)).cloned().collect();
            into.extend(new);
        }
    }
    merged.into_values().collect()
}

/// The policies that cover a port, in the order in which they decide.
pub(crate) fn in_order<'a>(inbound: &'a mesh::Inbound, port: &'a mesh::InboundPort) -> Vec<&'a Attachment> {
    sorted(inbound.policies.iter().chain(&port.policies).collect())
}

/// One port, with what covers the whole workload.
pub(super) fn compile(
    inbound: &mesh::Inbound,
    port: &mesh::InboundPort,
    before: &PolicySet,
) -> Result<InboundPort, String> {
    let (attachments, refused) = apart(inbound.policies.iter().chain(&port.policies));
    let documents = attachments.iter().map(|attachment| read(attachment)).collect::<Result<Vec<_>, _>>()?;
    let policies = registry::compile(Place::Called, &documents, posture(inbound)?, before);
    let policies = policies.map_err(|found| unsound(&attachments, &found))?;
    let others = inbound.ports.iter().filter(|other| other.port == port.port && other.service != port.service);
    let mut other_services: Vec<_> = others.filter_map(|other| other.service.parse().ok()).collect();
    other_services.dedup();
    Ok(InboundPort {
        service: port.service.parse().ok(),
        other_services,
        protocol: AppProtocol::of(&port.app_protocol),
        routes: routes::table(&port.routes)?,
        policies: Arc::new(with_content_in_bounds(policies.and(decisions(inbound)?))?.refusing(refused)),
        ambiguous_paths: settings(inbound)?.modes().ambiguous_paths,
    })
}

/// A port that refuses everything, because nobody knows what its policies would let pass.
pub(super) fn closed(inbound: &mesh::Inbound) -> InboundPort {
    let refusing = PolicySet::new().refusing([inbound.workload.as_str().into()]);
    InboundPort { policies: Arc::new(refusing), ..InboundPort::default() }
}

/// What the mesh policies of the workload say; nothing where the control plane is older.
fn settings(inbound: &mesh::Inbound) -> Result<Settings, String> {
    if inbound.settings.is_empty() {
        return Ok(Settings::default());
    }
    serde_json::from_str(&inbound.settings).map_err(|error| format!("settings of {}: {error}", inbound.workload))
}

/// What the settings of the workload decide.
fn decisions(inbound: &mesh::Inbound) -> Result<Vec<Arc<dyn RequestPolicy>>, String> {
    let own = inbound.identity.parse().ok().map(Arc::new);
    let decisions = settings(inbound)?.policies(own.as_ref());
    decisions.map_err(|error| format!("settings of {}: {error}", inbound.workload))
}

/// A posture this sidecar does not know must not be taken for leave.
pub(crate) fn posture(inbound: &mesh::Inbound) -> Result<Posture, String> {
    match inbound.posture.as_str() {
        "deny" => Ok(Posture::Deny),
        "" | "allow" if settings(inbound)?.modes().posture == Posture::Audit => Ok(Posture::Audit),
        "" | "allow" => Ok(Posture::Allow),
        other => Err(format!("posture '{other}' is not known to this version of the sidecar")),
    }
}

#[cfg(test)]
mod tests {
    use selvedge_policies::{
        reason::Reason,
        testing::{Clock, Request},
        verdict::Verdict,
    };

    use super::*;

    #[test]
    fn what_stands_for_a_policy_that_cannot_be_enforced_refuses_in_its_name() {
        let object = |kind: &str| mesh::Origin {
            kind: kind.into(),
            namespace: "shop".into(),
            name: "jwt".into(),
            generation: 1,
        };
        let stand_in = Attachment {
            origin: Some(object("AuthorizationPolicy")),
            document: r#"{"action": "DENY", "rules": [{}]}"#.into(),
            stands_for: Some(object("TokenAuthentication")),
        };
        let inbound = mesh::Inbound { policies: vec![stand_in], ..Default::default() };
        let port = compile(&inbound, &mesh::InboundPort::default(), &PolicySet::new()).unwrap();
        let (mut context, request) = (Clock::default().context(), Request::new("GET", "/"));
        let connection = request.connection();
        let Verdict::Answer(answer) = port.policies.on_connection(&connection, &mut context) else {
            panic!("it passed")
        };
        assert_eq!((answer.reason, &*answer.policy), (Some(Reason::PolicyUnenforceable), "shop/jwt"));
        assert!(port.policies.on_open_connection(&connection, &mut context).is_some(), "open ones end");
    }

    #[test]
    fn settings_that_decide_are_not_left_out_where_they_cannot_be_read() {
        let compiled = |settings: &str| {
            let inbound = mesh::Inbound { settings: settings.into(), ..Default::default() };
            compile(&inbound, &mesh::InboundPort::default(), &PolicySet::new()).map(drop)
        };
        compiled(r#"{"callerIdentity": {"headers": {"x-caller": "SET"}}, "ofTomorrow": 1}"#).unwrap();
        let why = compiled(r#"{"callerIdentity": {"headers": {"x-caller": "ASK"}}}"#).unwrap_err();
        assert!(why.contains("ASK"), "{why}");
    }

    #[test]
    fn the_first_protocol_that_a_service_behind_a_port_names_is_the_port_s() {
        let port = |app_protocol: &str| mesh::InboundPort {
            port: 8080,
            app_protocol: app_protocol.into(),
            ..Default::default()
        };
        for (ports, expected) in [(["", "grpc"], "grpc"), (["grpc", ""], "grpc"), (["http", "grpc"], "http")] {
            assert_eq!(by_number(&ports.map(port))[0].app_protocol, expected, "{ports:?}");
        }
    }

    #[test]
    fn policies_of_every_service_behind_a_port_cover_it() {
        let attachment = |document: &str| Attachment { document: document.into(), ..Default::default() };
        let port = |service: &str, policies: &[&str]| mesh::InboundPort {
            port: 8080,
            service: service.into(),
            policies: policies.iter().map(|document| attachment(document)).collect(),
            ..Default::default()
        };
        let merged = by_number(&[port("shop/web", &["a", "b"]), port("shop/web-v1", &["b", "c"])]);
        let documents: Vec<_> = merged[0].policies.iter().map(|policy| &*policy.document).collect();
        assert_eq!((merged.len(), &*merged[0].service, documents), (1, "shop/web", vec!["a", "b", "c"]));
    }
}
