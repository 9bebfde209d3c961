//! The effective configuration for people: what `/config` shows.
//!
//! Guarantees:
//! - What is shown is in force: every policy and route is there as the document the user wrote, with the generation it
//!   was taken from, and next to it what it came to together with the defaults.
//! - Of settings, which are merged field by field, the object is named that each field somebody set is from.
//! - Keys, certificates and the values of header fields that carry credentials are not in it.
//! - Equal configurations read equal.

use std::time::Duration;

use selvedge_policies::{
    duration::Span,
    names::{ServiceName, WorkloadName},
};
use selvedge_xds::{
    kinds::object,
    proto::mesh::{self, Attachment},
};
use serde_json::{Map, Value, json};

use crate::{
    compile::{self, by_number, in_order},
    config::{
        AccessLogMode, CONNECT_TIMEOUT, ClusterConfig, Destination, EndpointConfig, InboundPort, RuntimeConfig,
        Traffic, Transport,
    },
};

/// `config` as JSON, maps in order of their keys.
///
/// ```
/// use selvedge_decide::{config::RuntimeConfig, describe::describe};
///
/// let shown = describe(&RuntimeConfig { permissive: true, ..RuntimeConfig::default() });
/// assert_eq!((&shown["generation"], &shown["outbound"]["mode"]), (&0.into(), &"REQUIRE".into()));
/// ```
pub fn describe(config: &RuntimeConfig) -> Value {
    let destinations = config.destinations.iter().map(|(name, found)| {
        let source = config.resources.destinations.get(&**name.text()).map(|versioned| &versioned.value);
        (name.to_string(), destination(found, source))
    });
    let clusters = config.clusters.iter().map(|found| (found.name.to_string(), cluster(found)));
    json!({
        "generation": config.generation,
        "workload": config.own.workload.as_ref().map(WorkloadName::to_string).unwrap_or_default(),
        "identity": config.own.identity,
        "locality": { "zone": config.own.locality.zone, "node": config.own.locality.node },
        "probers": config.own.probers,
        "accessLog": match config.access_log {
            AccessLogMode::Off => "off",
            AccessLogMode::Errors => "errors",
            AccessLogMode::All => "all",
        },
        "inbound": inbound(config),
        "outbound": {
            "mode": if config.passthrough { "PREFER" } else { "REQUIRE" },
            "meshNetworks": config.networks,
        },
        "settingsFrom": settings_from(config),
        "destinations": destinations.collect::<Map<_, _>>(),
        "endpoints": clusters.collect::<Map<_, _>>(),
        "names": config.resources.aliases,
    })
}

fn inbound(config: &RuntimeConfig) -> Value {
    let Some(source) = config.resources.inbound.as_deref() else { return Value::Null };
    let ports = by_number(&source.ports).into_iter().filter_map(|port| {
        let compiled = config.ports.get(&u16::try_from(port.port).ok()?)?;
        Some((port.port.to_string(), inbound_port(compiled, source, &port)))
    });
    json!({
        "mode": if config.permissive { "PERMISSIVE" } else { "STRICT" },
        "defaultPosture": compile::posture(source).unwrap_or_default().name(),
        "ports": ports.collect::<Map<_, _>>(),
        "otherPorts": inbound_port(&config.other_ports, source, &mesh::InboundPort::default()),
    })
}

/// Who says what no mesh policy does.
const OF_PODS: &str = "the default of pods";

/// Which mesh policy each setting of the workload is from.
fn settings_from(config: &RuntimeConfig) -> Value {
    let settings = config.resources.inbound.iter().flat_map(|inbound| &inbound.settings_from);
    let named = |from: &mesh::SettingOrigin| {
        let said = from.origin.as_ref().map_or_else(|| OF_PODS.to_owned(), object);
        (from.field.clone(), said.into())
    };
    settings.map(named).collect::<Map<_, _>>().into()
}

fn inbound_port(compiled: &InboundPort, source: &mesh::Inbound, port: &mesh::InboundPort) -> Value {
    json!({
        "service": compiled.service.as_ref().map(ServiceName::to_string).unwrap_or_default(),
        "protocol": format!("{:?}", compiled.protocol),
        "policies": in_order(source, port).into_iter().map(attached).collect::<Value>(),
        "routes": port.routes.iter().map(attached).collect::<Value>(),
    })
}

fn destination(compiled: &Destination, source: Option<&mesh::Destination>) -> Value {
    let attachments = |list: Option<&Vec<Attachment>>| list.into_iter().flatten().map(attached).collect::<Value>();
    let ports = compiled.ports.iter().map(|(port, found)| (port.to_string(), format!("{:?}", found.protocol).into()));
    json!({
        "ports": ports.collect::<Map<_, _>>(),
        "policies": attachments(source.map(|source| &source.policies)),
        "routes": attachments(source.map(|source| &source.routes)),
        "traffic": traffic(&compiled.traffic),
        "trafficFrom": compiled.traffic_from,
    })
}

/// What the policies came to. Timeouts of a route rule win over these.
fn traffic(traffic: &Traffic) -> Value {
    json!({
        "retry": traffic.retry.as_ref().map(|retry| retry.spec()),
        "timeouts": {
            "request": traffic.request_timeout.map(Span),
            "backendRequest": traffic.try_timeout.map(Span),
            "connect": span(traffic.connect_timeout.unwrap_or(CONNECT_TIMEOUT)),
        },
        "breaker": traffic.breaker,
        "balancer": traffic.balancer,
    })
}

fn span(duration: Duration) -> Value {
    json!(Span(duration))
}

fn cluster(cluster: &ClusterConfig) -> Value {
    json!({
        "balancer": cluster.traffic.balancer,
        "retryBudget": cluster.traffic.budget,
        "nowhere": cluster.nowhere,
        "endpoints": cluster.endpoints.iter().map(|found| endpoint(found)).collect::<Value>(),
    })
}

fn endpoint(endpoint: &EndpointConfig) -> Value {
    json!({
        "address": endpoint.address.to_string(),
        "workload": endpoint.workload.as_ref().map(WorkloadName::to_string).unwrap_or_default(),
        "identity": endpoint.identity,
        "transport": match &endpoint.transport {
            Transport::Plain => "plain",
            Transport::Unmeshed => "refused: no sidecar",
            Transport::Mesh { .. } => "mtls",
            Transport::External { .. } => "tls",
        },
        "weight": endpoint.weight,
        "breaker": endpoint.traffic.breaker,
        "connectTimeout": span(endpoint.connect_timeout()),
    })
}

/// The user's object, and the version of it that is in force.
fn attached(attachment: &Attachment) -> Value {
    let origin = attachment.origin.clone().unwrap_or_default();
    let mut spec = serde_json::from_str(&attachment.document).unwrap_or_default();
    redact(&mut spec);
    let mut shown = json!({
        "kind": origin.kind,
        "namespace": origin.namespace,
        "name": origin.name,
        "generation": origin.generation,
        "spec": spec,
    });
    // Nobody wrote this one.
    if let Some(instead) = &attachment.stands_for {
        shown["standsFor"] = object(instead).into();
    }
    shown
}

/// Takes the values of credentials out of what matches or sets header fields and query parameters, which all have the
/// shape `{name, value}`.
fn redact(document: &mut Value) {
    match document {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            let secret = fields.get("name").and_then(Value::as_str).is_some_and(is_credential);
            if let (true, Some(value)) = (secret, fields.get_mut("value")) {
                *value = "(redacted)".into();
            }
            fields.values_mut().for_each(redact);
        }
        _ => {}
    }
}

/// True for the names under which credentials travel.
fn is_credential(name: &str) -> bool {
    const PARTS: [&str; 11] =
        ["auth", "cookie", "token", "secret", "password", "credential", "key", "session", "jwt", "sig", "pass"];
    let name = name.to_ascii_lowercase();
    PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use selvedge_xds::proto::mesh::{Destination, Inbound, Origin, Port};

    use super::*;
    use crate::{
        compile::Compiler,
        resources::{Resources, Versioned},
    };

    fn attach(kind: &str, name: &str, spec: &Value) -> Attachment {
        let origin = Origin { kind: kind.into(), namespace: "shop".into(), name: name.into(), generation: 7 };
        Attachment { origin: Some(origin), document: spec.to_string(), ..Attachment::default() }
    }

    fn deny(name: &str, value: &str) -> Value {
        json!({"action": "DENY", "rules": [{"to": [{"headers": [{"name": name, "value": value}]}]}]})
    }

    fn resources() -> Arc<Resources> {
        let limit = json!({"limits": [{"requests": 3, "per": "1h", "key": ["identity"]}]});
        let inbound = Inbound {
            workload: "shop/api-1".into(),
            posture: "deny".into(),
            settings: json!({"defaultPosture": "deny"}).to_string(),
            settings_from: vec![mesh::SettingOrigin {
                field: "defaultPosture".into(),
                origin: Some(Origin {
                    kind: "MeshPolicy".into(),
                    namespace: "shop".into(),
                    name: "closed".into(),
                    generation: 1,
                }),
            }],
            policies: vec![attach("AuthorizationPolicy", "whole", &deny("x-team", "red"))],
            ports: vec![mesh::InboundPort {
                port: 8080,
                service: "shop/api".into(),
                policies: vec![
                    attach("RateLimit", "few", &limit),
                    attach("AuthorizationPolicy", "port", &deny("Authorization", "Bearer hunter2")),
                ],
                ..Default::default()
            }],
            ..Default::default()
        };
        let set = json!({"set": [{"name": "x-api-key", "value": "hunter2"}, {"name": "x-plain", "value": "shown"}]});
        let route = json!({
            "parentRefs": [{"kind": "Service", "name": "api"}],
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": "/v2"}}],
                "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": set}],
                "backendRefs": [{"name": "api", "port": 80, "weight": 9}, {"name": "next", "port": 80, "weight": 1}],
            }],
        });
        let traffic = json!({
            "targetRef": {"kind": "Service", "name": "api"},
            "retry": {"attempts": 3},
            "timeouts": {"request": "2s"},
            "breaker": {"consecutiveFailures": 4},
        });
        let later = json!({
            "targetRef": {"kind": "Service", "name": "api"},
            "timeouts": {"request": "9s", "connect": "3s"},
        });
        let destination = Destination {
            namespace: "shop".into(),
            name: "api".into(),
            ports: vec![Port { port: 80, app_protocol: "http".into(), ..Default::default() }],
            routes: vec![attach("HTTPRoute", "api", &route)],
            policies: vec![attach("TrafficPolicy", "api", &traffic), attach("TrafficPolicy", "later", &later)],
            ..Default::default()
        };
        let versioned = Versioned { name: "shop/api".into(), version: "1".into(), value: destination };
        Arc::new(Resources {
            inbound: Some(Arc::new(inbound)),
            destinations: HashMap::from([("shop/api".to_owned(), Arc::new(versioned))]),
            ..Resources::default()
        })
    }

    #[test]
    fn modes_are_shown_as_they_are_in_force() {
        for (permissive, passthrough, inbound, outbound) in
            [(false, true, "STRICT", "PREFER"), (true, false, "PERMISSIVE", "REQUIRE")]
        {
            let config = Compiler::default().compile(&resources());
            let shown = describe(&RuntimeConfig { permissive, passthrough, ..config });
            assert_eq!((&shown["inbound"]["mode"], &shown["outbound"]["mode"]), (&inbound.into(), &outbound.into()));
        }
    }

    fn shown() -> Value {
        describe(&Compiler::default().compile(&resources()))
    }

    #[test]
    fn every_policy_and_route_can_be_read_back_and_credentials_cannot() {
        let shown = shown();
        let port = &shown["inbound"]["ports"]["8080"];
        let named: Vec<_> = port["policies"].as_array().unwrap().iter().map(|policy| &policy["name"]).collect();
        assert_eq!(named, ["port", "whole", "few"], "in the order in which they decide");
        assert_eq!(port["policies"][2]["spec"]["limits"][0], json!({"requests": 3, "per": "1h", "key": ["identity"]}));
        assert_eq!(
            (&port["policies"][2]["kind"], &port["policies"][2]["generation"]),
            (&"RateLimit".into(), &7.into())
        );
        assert_eq!(port["policies"][1]["spec"], deny("x-team", "red"));
        assert_eq!(shown["inbound"]["otherPorts"]["policies"].as_array().unwrap().len(), 1);
        assert_eq!(shown["inbound"]["defaultPosture"], "deny");
        let api = &shown["destinations"]["shop/api"];
        let rule = &api["routes"][0]["spec"]["rules"][0];
        assert_eq!(
            (&rule["backendRefs"][0]["weight"], &rule["matches"][0]["path"]["value"]),
            (&9.into(), &"/v2".into())
        );
        let traffic = &api["traffic"];
        assert_eq!((&traffic["retry"]["attempts"], &traffic["retry"]["budget"]["percent"]), (&3.into(), &20.into()));
        assert_eq!(traffic["timeouts"], json!({"request": "2s", "backendRequest": null, "connect": "3s"}));
        let from = json!({
            "breaker.consecutiveFailures": "TrafficPolicy shop/api",
            "retry.attempts": "TrafficPolicy shop/api",
            "timeouts.connect": "TrafficPolicy shop/later",
            "timeouts.request": "TrafficPolicy shop/api",
        });
        assert_eq!(api["trafficFrom"], from);
        assert_eq!(shown["settingsFrom"], json!({"defaultPosture": "MeshPolicy shop/closed"}));
        assert_eq!((&traffic["breaker"]["consecutiveFailures"], &traffic["balancer"]), (&4.into(), &"peakEwma".into()));
        let text = shown.to_string();
        assert!(text.contains("shown") && !text.contains("hunter2"), "{text}");
        assert_eq!(text, super::tests::shown().to_string(), "equal configurations read equal");
    }
}
