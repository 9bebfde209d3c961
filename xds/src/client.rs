//! The asking half of the delta protocol, one [`Client`] per sidecar: wants and responses in, requests and the
//! last good resources out, no I/O and no clock (`now` is handed in, counted from any fixed start).
//!
//! Guarantees:
//! - A resource is in force only once the caller's check took it. A response with a bad resource is refused (NACK)
//!   with a message that names the user's object; its good resources are in force, its bad ones keep their last
//!   good version.
//! - What is held survives a lost stream: [`Client::connected`] resumes with the versions held.
//! - A name asked for on demand is given up when it was not used for the idle time; a pinned one never.
//! - However many names are asked for on demand, a bounded number is kept: those that stand for something, then those
//!   used last. That a name stands for nothing changes no resource, and whoever asks is told that apart ([`Change`]).

mod interest;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use self::interest::{Complaint, Interest, Want};
use crate::{
    proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
    resource::{Encoded, KindSet, TypeUrl},
};

/// Whether a resource can be put in force; the error says why not.
pub type Check = fn(&Encoded) -> Result<(), String>;
/// Whose object a resource came from, in the words of a NACK; `None` where it does not say.
pub type Describe = fn(&Encoded) -> Option<String>;

/// What the protocol asks of those who know what resources mean.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    /// Asked of each resource that comes, before it is in force ([`Check`]).
    pub check: Check,
    /// Asked of each resource that was refused, to name the user's object ([`Describe`]).
    pub describe: Describe,
}

/// Names asked for on demand that are kept, per kind; far fewer than [`crate::server::MAX_NAMES`], past which the whole
/// stream would be refused. An application that calls ever new addresses must not cost its sidecar the configuration.
pub const MOST_ON_DEMAND: usize = 4096;
/// Longest NACK message, in bytes; a longer one is cut. The list of what is refused is not.
const MAX_COMPLAINT: usize = 4096;

/// What the control plane said of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was asked for, or is to be, and no answer has come.
    Waiting,
    /// There is no such resource.
    Absent,
    /// There is one, and no version of it could be put in force.
    Refused,
    /// It stands for the resource of this canonical name.
    Held(String),
}

/// What became of what is known. The greater one includes the lesser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing.
    #[default]
    Nothing,
    /// Names that were asked for on demand are among those that stand for nothing now, or no more among them.
    Absent,
    /// Some name stands for something else, or some resource is another one.
    Known,
}

/// What a response did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What is another one now.
    pub change: Change,
    /// The NACK message, when something was refused.
    pub complaint: Option<String>,
}

/// A response of a type that was never asked for; the stream must end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control plane sent a response of type '{0}', which was not asked for")]
pub struct UnexpectedType(String);

/// Everything a sidecar wants to know and knows.
#[derive(Debug)]
pub struct Client {
    /// Who asks, until the stream has heard it.
    node: Option<Node>,
    idle: Duration,
    judge: Judge,
    kinds: &'static KindSet,
    /// One of each kind, in the order of the set.
    interests: Vec<Interest>,
}

impl Client {
    /// A client that wants nothing of `kinds` yet; of a kind that is not among them it never has anything. On-demand
    /// names expire after `idle`.
    pub fn new(kinds: &'static KindSet, idle: Duration, judge: Judge) -> Self {
        let interests = kinds.order().iter().map(|kind| Interest::new(*kind)).collect();
        Self { node: None, idle, judge, kinds, interests }
    }

    /// Wants `name` for as long as the client lives.
    pub fn pin(&mut self, kind: TypeUrl, name: &str) {
        if let Some(interest) = self.interest_mut(kind) {
            interest.want(name, true, Duration::ZERO);
        }
    }

    /// Wants exactly `names` of `kind`: new ones are pinned, others are given up.
    pub fn pin_exactly(&mut self, kind: TypeUrl, names: &BTreeSet<String>) {
        let Some(interest) = self.interest_mut(kind) else { return };
        let surplus: Vec<String> = interest.wants.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in names {
            interest.want(name, true, Duration::ZERO);
        }
        interest.give_up(&surplus);
    }

    /// Wants `name` on demand; it counts as used `now`. When there are too many, those give way that stand for nothing and
    /// were used least lately, and only where all stand for something those of them. What became of what is known by that.
    pub fn want(&mut self, kind: TypeUrl, name: &str, now: Duration) -> Change {
        let Some(interest) = self.interest_mut(kind) else { return Change::Nothing };
        let made = if interest.wants.contains_key(name) { Change::Nothing } else { interest.make_room(MOST_ON_DEMAND) };
        interest.want(name, false, now);
        made
    }

    /// Notes a use of a name that was asked for on demand; an unknown name is not asked for by this.
    pub fn touch(&mut self, kind: TypeUrl, name: &str, now: Duration) {
        if let Some(want) = self.interest_mut(kind).and_then(|interest| interest.wants.get_mut(name)) {
            want.last_used = now;
        }
    }

    /// Gives up on-demand names that were not used for the idle time, and says what that changed.
    pub fn expire(&mut self, now: Duration) -> Change {
        let idle = self.idle;
        let is_idle = |want: &Want| !want.pinned && now.saturating_sub(want.last_used) >= idle;
        let mut change = Change::Nothing;
        for interest in &mut self.interests {
            let names: Vec<String> =
                interest.wants.iter().filter(|(_, want)| is_idle(want)).map(|(name, _)| name.clone()).collect();
            change = change.max(interest.give_up(&names));
        }
        change
    }

    /// Puts a resource in force that was good in an earlier life of the process, with the names it was asked by.
    /// Names that are not pinned are wanted on demand. Refused by the same check as one from the network.
    pub fn restore(&mut self, resource: Encoded, now: Duration) -> Result<(), String> {
        (self.judge.check)(&resource)?;
        let Some(interest) = self.interest_mut(resource.kind) else { return Ok(()) };
        for name in resource.aliases.iter().chain([&resource.name]) {
            interest.want(name, false, now);
        }
        interest.hold(resource);
        Ok(())
    }

    /// A new stream stands: everything is to be said again, by `node`. What a node says is long and needed once a stream,
    /// so it is not kept.
    pub fn connected(&mut self, node: Node) {
        self.node = Some(node);
        for interest in &mut self.interests {
            interest.resuming = true;
            interest.replies.clear();
            interest.unsubscribe.clear();
            interest.subscribe = interest.wants.keys().cloned().collect();
        }
    }

    /// Everything that is to be sent now, in order.
    pub fn requests(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut requests: Vec<_> = self.interests.iter_mut().flat_map(Interest::requests).collect();
        if let Some(first) = requests.first_mut() {
            first.node = self.node.take();
        }
        requests
    }

    /// Takes a response in and queues its ACK or NACK.
    pub fn response(&mut self, response: DeltaDiscoveryResponse) -> Result<Applied, UnexpectedType> {
        let judge = self.judge;
        let kinds = self.kinds;
        let Some(interest) = kinds.find(&response.type_url).and_then(|kind| self.interest_mut(kind)) else {
            return Err(UnexpectedType(response.type_url.chars().take(200).collect()));
        };
        let mut problems = Vec::new();
        let mut refused = Vec::new();
        let mut seen = HashSet::new();
        let mut change = Change::Nothing;
        for resource in response.resources {
            let name = resource.name.clone();
            let taken = if seen.insert(name.clone()) {
                interest.take(resource, kinds, judge)
            } else {
                Err(format!("{:?} {name:?}: it is in the response twice", interest.kind))
            };
            match taken {
                Ok(true) => change = Change::Known,
                Ok(false) => {}
                Err(problem) => {
                    change = Change::Known; // who waits for its first version waits in vain
                    problems.push(problem);
                    refused.push(name);
                }
            }
        }
        change = change.max(interest.remove(&response.removed_resources));
        interest.drop_unwanted();
        let complaint = (!problems.is_empty()).then(|| cut(problems.join("; "), MAX_COMPLAINT));
        let reply = complaint.clone().map(|message| Complaint { message, resources: refused });
        interest.replies.push((response.nonce, reply));
        Ok(Applied { change, complaint })
    }

    /// What was said of every name asked for.
    pub fn answers(&self, kind: TypeUrl) -> impl Iterator<Item = (&str, &Answer)> {
        let wants = self.interest(kind).map(|interest| &interest.wants);
        wants.into_iter().flatten().map(|(name, want)| (name.as_str(), &want.answer))
    }

    /// The last good resources, by canonical name.
    pub fn held(&self, kind: TypeUrl) -> impl Iterator<Item = &Arc<Encoded>> {
        self.interest(kind).into_iter().flat_map(|interest| interest.held.values())
    }

    /// The last good resources of every kind, in the order of the set.
    pub fn everything_held(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        self.interests.iter().flat_map(|interest| interest.held.values())
    }

    /// What is wrong with resources whose newest version is refused.
    pub fn complaints(&self) -> impl Iterator<Item = &str> {
        self.interests.iter().flat_map(|interest| interest.refused.values()).map(|refused| refused.complaint.as_str())
    }

    fn interest(&self, kind: TypeUrl) -> Option<&Interest> {
        self.interests.iter().find(|interest| interest.kind == kind)
    }

    fn interest_mut(&mut self, kind: TypeUrl) -> Option<&mut Interest> {
        self.interests.iter_mut().find(|interest| interest.kind == kind)
    }
}

impl Answer {
    /// The canonical name it stands for.
    pub fn held(&self) -> Option<&str> {
        match self {
            Self::Held(canonical) => Some(canonical),
            Self::Waiting | Self::Absent | Self::Refused => None,
        }
    }
}

fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        kinds::{DESTINATION, ENDPOINTS, SELVEDGE, TRUST_BUNDLE, describe, origin},
        proto::{
            discovery::Resource,
            mesh::{Destination, Endpoints, Origin},
        },
        server::{MAX_NAME, Response, Stream},
    };

    /// Refuses bodies that are no `Destination`, and those of generation 666.
    fn check(resource: &Encoded) -> Result<(), String> {
        match origin(resource) {
            Some(origin) if origin.generation == 666 => Err("it is bad".into()),
            _ => Ok(()),
        }
    }

    fn client() -> Client {
        Client::new(&SELVEDGE, Duration::from_secs(60), Judge { check, describe })
    }

    fn node() -> Node {
        Node { id: "a/w".into(), ..Node::default() }
    }

    fn destination(name: &str, aliases: &[&str], generation: u64) -> Encoded {
        let origin = Origin { kind: "Service".into(), namespace: "a".into(), name: name.into(), generation };
        let message = Destination { name: name.into(), origin: Some(origin), ..Destination::default() };
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        Encoded::new(DESTINATION, format!("a/{name}"), aliases, &message)
    }

    fn response(nonce: &str, resources: &[Encoded], removed: &[&str]) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            type_url: DESTINATION.to_string(),
            nonce: nonce.into(),
            resources: resources.iter().map(|r| r.to_wire(r.aliases.clone())).collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn generation(client: &Client, canonical: &str) -> Option<u64> {
        client.held(DESTINATION).find(|held| held.name == canonical).and_then(|held| Some(origin(held)?.generation))
    }

    #[test]
    fn ever_new_names_push_out_those_that_stand_for_nothing_and_are_not_used() {
        let mut client = client();
        let web = destination("web", &["web.a"], 1);
        client.want(DESTINATION, "web.a", Duration::from_secs(0));
        client.response(response("1", &[web], &[])).unwrap();
        client.want(DESTINATION, "192.0.2.7:443", Duration::from_secs(0));
        client.response(response("2", &[], &["192.0.2.7:443"])).unwrap();
        let most = MOST_ON_DEMAND as u64;
        for n in 0..2 * most {
            let made = client.want(DESTINATION, &format!("10.0.0.1:{n}"), Duration::from_secs(n));
            assert!(made < Change::Known, "what is known stays");
            client.touch(DESTINATION, "192.0.2.7:443", Duration::from_secs(n));
        }
        let names: Vec<&str> = client.answers(DESTINATION).map(|(name, _)| name).collect();
        assert!(names.len() <= MOST_ON_DEMAND);
        let is_kept = |name: &str| names.contains(&name);
        assert!(is_kept("web.a") && is_kept("192.0.2.7:443") && is_kept("10.0.0.1:8191") && !is_kept("10.0.0.1:0"));
    }

    #[test]
    fn where_every_name_stands_for_something_the_least_used_give_way_to_a_new_one() {
        let mut client = client();
        let all: Vec<Encoded> = (0..MOST_ON_DEMAND).map(|n| destination(&format!("d{n}"), &[], 1)).collect();
        for (n, resource) in (0..).zip(&all) {
            client.want(DESTINATION, &resource.name, Duration::from_secs(n));
        }
        client.response(response("1", &all, &[])).unwrap();
        client.touch(DESTINATION, "a/d0", Duration::from_secs(MOST_ON_DEMAND as u64));
        assert_eq!(client.want(DESTINATION, "a/new", Duration::from_secs(MOST_ON_DEMAND as u64)), Change::Known);
        let names: Vec<&str> = client.answers(DESTINATION).map(|(name, _)| name).collect();
        assert!(names.contains(&"a/new") && names.contains(&"a/d0") && !names.contains(&"a/d1"));
        assert!(names.len() > MOST_ON_DEMAND / 2);
        let held: Vec<&str> = client.held(DESTINATION).map(|held| &*held.name).collect();
        assert!(held.contains(&"a/d0") && !held.contains(&"a/d1"), "what nobody wants is not kept");
    }

    #[test]
    fn that_a_name_stands_for_nothing_is_told_apart_from_what_changes_resources() {
        let mut client = client();
        client.want(DESTINATION, "web.a", Duration::from_secs(0));
        client.want(DESTINATION, "none.a", Duration::from_secs(0));
        let change = |client: &mut Client, resources: &[Encoded], removed: &[&str]| {
            client.response(response("1", resources, removed)).unwrap().change
        };
        assert_eq!(change(&mut client, &[], &["none.a", "web.a"]), Change::Absent);
        assert_eq!(change(&mut client, &[], &["none.a"]), Change::Nothing);
        assert_eq!(change(&mut client, &[destination("web", &["web.a"], 1)], &[]), Change::Known);
        assert_eq!(change(&mut client, &[], &["web.a"]), Change::Known, "it stood for something");
        client.touch(DESTINATION, "web.a", Duration::from_secs(30));
        assert_eq!(client.expire(Duration::from_secs(60)), Change::Absent);
        client.pin(DESTINATION, "a/pinned");
        assert_eq!(change(&mut client, &[], &["a/pinned"]), Change::Known, "what it is needed for may wait for it");
    }

    #[test]
    fn a_stream_begins_with_node_names_and_what_is_known() {
        let mut client = client();
        client.want(DESTINATION, "web.a", Duration::from_secs(0));
        client.pin(TRUST_BUNDLE, "mesh.local");
        client.connected(node());
        let requests = client.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].type_url, TRUST_BUNDLE.to_string());
        assert_eq!(requests[0].node.as_ref().unwrap().id, "a/w");
        assert_eq!(requests[1].resource_names_subscribe, ["web.a"]);
        assert!(requests[1].node.is_none() && requests[1].initial_resource_versions.is_empty());
        assert!(client.requests().is_empty(), "nothing is said twice");

        let web = destination("web", &["web.a"], 1);
        client.response(response("1", std::slice::from_ref(&web), &[])).unwrap();
        client.want(DESTINATION, "gone.a", Duration::from_secs(0));
        client.response(response("2", &[], &["gone.a"])).unwrap();
        client.connected(node());
        let resumed = &client.requests()[1];
        let versions = [("web.a".to_owned(), web.version), ("gone.a".to_owned(), String::new())];
        assert_eq!(resumed.initial_resource_versions, HashMap::from(versions));
    }

    #[test]
    fn many_names_are_asked_for_in_requests_of_bounded_size() {
        let mut client = client();
        let names: Vec<String> = (0..2500).map(|n| format!("a/d{n:04}")).collect();
        names.iter().for_each(|name| client.restore(destination(&name[2..], &[], 1), Duration::from_secs(0)).unwrap());
        client.connected(node());
        let requests = client.requests();
        assert_eq!(requests.iter().map(|r| r.resource_names_subscribe.len()).collect::<Vec<_>>(), [1000, 1000, 500]);
        for request in &requests {
            let known = |name: &String| request.initial_resource_versions.contains_key(name);
            assert!(request.resource_names_subscribe.iter().all(known), "each says what is held of its names");
        }
        assert!(requests.iter().flat_map(|request| &request.resource_names_subscribe).eq(&names));
        assert!(client.requests().is_empty());
    }

    #[test]
    fn good_resources_of_a_partly_bad_response_are_in_force_and_bad_ones_keep_their_last_good_version() {
        let mut client = client();
        for name in ["a/web", "a/api"] {
            client.want(DESTINATION, name, Duration::from_secs(0));
        }
        client.connected(node());
        client.requests();
        client.response(response("1", &[destination("web", &[], 1), destination("api", &[], 1)], &[])).unwrap();
        client.requests();
        let mixed = response("2", &[destination("web", &[], 666), destination("api", &[], 2)], &[]);
        let applied = client.response(mixed).unwrap();
        assert_eq!(applied.change, Change::Known);
        assert_eq!((generation(&client, "a/web"), generation(&client, "a/api")), (Some(1), Some(2)));
        let reply = client.requests().remove(0);
        assert_eq!(reply.response_nonce, "2");
        let complaint = reply.error_detail.unwrap();
        assert_eq!(complaint.code, 3, "INVALID_ARGUMENT");
        assert_eq!(complaint.message, "Service a/web generation 666 (Destination a/web): it is bad");
        assert_eq!(client.complaints().count(), 1);
        client.response(response("3", &[destination("web", &[], 3)], &[])).unwrap();
        assert_eq!((generation(&client, "a/web"), client.complaints().count()), (Some(3), 0));
    }

    #[test]
    fn a_first_version_that_is_refused_ends_the_waiting() {
        let mut client = client();
        client.want(DESTINATION, "web.a", Duration::from_secs(0));
        let applied = client.response(response("1", &[destination("web", &["web.a"], 666)], &[])).unwrap();
        assert_eq!(applied.change, Change::Known);
        assert_eq!(client.answers(DESTINATION).next(), Some(("web.a", &Answer::Refused)));
    }

    #[test]
    fn a_refusal_ends_with_the_last_name_that_stands_for_the_resource() {
        let refuse = |client: &mut Client| {
            client.want(DESTINATION, "web.a", Duration::from_secs(0));
            client.response(response("1", &[destination("web", &["web.a"], 666)], &[])).unwrap();
            assert_eq!(client.complaints().count(), 1);
        };
        let mut client = client();
        refuse(&mut client);
        assert_eq!(client.expire(Duration::from_secs(60)), Change::Known);
        assert_eq!(client.complaints().count(), 0, "nobody uses it");
        refuse(&mut client);
        client.response(response("2", &[], &["web.a"])).unwrap();
        assert_eq!(client.complaints().count(), 0, "it is gone");
    }

    #[test]
    fn a_refusal_stands_while_any_name_that_it_was_ever_told_for_does() {
        let mut client = client();
        client.want(DESTINATION, "web.a", Duration::from_secs(50));
        client.response(response("1", &[destination("web", &["web.a"], 1)], &[])).unwrap();
        client.response(response("2", &[destination("web", &["web.a"], 666)], &[])).unwrap();
        client.want(DESTINATION, "10.0.0.1:80", Duration::from_secs(0));
        client.response(response("3", &[destination("web", &["10.0.0.1:80"], 666)], &[])).unwrap();
        assert_eq!(client.expire(Duration::from_secs(60)), Change::Known, "the address is not used any more");
        assert_eq!(client.complaints().count(), 1, "web.a still stands for an older version than there is");
        assert_eq!(client.expire(Duration::from_secs(110)), Change::Known);
        assert_eq!(client.complaints().count(), 0);
    }

    #[test]
    fn the_server_learns_exactly_which_resources_are_refused_however_many_there_are() {
        let mut client = client();
        let mut server = Stream::new(&SELVEDGE);
        // Names that are parts of each other, each with a complaint, far more than a message has room for.
        let is_bad = |n: usize| n.is_multiple_of(3);
        let all: Vec<Encoded> =
            (0..300).map(|n| destination(&format!("web-{n}"), &[], if is_bad(n) { 666 } else { 1 })).collect();
        for resource in &all {
            client.want(DESTINATION, &resource.name, Duration::from_secs(0));
        }
        client.connected(node());
        client.requests().into_iter().for_each(|request| drop(server.request(request).unwrap()));
        let find = |_: TypeUrl, name: &str| all.iter().find(|r| r.name == name).map(|found| Arc::new(found.clone()));
        let response = server.responses(&find, &"1".into()).remove(0);
        let applied = client.response(response.to_message()).unwrap();
        assert!(applied.complaint.unwrap().len() <= MAX_COMPLAINT + '…'.len_utf8());
        let reply = server.request(client.requests().remove(0)).unwrap().unwrap();
        let named = |resources: &[Arc<Encoded>]| resources.iter().map(|r| r.name.clone()).collect::<BTreeSet<_>>();
        let expected = |bad| (0..300).filter(|n| is_bad(*n) == bad).map(|n| format!("a/web-{n}")).collect();
        assert_eq!((named(&reply.refused), named(&reply.taken)), (expected(true), expected(false)));
    }

    #[test]
    fn malformed_responses_are_refused_with_the_name_of_what_is_wrong() {
        let good = destination("web", &[], 1);
        let wire = || good.to_wire(Vec::new());
        let other_type = Encoded::new(ENDPOINTS, "a/web", Vec::new(), &Endpoints::default()).to_wire(Vec::new());
        let cases = [
            ("name is empty", vec![Resource { name: String::new(), ..wire() }]),
            ("name is empty, too long", vec![Resource { name: "x".repeat(MAX_NAME + 1), ..wire() }]),
            ("control characters", vec![Resource { name: "a/we\nb".into(), ..wire() }]),
            ("content is missing", vec![Resource { resource: None, ..wire() }]),
            ("another type", vec![other_type]),
            ("twice", vec![wire(), wire()]),
        ];
        for (expected, resources) in cases {
            let mut client = client();
            client.want(DESTINATION, "a/web", Duration::from_secs(0));
            let applied = client.response(DeltaDiscoveryResponse { resources, ..response("1", &[], &[]) }).unwrap();
            let complaint = applied.complaint.unwrap_or_default();
            assert!(complaint.contains(expected), "{complaint:?} does not say {expected:?}");
        }
        let unknown = DeltaDiscoveryResponse { type_url: "x".into(), ..DeltaDiscoveryResponse::default() };
        assert!(client().response(unknown).is_err());
    }

    #[test]
    fn a_name_nobody_uses_is_given_up_and_a_pinned_one_never() {
        let mut client = client();
        client.want(DESTINATION, "web.a", Duration::from_secs(0));
        client.want(DESTINATION, "api.a", Duration::from_secs(0));
        client.pin(DESTINATION, "a/pinned");
        client.connected(node());
        client.requests();
        client.response(response("1", &[destination("web", &["web.a"], 1)], &[])).unwrap();
        client.requests();
        client.touch(DESTINATION, "api.a", Duration::from_secs(50));
        assert_eq!(client.expire(Duration::from_secs(59)), Change::Nothing);
        assert_eq!(client.expire(Duration::from_secs(60)), Change::Known);
        assert_eq!(client.held(DESTINATION).count(), 0, "what nobody wants is not kept");
        let requests = client.requests();
        assert_eq!(requests[0].resource_names_unsubscribe, ["web.a"]);
        let left: Vec<&str> = client.answers(DESTINATION).map(|(name, _)| name).collect();
        assert_eq!(left, ["a/pinned", "api.a"]);
        client.response(response("2", &[destination("web", &["web.a"], 2)], &[])).unwrap();
        assert_eq!(client.held(DESTINATION).count(), 0, "a late response changes nothing");
    }

    #[test]
    fn what_the_disk_had_is_in_force_and_is_resumed() {
        let mut client = client();
        let web = destination("web", &["web.a"], 1);
        client.restore(web.clone(), Duration::from_secs(0)).unwrap();
        assert!(client.restore(destination("bad", &[], 666), Duration::from_secs(0)).is_err());
        assert_eq!(generation(&client, "a/web"), Some(1));
        client.connected(node());
        let request = client.requests().remove(0);
        assert_eq!(request.initial_resource_versions["web.a"], web.version);
        assert_eq!(request.resource_names_subscribe, ["a/web", "web.a"]);
    }

    /// What the control plane knows: destination number -> (generation, aliases).
    type World = BTreeMap<u8, (u64, BTreeSet<u8>)>;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u64, BTreeSet<u8>),
        Remove(u8),
        Want(String),
        GiveUp(String),
        /// Deliver this many messages in each direction.
        Deliver(u8),
        Reconnect,
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![(0..4u8).prop_map(|n| format!("a/d{n}")), (0..6u8).prop_map(|n| format!("alias{n}"))]
    }

    fn step() -> impl Strategy<Value = Step> {
        let aliases = proptest::collection::btree_set(0..6u8, 0..3);
        prop_oneof![
            3 => (0..4u8, 1..5u64, aliases).prop_map(|(d, generation, aliases)| Step::Put(d, generation, aliases)),
            1 => (0..4u8).prop_map(Step::Remove),
            3 => name().prop_map(Step::Want),
            1 => name().prop_map(Step::GiveUp),
            4 => (1..4u8).prop_map(Step::Deliver),
            1 => Just(Step::Reconnect),
        ]
    }

    fn find(world: &World, kind: TypeUrl, name: &str) -> Option<Arc<Encoded>> {
        let of = |d: u8, (generation, aliases): &(u64, BTreeSet<u8>)| {
            let aliases: Vec<String> = aliases.iter().map(|alias| format!("alias{alias}")).collect();
            let aliases: Vec<&str> = aliases.iter().map(String::as_str).collect();
            Arc::new(destination(&format!("d{d}"), &aliases, *generation))
        };
        (kind == DESTINATION).then_some(())?;
        let mut all = world.iter().map(|(d, facts)| of(*d, facts));
        all.find(|r| r.name == name || r.aliases.iter().any(|alias| alias == name))
    }

    /// Client and server with a pipe between them that forgets everything under way when it is reconnected.
    struct Pipe {
        client: Client,
        server: Stream,
        world: World,
        to_server: Vec<DeltaDiscoveryRequest>,
        to_client: Vec<DeltaDiscoveryResponse>,
        delivered: usize,
    }

    impl Pipe {
        fn take(&mut self, step: Step) {
            match step {
                Step::Put(d, generation, aliases) => {
                    self.tell(d);
                    self.world.insert(d, (generation, aliases));
                    self.tell(d);
                }
                Step::Remove(d) => {
                    self.tell(d);
                    self.world.remove(&d);
                }
                Step::Want(name) => {
                    self.client.want(DESTINATION, &name, Duration::from_secs(0));
                }
                Step::GiveUp(name) => {
                    self.client.interest_mut(DESTINATION).unwrap().give_up(&[name]);
                }
                Step::Deliver(count) => (0..count).for_each(|_| self.deliver()),
                Step::Reconnect => {
                    self.server = Stream::new(&SELVEDGE);
                    self.to_server.clear();
                    self.to_client.clear();
                    self.client.connected(node());
                }
            }
        }

        /// Tells the server of every name `d` has now.
        fn tell(&mut self, d: u8) {
            let aliases = self.world.get(&d).into_iter().flat_map(|(_, aliases)| aliases);
            let names = aliases.map(|alias| format!("alias{alias}")).chain([format!("a/d{d}")]);
            names.for_each(|name| self.server.changed_name(DESTINATION, &name));
        }

        fn deliver(&mut self) {
            self.to_server.extend(self.client.requests());
            if !self.to_server.is_empty() {
                self.server.request(self.to_server.remove(0)).unwrap();
            }
            let world = &self.world;
            let responses = self.server.responses(&|kind, name| find(world, kind, name), &"1".into());
            self.to_client.extend(responses.iter().map(Response::to_message));
            if !self.to_client.is_empty() {
                let response = self.to_client.remove(0);
                self.delivered += response.resources.len() + response.removed_resources.len();
                self.client.response(response).unwrap();
            }
        }

        fn settle(&mut self) {
            (0..200).for_each(|_| self.deliver());
        }
    }

    proptest! {
        #[test]
        fn client_and_server_agree_after_any_history(steps in proptest::collection::vec(step(), 0..60)) {
            let mut pipe = Pipe {
                client: client(),
                server: Stream::new(&SELVEDGE),
                world: World::new(),
                to_server: Vec::new(),
                to_client: Vec::new(),
                delivered: 0,
            };
            pipe.client.connected(node());
            steps.into_iter().for_each(|step| pipe.take(step));
            pipe.settle();
            for (name, answer) in pipe.client.answers(DESTINATION) {
                match find(&pipe.world, DESTINATION, name) {
                    None => prop_assert_eq!(answer, &Answer::Absent, "of {}", name),
                    Some(expected) => {
                        prop_assert_eq!(answer.held(), Some(expected.name.as_str()), "of {}", name);
                        let held = pipe.client.held(DESTINATION).find(|held| held.name == expected.name);
                        prop_assert_eq!(&held.unwrap().version, &expected.version, "of {}", name);
                    }
                }
            }
            let before = pipe.delivered;
            pipe.server.changed();
            pipe.settle();
            prop_assert_eq!(pipe.delivered, before, "something was sent although nothing changed");
            pipe.take(Step::Reconnect);
            pipe.settle();
            prop_assert_eq!(pipe.delivered, before, "something was sent again after a reconnection");
        }

        #[test]
        fn no_response_makes_the_client_panic(
            kind in 0..5usize,
            names in proptest::collection::vec(".{0,8}", 0..4),
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut client = client();
            client.want(DESTINATION, "a/web", Duration::from_secs(0));
            let type_url = SELVEDGE.order().get(kind).map_or("junk".to_owned(), ToString::to_string);
            let wanted = "a/web".to_owned();
            let resources = names.iter().chain([&wanted]).map(|name| Resource {
                name: name.clone(),
                resource: Some(prost_types::Any { type_url: type_url.clone(), value: body.clone() }),
                aliases: names.clone(),
                ..Resource::default()
            });
            let response = DeltaDiscoveryResponse {
                type_url: type_url.clone(),
                resources: resources.collect(),
                removed_resources: names.clone(),
                ..DeltaDiscoveryResponse::default()
            };
            let _refused_or_not = client.response(response);
        }
    }
}
