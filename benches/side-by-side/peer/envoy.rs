//! A pair of Envoys with mutual TLS 1.3 and HTTP/2 between them, and the filters that match what our sidecars do:
//! RBAC by SPIFFE identity, a local rate limit, retries armed, statistics, and a log of errors.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::Context;
use selvedge_benches::port::Port;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Name, Peer};
use crate::{
    certificates::{CALLED, CALLED_HOST, CALLER, Leaf},
    ground::Ground,
    process::{Process, find},
};

pub(super) fn start(ground: &Ground) -> anyhow::Result<Peer> {
    let missing = "envoy is missing; `.ci/setup bench` gets one, or name yours with ENVOY=/path/to/envoy";
    let program = find("envoy", "ENVOY").context(missing)?;
    let folder = ground.folder("envoy")?;
    let entry = [Port::free()?, Port::free()?];
    let hop = [Port::free()?, Port::free()?];
    let to_peer = [
        cluster(1, hop[0].address, true, upstream_tls(ground)),
        cluster(2, hop[1].address, true, upstream_tls(ground)),
    ];
    let to_application =
        [cluster(1, ground.http1.address, false, Value::Null), cluster(2, ground.http2.address, true, Value::Null)];
    let errors = folder.join("errors.log");
    let calling = bootstrap(
        &[
            listener(1, entry[0].address, &json!([]), Value::Null, &errors),
            listener(2, entry[1].address, &json!([]), Value::Null, &errors),
        ],
        &to_peer,
    );
    let policy = json!([rbac(), rate_limit()]);
    let called = bootstrap(
        &[
            listener(1, hop[0].address, &policy, downstream_tls(ground), &errors),
            listener(2, hop[1].address, &policy, downstream_tls(ground), &errors),
        ],
        &to_application,
    );
    let proxies = vec![run(&program, &folder, "envoy-a", &calling)?, run(&program, &folder, "envoy-b", &called)?];
    let [http1, http2] = entry.map(|port| port.address);
    Ok(Peer { name: Name::Envoy, http1, http2, proxies, support: Vec::new() })
}

fn run(program: &Path, folder: &Path, name: &str, config: &Value) -> anyhow::Result<Process> {
    let file = folder.join(format!("{name}.json"));
    fs::write(&file, serde_json::to_vec_pretty(config)?)?;
    let mut command = Command::new(program);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]).arg("-c").arg(&file);
    Process::start(name, &mut command, folder)
}

fn bootstrap(listeners: &[Value; 2], clusters: &[Value; 2]) -> Value {
    json!({
        "admin": { "address": socket(SocketAddr::from(([127, 0, 0, 1], 0))) },
        "static_resources": { "listeners": listeners, "clusters": clusters }
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// `@type` of an extension.
fn kind(name: &str) -> String {
    format!("type.googleapis.com/{name}")
}

fn listener(version: usize, address: SocketAddr, policy: &Value, tls: Value, errors: &Path) -> Value {
    let mut filters = policy.as_array().cloned().unwrap_or_default();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": kind("envoy.extensions.filters.http.router.v3.Router") }
    }));
    let route = json!({
        "cluster": format!("next{version}"), "timeout": "15s",
        "retry_policy": { "retry_on": "connect-failure,reset,gateway-error", "num_retries": 2 }
    });
    let manager = json!({
        "@type": kind("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": format!("in{version}"), "codec_type": "AUTO", "http_filters": filters,
        "access_log": [error_log(errors)],
        "route_config": { "virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": [{ "match": { "prefix": "/" }, "route": route }]
        }] }
    });
    let mut chain = json!({
        "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }]
    });
    if !tls.is_null() {
        chain["transport_socket"] = tls;
    }
    json!({ "name": format!("in{version}"), "address": socket(address), "filter_chains": [chain] })
}

fn error_log(file: &Path) -> Value {
    let least = json!({ "default_value": 400, "runtime_key": "access_log.least_status" });
    json!({
        "name": "envoy.access_loggers.file",
        "filter": { "status_code_filter": { "comparison": { "op": "GE", "value": least } } },
        "typed_config": { "@type": kind("envoy.extensions.access_loggers.file.v3.FileAccessLog"), "path": file }
    })
}

fn cluster(version: usize, address: SocketAddr, http2: bool, tls: Value) -> Value {
    let protocol = if http2 { "http2_protocol_options" } else { "http_protocol_options" };
    let options = json!({
        "@type": kind("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { protocol: {} }
    });
    let endpoint = json!({ "endpoint": { "address": socket(address) } });
    let name = format!("next{version}");
    let limits = json!({ "thresholds": [
        { "max_connections": 16000, "max_pending_requests": 16000, "max_requests": 16000 }
    ] });
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s", "circuit_breakers": limits,
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options },
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] }
    });
    if !tls.is_null() {
        cluster["transport_socket"] = tls;
    }
    cluster
}

fn common_tls(ground: &Ground, leaf: &Leaf, expected: &str) -> Value {
    let identity = json!({ "san_type": "URI", "matcher": { "exact": expected } });
    json!({
        "alpn_protocols": ["h2"],
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "tls_certificates": [{
            "certificate_chain": { "filename": leaf.certificate }, "private_key": { "filename": leaf.key }
        }],
        "validation_context": {
            "trusted_ca": { "filename": ground.certificates.authority }, "match_typed_subject_alt_names": [identity]
        }
    })
}

fn upstream_tls(ground: &Ground) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": kind("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"), "sni": CALLED_HOST,
            "common_tls_context": common_tls(ground, &ground.certificates.caller, CALLED)
        }
    })
}

fn downstream_tls(ground: &Ground) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": kind("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": common_tls(ground, &ground.certificates.called, CALLER)
        }
    })
}

fn rbac() -> Value {
    let method = |name: &str| json!({ "header": { "name": ":method", "string_match": { "exact": name } } });
    let principal = json!({ "authenticated": { "principal_name": { "exact": CALLER } } });
    json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": kind("envoy.extensions.filters.http.rbac.v3.RBAC"),
            "rules": { "action": "ALLOW", "policies": {
                "web-to-api": { "permissions": [method("GET"), method("POST")], "principals": [principal] }
            } }
        }
    })
}

fn rate_limit() -> Value {
    let always = json!({ "default_value": { "numerator": 100, "denominator": "HUNDRED" } });
    json!({
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": kind("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"),
            "stat_prefix": "limit", "filter_enabled": always, "filter_enforced": always,
            "token_bucket": { "max_tokens": 4_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s" }
        }
    })
}
