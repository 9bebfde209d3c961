//! From what the protocol holds to the [`Resources`] that can be compiled: each destination together with the endpoints of
//! its ports and of the backends its routes name, or as it was before.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use prost::Message;
use selvedge_policies::{
    names::ServiceName,
    policy::{Relation, Target},
    registry,
};
use selvedge_xds::{
    client::{Answer, Client},
    kinds::{DESTINATION, ENDPOINTS, INBOUND, TRUST_BUNDLE},
    proto::mesh::{Attachment, Destination, Endpoints},
    resource::{Encoded, TypeUrl},
};
use serde_json::Value;

use crate::resources::{Resources, Versioned};

/// The resources `client` holds, after `before`. What did not change stays the same allocation. A destination whose
/// endpoints have no answer yet stays as it was.
///
/// ```
/// use std::time::Duration;
///
/// use selvedge_decide::{assemble, compile::check, resources::Resources};
/// use selvedge_xds::{
///     client::{Client, Judge},
///     kinds::{DESTINATION, SELVEDGE, describe},
/// };
///
/// let mut client = Client::new(&SELVEDGE, Duration::from_secs(60), Judge { check, describe });
/// client.want(DESTINATION, "web.shop", Duration::ZERO);
/// let resources = assemble::resources(&client, &Resources::default());
/// assert!(resources.destinations.is_empty() && resources.aliases.is_empty(), "nobody has answered yet");
/// assert!(assemble::endpoints_needed(&client, &resources).is_empty());
/// ```
pub fn resources(client: &Client, before: &Resources) -> Resources {
    let answered: BTreeSet<&str> =
        client.answers(ENDPOINTS).filter(|(_, answer)| **answer != Answer::Waiting).map(|(name, _)| name).collect();
    let mut destinations: HashMap<String, Arc<Versioned<Destination>>> = HashMap::new();
    for held in client.held(DESTINATION) {
        let known = before.destinations.get(&held.name);
        let Some(new) = versioned::<Destination>(held, known) else { continue };
        let complete = endpoints_of(&new.value).iter().all(|name| answered.contains(name.as_str()));
        let known = || known.or_else(|| stood_for(client, before, &held.name)).cloned();
        if let Some(destination) = if complete { Some(new) } else { known() } {
            destinations.insert(held.name.clone(), destination);
        }
    }
    let needed: BTreeSet<String> = destinations.values().flat_map(|d| endpoints_of(&d.value)).collect();
    let endpoints = client
        .held(ENDPOINTS)
        .filter(|held| needed.contains(&held.name))
        .filter_map(|held| Some((held.name.clone(), versioned::<Endpoints>(held, before.endpoints.get(&held.name))?)));
    let aliases = answers(client).filter_map(|(name, answer)| match answer {
        Answer::Waiting | Answer::Absent => None,
        Answer::Refused => Some((name.to_owned(), None)),
        Answer::Held(held) => destinations.contains_key(held).then(|| (name.to_owned(), Some(held.clone()))),
    });
    let refused = answers(client).filter(|(_, answer)| **answer == Answer::Refused);
    Resources {
        generation: before.generation + 1,
        refused: refused.map(|(name, _)| name.to_owned()).collect(),
        inbound: single(client, INBOUND),
        bundle: single(client, TRUST_BUNDLE),
        aliases: aliases.collect(),
        absent: Arc::new(absent(client)),
        endpoints: endpoints.collect(),
        destinations,
        looked_up: before.looked_up.clone(),
        connected: before.connected,
        refusal: before.refusal.clone(),
    }
}

/// What a name stood for `before` that now stands for the destination `held`: a service may come to be seen in another form.
fn stood_for<'a>(client: &Client, before: &'a Resources, held: &str) -> Option<&'a Arc<Versioned<Destination>>> {
    answers(client).find_map(|(name, answer)| match answer {
        Answer::Held(now) if now == held => before.destinations.get(before.aliases.get(name)?.as_ref()?),
        _ => None,
    })
}

/// The names that `client` asked for and that stand for nothing.
///
/// ```
/// use std::time::Duration;
///
/// use selvedge_decide::{assemble, compile::check};
/// use selvedge_xds::{
///     client::{Client, Judge},
///     kinds::{DESTINATION, SELVEDGE, describe},
///     proto::discovery::DeltaDiscoveryResponse,
/// };
///
/// let mut client = Client::new(&SELVEDGE, Duration::from_secs(60), Judge { check, describe });
/// client.want(DESTINATION, "none.shop", Duration::ZERO);
/// let (type_url, removed_resources) = (DESTINATION.to_string(), vec!["none.shop".to_owned()]);
/// client.response(DeltaDiscoveryResponse { type_url, removed_resources, ..Default::default() }).unwrap();
/// assert!(assemble::absent(&client).contains("none.shop"));
/// ```
pub fn absent(client: &Client) -> HashSet<String> {
    answers(client).filter(|(_, answer)| **answer == Answer::Absent).map(|(name, _)| name.to_owned()).collect()
}

/// Whether every name that stands for something at `client` does so in `published`, as far as its destination is there. Also
/// a name that is absent may stand for something: an `ip:port` for the workload at that address.
///
/// ```
/// use std::time::Duration;
///
/// use selvedge_decide::{assemble, compile::check, resources::Resources};
/// use selvedge_xds::{
///     client::{Client, Judge},
///     kinds::{SELVEDGE, describe},
/// };
///
/// let client = Client::new(&SELVEDGE, Duration::from_secs(60), Judge { check, describe });
/// assert!(assemble::is_published(&client, &Resources::default()));
/// ```
pub fn is_published(client: &Client, published: &Resources) -> bool {
    answers(client).all(|(name, answer)| match answer {
        Answer::Waiting | Answer::Absent => true,
        Answer::Refused => published.aliases.contains_key(name),
        Answer::Held(held) => {
            published.aliases.get(name).and_then(Option::as_ref) == Some(held)
                || !published.destinations.contains_key(held)
        }
    })
}

/// The names to ask for where `name` was called: an `ip:port` may be that of a service, or of a workload at that IP address.
///
/// ```
/// use selvedge_decide::assemble;
///
/// assert_eq!(assemble::asked("web.shop").collect::<Vec<_>>(), ["web.shop"]);
/// assert_eq!(assemble::asked("10.0.0.7:6379").collect::<Vec<_>>(), ["10.0.0.7:6379", "10.0.0.7"]);
/// ```
pub fn asked(name: &str) -> impl Iterator<Item = String> {
    std::iter::once(name.to_owned()).chain(address_of(name))
}

/// The IP address of an `ip:port`, as the address of workloads is named.
fn address_of(name: &str) -> Option<String> {
    name.parse::<SocketAddr>().ok().map(|socket| socket.ip().to_string())
}

/// What is known of every destination that was asked for. An `ip:port` that is no service's stands for what is at its
/// address, also while nobody answers: what is known to have a sidecar is not passed by.
fn answers(client: &Client) -> impl Iterator<Item = (&str, &Answer)> {
    let all: HashMap<&str, &Answer> = client.answers(DESTINATION).collect();
    client.answers(DESTINATION).map(move |(name, answer)| match answer {
        Answer::Held(_) | Answer::Refused => (name, answer),
        Answer::Absent | Answer::Waiting => {
            let address = address_of(name).and_then(|address| all.get(&*address).copied());
            (
                name,
                match (address, answer) {
                    (Some(Answer::Absent) | None, answer) => answer,
                    (Some(address), _) => address,
                },
            )
        }
    })
}

/// Names of the endpoints that the destinations need which `client` holds or which are still published.
pub fn endpoints_needed(client: &Client, published: &Resources) -> BTreeSet<String> {
    let held = client.held(DESTINATION).filter_map(|held| Destination::decode(held.body.clone()).ok());
    let shown = published.destinations.values().flat_map(|destination| endpoints_of(&destination.value));
    held.flat_map(|destination| endpoints_of(&destination)).chain(shown).collect()
}

/// Endpoints of the destination's own ports, and of the services that what is attached to it names.
pub(crate) fn endpoints_of(destination: &Destination) -> BTreeSet<String> {
    let ports: Vec<u16> = destination.ports.iter().filter_map(|port| u16::try_from(port.port).ok()).collect();
    let service = ServiceName::new(&destination.namespace, &destination.name);
    let own = ports.iter().map(|port| service.port(*port).to_string());
    let backends =
        destination.routes.iter().chain(&destination.policies).flat_map(|document| backends_of(document, &ports));
    own.chain(backends).collect()
}

/// Endpoints of the services that a route or policy sends requests to. A reference without a port means the port that was called.
fn backends_of(attachment: &Attachment, ports: &[u16]) -> Vec<String> {
    let origin = attachment.origin.clone().unwrap_or_default();
    let document: Value = serde_json::from_str(&attachment.document).unwrap_or(Value::Null);
    let bound = registry::find(&origin.kind).and_then(|kind| (kind.bind)(&document, &origin.namespace).ok());
    let references = bound.map(|bound| bound.references).unwrap_or_default();
    let mut names = Vec::new();
    for reference in references.iter().filter(|reference| reference.relation == Relation::SendsTo) {
        let Target::Service(namespace, name) = &reference.to else { continue };
        let service = ServiceName::new(namespace, name);
        match reference.port {
            Some(port) => names.push(service.port(port).to_string()),
            None => names.extend(ports.iter().map(|port| service.port(*port).to_string())),
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

fn single<T: Message + Default>(client: &Client, kind: TypeUrl) -> Option<Arc<T>> {
    client.held(kind).next().and_then(|held| T::decode(held.body.clone()).ok()).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use selvedge_xds::{
        client::Judge,
        kinds::{SELVEDGE, describe},
        proto::{
            discovery::DeltaDiscoveryResponse,
            mesh::{Origin, Port},
        },
    };

    use super::*;

    fn destination(ports: &[u32], route: &str) -> Destination {
        let origin = Origin { kind: "HTTPRoute".into(), namespace: "shop".into(), name: "r".into(), generation: 1 };
        Destination {
            namespace: "shop".into(),
            name: "web".into(),
            ports: ports.iter().map(|port| Port { port: *port, ..Port::default() }).collect(),
            routes: vec![Attachment { origin: Some(origin), document: route.into(), ..Attachment::default() }],
            ..Destination::default()
        }
    }

    fn names(destination: &Destination) -> Vec<String> {
        endpoints_of(destination).into_iter().collect()
    }

    #[test]
    fn endpoints_are_those_of_the_ports_and_of_every_backend() {
        let route = r#"{"parentRefs": [], "rules": [
            {"backendRefs": [{"name": "v1", "port": 81}, {"name": "v2", "namespace": "other", "port": 82}]},
            {"backendRefs": [{"name": "v3"}]},
            {}
        ]}"#;
        let expected = ["other/v2:82", "shop/v1:81", "shop/v3:80", "shop/v3:8080", "shop/web:80", "shop/web:8080"];
        assert_eq!(names(&destination(&[80, 8080], route)), expected);
        for odd in ["", "null", "[]", r#"{"rules": 1}"#, r#"{"rules": [{"backendRefs": [{"port": 70000}]}]}"#] {
            assert_eq!(names(&destination(&[80, 70_000], odd)), ["shop/web:80"], "{odd}");
        }
    }

    fn client() -> Client {
        Client::new(&SELVEDGE, Duration::from_secs(60), Judge { check: |_| Ok(()), describe })
    }

    fn receive(client: &mut Client, kind: TypeUrl, resources: &[Encoded]) {
        let response = DeltaDiscoveryResponse {
            type_url: kind.to_string(),
            resources: resources.iter().map(|resource| resource.to_wire(resource.aliases.clone())).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        client.response(response).unwrap();
        client.pin_exactly(ENDPOINTS, &endpoints_needed(client, &Resources::default()));
    }

    #[test]
    fn a_destination_shows_up_and_changes_together_with_its_endpoints() {
        let mut client = client();
        client.want(DESTINATION, "web.shop", Duration::ZERO);
        let web =
            |ports: &[u32]| Encoded::new(DESTINATION, "shop/web", vec!["web.shop".into()], &destination(ports, "{}"));
        let endpoints = |port| Encoded::new(ENDPOINTS, format!("shop/web:{port}"), vec![], &Endpoints::default());

        receive(&mut client, DESTINATION, &[web(&[80])]);
        let one = resources(&client, &Resources::default());
        assert!(one.destinations.is_empty() && one.aliases.is_empty(), "its endpoints are not known yet");
        receive(&mut client, ENDPOINTS, &[endpoints(80)]);
        let two = resources(&client, &one);
        assert_eq!(two.aliases["web.shop"].as_deref(), Some("shop/web"));
        assert_eq!(two.destinations["shop/web"].value.ports.len(), 1);

        receive(&mut client, DESTINATION, &[web(&[80, 8080])]);
        let three = resources(&client, &two);
        assert!(Arc::ptr_eq(&three.destinations["shop/web"], &two.destinations["shop/web"]), "the old one stays");
        receive(&mut client, ENDPOINTS, &[endpoints(8080)]);
        let four = resources(&client, &three);
        assert_eq!(four.destinations["shop/web"].value.ports.len(), 2);
        assert!(Arc::ptr_eq(&four.endpoints["shop/web:80"], &two.endpoints["shop/web:80"]), "nothing is decoded twice");
        assert_eq!(four.generation, 4);
    }

    #[test]
    fn an_address_that_is_no_services_is_what_is_known_of_the_workload_there_also_while_nobody_answers() {
        let mut client = client();
        for name in asked("10.1.0.5:6379") {
            client.want(DESTINATION, &name, Duration::ZERO);
        }
        let address = Encoded::new(DESTINATION, "10.1.0.5", vec![], &Destination::default());
        let gone = |client: &mut Client, name: &str| {
            let response = DeltaDiscoveryResponse {
                type_url: DESTINATION.to_string(),
                removed_resources: vec![name.into()],
                ..DeltaDiscoveryResponse::default()
            };
            client.response(response).unwrap();
        };
        gone(&mut client, "10.1.0.5:6379");
        let known = |client: &Client| resources(client, &Resources::default()).aliases;
        assert!(known(&client).is_empty() && absent(&client).is_empty(), "it may be a workload's");
        receive(&mut client, DESTINATION, &[address]);
        assert_eq!(known(&client)["10.1.0.5:6379"].as_deref(), Some("10.1.0.5"));
        let published = resources(&client, &Resources::default());
        client.want(DESTINATION, "10.1.0.5:16379", Duration::ZERO);
        gone(&mut client, "10.1.0.5:16379");
        assert!(!is_published(&client, &published), "it stands for the workload there");
        assert_eq!(known(&client)["10.1.0.5:16379"].as_deref(), Some("10.1.0.5"));
        assert!(is_published(&client, &resources(&client, &published)));
        gone(&mut client, "10.1.0.5");
        assert!(known(&client).is_empty());
        assert_eq!(absent(&client), ["10.1.0.5", "10.1.0.5:6379", "10.1.0.5:16379"].map(str::to_owned).into());
        client.want(DESTINATION, "10.1.0.5:26379", Duration::ZERO);
        assert!(!absent(&client).contains("10.1.0.5:26379"), "nobody has said of what service it is");
    }
}
