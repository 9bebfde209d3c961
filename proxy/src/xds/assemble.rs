//! From what the protocol holds to what the sidecar uses.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use prost::Message;
use selvedge_xds::{
    client::{Answer, Client},
    proto::mesh::{Attachment, Destination, Endpoints},
    resource::{Encoded, Kind, endpoints_name},
};
use serde_json::Value;

use super::{Resources, Versioned};

/// The resources `client` holds, after `before`. What did not change stays the same allocation. A destination whose
/// endpoints have no answer yet stays as it was.
pub(super) fn resources(client: &Client, before: &Resources) -> Resources {
    let endpoints: HashMap<_, _> = client
        .held(Kind::Endpoints)
        .filter_map(|held| Some((held.name.clone(), versioned::<Endpoints>(held, before.endpoints.get(&held.name))?)))
        .collect();
    let answered: BTreeSet<&str> = client
        .answers(Kind::Endpoints)
        .filter(|(_, answer)| **answer != Answer::Waiting)
        .map(|(name, _)| name)
        .collect();
    let mut destinations = HashMap::new();
    for held in client.held(Kind::Destination) {
        let known = before.destinations.get(&held.name);
        let Some(new) = versioned::<Destination>(held, known) else { continue };
        let complete = endpoints_of(&new.value).iter().all(|name| answered.contains(name.as_str()));
        if let Some(destination) = if complete { Some(new) } else { known.cloned() } {
            destinations.insert(held.name.clone(), destination);
        }
    }
    let aliases = client.answers(Kind::Destination).filter_map(|(name, answer)| match answer {
        Answer::Waiting => None,
        Answer::Absent | Answer::Refused => Some((name.to_owned(), None)),
        Answer::Held(held) => destinations.contains_key(held).then(|| (name.to_owned(), Some(held.clone()))),
    });
    Resources {
        generation: before.generation + 1,
        inbound: single(client, Kind::Inbound),
        bundle: single(client, Kind::TrustBundle),
        aliases: aliases.collect(),
        destinations,
        endpoints,
        connected: before.connected,
        last_error: before.last_error.clone(),
    }
}

/// Names of the endpoints that all destinations `client` holds need.
pub(super) fn endpoints_needed(client: &Client) -> BTreeSet<String> {
    let decoded = client.held(Kind::Destination).filter_map(|held| Destination::decode(held.body.clone()).ok());
    decoded.flat_map(|destination| endpoints_of(&destination)).collect()
}

/// Endpoints of the destination's own ports, and of the backends its routes name.
fn endpoints_of(destination: &Destination) -> BTreeSet<String> {
    let ports: Vec<u16> = destination.ports.iter().filter_map(|port| u16::try_from(port.port).ok()).collect();
    let own = ports.iter().map(|port| endpoints_name(&destination.namespace, &destination.name, *port));
    let backends = destination.routes.iter().flat_map(|route| backends_of(route, &ports));
    own.chain(backends).collect()
}

/// Endpoints named by the `backendRefs` of an `HTTPRoute`. A reference without a port means the port that was called.
fn backends_of(route: &Attachment, ports: &[u16]) -> Vec<String> {
    let namespace = route.origin.as_ref().map_or("", |origin| &origin.namespace);
    let document: Value = serde_json::from_str(&route.document).unwrap_or(Value::Null);
    let array = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let references = array(&document, "rules").into_iter().flat_map(|rule| array(&rule, "backendRefs"));
    let mut names = Vec::new();
    for reference in references {
        let Some(name) = reference["name"].as_str() else { continue };
        let namespace = reference["namespace"].as_str().unwrap_or(namespace);
        match reference["port"].as_u64().and_then(|port| u16::try_from(port).ok()) {
            Some(port) => names.push(endpoints_name(namespace, name, port)),
            None => names.extend(ports.iter().map(|port| endpoints_name(namespace, name, *port))),
        }
    }
    names
}

fn versioned<T: Message + Default>(held: &Encoded, known: Option<&Arc<Versioned<T>>>) -> Option<Arc<Versioned<T>>> {
    if let Some(known) = known.filter(|known| known.version == held.version) {
        return Some(Arc::clone(known));
    }
    let value = T::decode(held.body.clone()).ok()?;
    Some(Arc::new(Versioned { name: held.name.clone(), version: held.version.clone(), value }))
}

fn single<T: Message + Default>(client: &Client, kind: Kind) -> Option<Arc<T>> {
    client.held(kind).next().and_then(|held| T::decode(held.body.clone()).ok()).map(Arc::new)
}
