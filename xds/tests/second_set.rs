//! Kinds are open: another API's set runs through both halves of the protocol beside ours, in an order of its own, and
//! neither half has to be told anything but the set.
#![expect(clippy::unwrap_used, reason = "a test stops where its own set-up fails")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use selvedge_xds::{
    client::{Client, Judge},
    kinds::{DESTINATION, SELVEDGE, TRUST_BUNDLE},
    proto::discovery::Node,
    resource::{Encoded, KindSet, TypeUrl},
    server::{RequestError, Stream},
};

const CLUSTER: TypeUrl = TypeUrl::new("type.googleapis.com/envoy.config.cluster.v3.Cluster");
const LOAD_ASSIGNMENT: TypeUrl = TypeUrl::new("type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment");
const LISTENER: TypeUrl = TypeUrl::new("type.googleapis.com/envoy.config.listener.v3.Listener");
const ROUTE: TypeUrl = TypeUrl::new("type.googleapis.com/envoy.config.route.v3.RouteConfiguration");
/// Envoy wants clusters before their endpoints, and listeners before their routes.
const ENVOY: KindSet = KindSet::new(&[CLUSTER, LOAD_ASSIGNMENT, LISTENER, ROUTE]);

type World = BTreeMap<(TypeUrl, &'static str), Arc<Encoded>>;

/// A server and a client of one set.
struct Pair {
    server: Stream,
    client: Client,
    world: World,
}

impl Pair {
    /// What is bad says so in its body, and names its object.
    fn new(kinds: &'static KindSet) -> Self {
        let judge = Judge {
            check: |resource| if &*resource.body == b"\x0a\x03bad" { Err("it is bad".into()) } else { Ok(()) },
            describe: |resource| Some(format!("object {}", resource.name)),
        };
        let mut client = Client::new(kinds, Duration::from_secs(60), judge);
        client.connected(Node::default());
        Self { server: Stream::new(kinds), client, world: World::new() }
    }

    fn put(&mut self, kind: TypeUrl, name: &'static str, content: &str) {
        let resource = Encoded::new(kind, name, Vec::new(), &content.to_owned());
        self.world.insert((kind, name), Arc::new(resource));
        self.client.pin(kind, name);
    }

    /// Talks until nobody has anything to say: the kinds in the order in which they arrived, and the complaints.
    fn settle(&mut self) -> (Vec<String>, Vec<String>) {
        let (mut arrived, mut complaints) = (Vec::new(), Vec::new());
        self.server.changed();
        for _ in 0..20 {
            for request in self.client.requests() {
                let reply = self.server.request(request).unwrap();
                complaints.extend(reply.and_then(|reply| reply.complaint).map(|complaint| complaint.to_string()));
            }
            let find = |kind: TypeUrl, name: &str| {
                self.world.iter().find(|((k, n), _)| (*k, *n) == (kind, name)).map(|(_, found)| Arc::clone(found))
            };
            for response in self.server.responses(&find, &"1".into()) {
                let sign = if response.resources.is_empty() { '-' } else { '+' };
                arrived.push(format!("{sign}{:?}", response.kind));
                self.client.response(response.to_message()).unwrap();
            }
        }
        (arrived, complaints)
    }
}

#[test]
fn two_sets_run_side_by_side_each_in_its_own_order() {
    let (mut ours, mut envoy) = (Pair::new(&SELVEDGE), Pair::new(&ENVOY));
    ours.put(DESTINATION, "shop/web", "1");
    ours.put(TRUST_BUNDLE, "mesh.local", "1");
    for (kind, name) in [(ROUTE, "80"), (LISTENER, "0.0.0.0:80"), (LOAD_ASSIGNMENT, "web"), (CLUSTER, "web")] {
        envoy.put(kind, name, "1");
    }
    assert_eq!(ours.settle().0, ["+TrustBundle", "+Destination"]);
    assert_eq!(envoy.settle().0, ["+Cluster", "+ClusterLoadAssignment", "+Listener", "+RouteConfiguration"]);
    assert_eq!(envoy.client.held(CLUSTER).count(), 1);

    envoy.world.clear();
    let gone = ["-RouteConfiguration", "-Listener", "-ClusterLoadAssignment", "-Cluster"];
    assert_eq!(envoy.settle().0, gone, "removals go the other way");
    assert_eq!(ours.client.everything_held().count(), 2, "the other set has nothing to do with it");
}

#[test]
fn a_refusal_has_the_words_of_whoever_knows_the_meaning() {
    let mut envoy = Pair::new(&ENVOY);
    envoy.put(CLUSTER, "web", "bad");
    assert_eq!(envoy.settle().1, ["object web (Cluster web): it is bad"]);
}

#[test]
fn a_stream_serves_the_kinds_of_its_set_and_no_others() {
    let mut envoy = Pair::new(&ENVOY);
    envoy.client.pin(DESTINATION, "shop/web");
    assert!(envoy.client.requests().is_empty(), "it is not asked for");
    let mut ours = Pair::new(&SELVEDGE);
    ours.client.pin(DESTINATION, "shop/web");
    let refused = envoy.server.request(ours.client.requests().remove(0));
    assert_eq!(refused, Err(RequestError::UnknownType(DESTINATION.to_string())));
}
