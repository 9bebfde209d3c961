//! What the real server refuses and fills in, as far as tests come near it.

use serde_json::{Value, json};

use super::objects::Refused;

/// What is wrong with an object that is written.
pub(super) fn check(object: &Value) -> Result<(), Refused> {
    let found = match object["kind"].as_str().unwrap_or_default() {
        "EndpointSlice" => endpoint_slice(object),
        "Pod" => pod(object),
        _ => Ok(()),
    };
    let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
    found.map_err(|problem| Refused::new(422, &format!("{kind} {name} is invalid: {problem}")))
}

/// Fills in what an object gets when it is created.
pub(super) fn complete(object: &mut Value, revision: u64) {
    match object["kind"].as_str().unwrap_or_default() {
        "Service" if object["spec"]["type"] != "ExternalName" && object["spec"]["clusterIP"].is_null() => {
            let address = format!("10.96.{}.{}", (revision >> 8) & 0xff, revision & 0xff);
            object["spec"]["clusterIP"] = json!(address);
            object["spec"]["clusterIPs"] = json!([address]);
        }
        "Pod" if object["status"].is_null() => object["status"] = json!({ "phase": "Pending" }),
        "Namespace" => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        _ => {}
    }
}

/// What may not change of an object that is there.
pub(super) fn keep(before: &Value, after: &Value) -> Result<(), Refused> {
    let is_pod = after["kind"] == "Pod";
    let names = |object: &Value, list: &str| -> Vec<Value> {
        object["spec"][list].as_array().into_iter().flatten().map(|container| container["name"].clone()).collect()
    };
    if is_pod && ["containers", "initContainers"].iter().any(|list| names(before, list) != names(after, list)) {
        return Err(Refused::new(422, "spec: Forbidden: pod updates may not add or remove containers"));
    }
    Ok(())
}

fn endpoint_slice(object: &Value) -> Result<(), String> {
    let endpoints = object["endpoints"].as_array().into_iter().flatten();
    let addresses = endpoints.filter_map(|endpoint| endpoint["addresses"].as_array()).flatten();
    for address in addresses.filter_map(Value::as_str) {
        let ip: std::net::IpAddr = address.parse().map_err(|_| format!("{address} is no IP address"))?;
        if ip.is_loopback() {
            return Err(format!("endpoints: Invalid value: \"{address}\": may not be in the loopback range"));
        }
    }
    Ok(())
}

fn pod(object: &Value) -> Result<(), String> {
    let spec = &object["spec"];
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        return Err("spec.containers: Required value".to_owned());
    }
    let lists = ["containers", "initContainers"].map(|list| spec[list].as_array().into_iter().flatten());
    for container in lists.into_iter().flatten() {
        let name = container["name"].as_str().unwrap_or_default();
        if container["image"].as_str().is_none_or(str::is_empty) {
            return Err(format!("container {name}: image: Required value"));
        }
    }
    Ok(())
}
