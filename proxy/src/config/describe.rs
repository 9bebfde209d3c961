//! The effective configuration for people: what `/config` shows. Keys and certificates are not in it.

use serde_json::{Value, json};

use super::{ClusterConfig, Destination, InboundPort, RuntimeConfig, Transport};

/// `config` as JSON, maps in order of their keys.
pub fn describe(config: &RuntimeConfig) -> Value {
    let ports = config.ports.iter().map(|(port, rules)| (port.to_string(), inbound(rules)));
    let destinations = config.destinations.iter().map(|(name, found)| (name.clone(), destination(found)));
    let clusters = config.clusters.iter().map(|(name, found)| (name.clone(), cluster(found)));
    json!({
        "generation": config.generation,
        "workload": format!("{}/{}", config.own.namespace, config.own.workload),
        "identity": config.own.identity,
        "certificate": config.tls.is_some(),
        "authorities": config.tls.as_ref().map(|tls| &tls.authorities),
        "inbound": {
            "mode": if config.permissive { "PERMISSIVE" } else { "STRICT" },
            "ports": ports.collect::<serde_json::Map<_, _>>(),
            "otherPorts": inbound(&config.other_ports),
        },
        "outbound": { "mode": if config.passthrough { "PREFER" } else { "REQUIRE" } },
        "destinations": destinations.collect::<serde_json::Map<_, _>>(),
        "endpoints": clusters.collect::<serde_json::Map<_, _>>(),
        "names": config.aliases,
    })
}

fn inbound(port: &InboundPort) -> Value {
    json!({
        "service": &*port.service,
        "protocol": format!("{:?}", port.protocol),
        "policies": port.policies.iter().map(|policy| policy.kind()).collect::<Vec<_>>(),
        "routes": port.routes.rules().map(|rule| rule.name.as_ref()).collect::<Vec<_>>(),
    })
}

fn destination(destination: &Destination) -> Value {
    let traffic = &destination.traffic;
    json!({
        "ports": destination.ports.iter().map(|(port, protocol)| (port.to_string(), format!("{protocol:?}").into()))
            .collect::<serde_json::Map<_, _>>(),
        "routes": destination.routes.rules().map(|rule| rule.name.as_ref()).collect::<Vec<_>>(),
        "retries": traffic.retry.is_some(),
        "requestTimeoutSeconds": traffic.request_timeout.map(|limit| limit.as_secs_f64()),
        "tryTimeoutSeconds": traffic.try_timeout.map(|limit| limit.as_secs_f64()),
        "breaker": traffic.breaker.is_some(),
        "balancer": format!("{:?}", traffic.balancer),
    })
}

fn cluster(cluster: &ClusterConfig) -> Value {
    let endpoints = cluster.endpoints.iter().map(|endpoint| {
        json!({
            "address": endpoint.address.to_string(),
            "workload": format!("{}/{}", endpoint.namespace, endpoint.workload),
            "identity": endpoint.identity,
            "transport": match &endpoint.transport {
                Transport::Plain => "plain",
                Transport::Mesh { .. } => "mtls",
                Transport::External { .. } => "tls",
            },
            "weight": endpoint.weight,
        })
    });
    endpoints.collect()
}
