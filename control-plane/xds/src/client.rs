//! The asking half of the delta protocol, one [`Client`] per sidecar: wants and responses in, requests and the
//! last good resources out, no I/O and no clock (a [`Moment`] is handed in).
//!
//! Guarantees:
//! - A resource is in force only once the caller's check took it. A response with a bad resource is refused (NACK)
//!   with a message that names the user's object; its good resources are in force, its bad ones keep their last
//!   good version.
//! - What is held survives a lost stream: [`Client::connected`] resumes with the versions held.
//! - A name asked for on demand is given up when it was not used for the idle time; a pinned one never.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use prost::Message;
use selvedge_policies::facts::Moment;

use crate::{
    proto::{
        discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status},
        mesh::{Destination, Inbound, Origin},
    },
    resource::{Encoded, Kind},
    server::MAX_NAME,
};

/// Whether a resource can be put in force; the error says why not.
pub type Check = fn(&Encoded) -> Result<(), String>;

/// `INVALID_ARGUMENT` of google.rpc.Code.
const INVALID_ARGUMENT: i32 = 3;
/// Longest NACK message, in bytes; a longer one is cut.
const MAX_COMPLAINT: usize = 4096;

/// What the control plane said of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    Waiting,
    /// There is no such resource.
    Absent,
    /// There is one, and no version of it could be put in force.
    Refused,
    /// It stands for the resource of this canonical name.
    Held(String),
}

/// What a response did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Whether any answer or resource is another one now.
    pub changed: bool,
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
    node: Node,
    idle: Duration,
    check: Check,
    kinds: [Interest; Kind::ALL.len()],
    node_sent: bool,
}

#[derive(Debug)]
struct Want {
    pinned: bool,
    last_used: Moment,
    answer: Answer,
}

/// One kind.
#[derive(Debug, Default)]
struct Interest {
    wants: BTreeMap<String, Want>,
    held: BTreeMap<String, Arc<Encoded>>,
    /// Complaints about the newest version of resources, by canonical name.
    refused: BTreeMap<String, String>,
    subscribe: BTreeSet<String>,
    unsubscribe: BTreeSet<String>,
    replies: Vec<(String, Option<String>)>,
    /// The next request is the first of its kind on the stream and says what is held.
    resuming: bool,
}

impl Client {
    /// A client that wants nothing yet. On-demand names expire after `idle`.
    pub fn new(node: Node, idle: Duration, check: Check) -> Self {
        Self { node, idle, check, kinds: Default::default(), node_sent: false }
    }

    /// Wants `name` for as long as the client lives.
    pub fn pin(&mut self, kind: Kind, name: &str) {
        self.interest_mut(kind).want(name, true, Moment::default());
    }

    /// Wants exactly `names` of `kind`: new ones are pinned, others are given up. Whether anything held was lost.
    pub fn pin_exactly(&mut self, kind: Kind, names: &BTreeSet<String>) -> bool {
        let interest = self.interest_mut(kind);
        let surplus: Vec<String> = interest.wants.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in names {
            interest.want(name, true, Moment::default());
        }
        interest.give_up(&surplus)
    }

    /// Wants `name` on demand; it counts as used `now`.
    pub fn want(&mut self, kind: Kind, name: &str, now: Moment) {
        self.interest_mut(kind).want(name, false, now);
    }

    /// Notes a use of a name that was asked for on demand; an unknown name is not asked for by this.
    pub fn touch(&mut self, kind: Kind, name: &str, now: Moment) {
        if let Some(want) = self.interest_mut(kind).wants.get_mut(name) {
            want.last_used = now;
        }
    }

    /// Gives up on-demand names that were not used for the idle time. Whether there were any.
    pub fn expire(&mut self, now: Moment) -> bool {
        let idle = u64::try_from(self.idle.as_nanos()).unwrap_or(u64::MAX);
        let is_idle = |want: &Want| !want.pinned && now.nanos.saturating_sub(want.last_used.nanos) >= idle;
        let mut any = false;
        for interest in &mut self.kinds {
            let names: Vec<String> =
                interest.wants.iter().filter(|(_, want)| is_idle(want)).map(|(name, _)| name.clone()).collect();
            any |= !names.is_empty();
            interest.give_up(&names);
        }
        any
    }

    /// Puts a resource in force that was good in an earlier life of the process, with the names it was asked by.
    /// Names that are not pinned are wanted on demand. Refused by the same check as one from the network.
    pub fn restore(&mut self, resource: Encoded, now: Moment) -> Result<(), String> {
        (self.check)(&resource)?;
        let interest = self.interest_mut(resource.kind);
        for name in resource.aliases.iter().chain([&resource.name]) {
            interest.want(name, false, now);
        }
        interest.hold(resource);
        Ok(())
    }

    /// A new stream stands: everything is to be said again.
    pub fn connected(&mut self) {
        self.node_sent = false;
        for interest in &mut self.kinds {
            interest.resuming = true;
            interest.replies.clear();
            interest.unsubscribe.clear();
            interest.subscribe = interest.wants.keys().cloned().collect();
        }
    }

    /// Everything that is to be sent now, in order.
    pub fn requests(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut requests: Vec<_> =
            Kind::ALL.into_iter().flat_map(|kind| self.interest_mut(kind).requests(kind)).collect();
        if let (false, Some(first)) = (self.node_sent, requests.first_mut()) {
            first.node = Some(self.node.clone());
            self.node_sent = true;
        }
        requests
    }

    /// Takes a response in and queues its ACK or NACK.
    pub fn response(&mut self, response: DeltaDiscoveryResponse) -> Result<Applied, UnexpectedType> {
        let Some(kind) = Kind::of(&response.type_url) else {
            return Err(UnexpectedType(response.type_url.chars().take(200).collect()));
        };
        let check = self.check;
        let interest = self.interest_mut(kind);
        let mut problems = Vec::new();
        let mut seen = HashSet::new();
        let mut changed = false;
        for resource in response.resources {
            if !seen.insert(resource.name.clone()) {
                problems.push(format!("{kind:?} {:?}: it is in the response twice", resource.name));
                continue;
            }
            match interest.take(kind, resource, check) {
                Ok(new) => changed |= new,
                Err(problem) => problems.push(problem),
            }
        }
        changed |= interest.remove(&response.removed_resources);
        interest.drop_unwanted();
        let complaint = (!problems.is_empty()).then(|| cut(problems.join("; "), MAX_COMPLAINT));
        interest.replies.push((response.nonce, complaint.clone()));
        Ok(Applied { changed, complaint })
    }

    /// What was said of every name asked for.
    pub fn answers(&self, kind: Kind) -> impl Iterator<Item = (&str, &Answer)> {
        self.kinds[kind as usize].wants.iter().map(|(name, want)| (name.as_str(), &want.answer))
    }

    /// The last good resources, by canonical name.
    pub fn held(&self, kind: Kind) -> impl Iterator<Item = &Arc<Encoded>> {
        self.kinds[kind as usize].held.values()
    }

    /// What is wrong with resources whose newest version is refused.
    pub fn complaints(&self) -> impl Iterator<Item = &str> {
        self.kinds.iter().flat_map(|interest| interest.refused.values()).map(String::as_str)
    }

    fn interest_mut(&mut self, kind: Kind) -> &mut Interest {
        &mut self.kinds[kind as usize]
    }
}

impl Interest {
    fn want(&mut self, name: &str, pinned: bool, now: Moment) {
        if let Some(want) = self.wants.get_mut(name) {
            want.pinned |= pinned;
            want.last_used = want.last_used.max(now);
            return;
        }
        let answer = if self.held.contains_key(name) { Answer::Held(name.to_owned()) } else { Answer::Waiting };
        self.wants.insert(name.to_owned(), Want { pinned, last_used: now, answer });
        self.unsubscribe.remove(name);
        self.subscribe.insert(name.to_owned());
    }

    /// Whether anything was given up.
    fn give_up(&mut self, names: &[String]) -> bool {
        for name in names {
            self.refused.remove(name);
            self.wants.remove(name);
            self.subscribe.remove(name);
            self.unsubscribe.insert(name.clone());
        }
        self.drop_unwanted();
        !names.is_empty()
    }

    fn drop_unwanted(&mut self) {
        let standing: HashSet<&str> = self.wants.values().filter_map(|want| want.answer.held()).collect();
        self.held.retain(|canonical, _| standing.contains(canonical.as_str()));
    }

    /// Puts one resource of a response in force. Whether that changed anything.
    fn take(&mut self, kind: Kind, resource: Resource, check: Check) -> Result<bool, String> {
        let encoded = decode(kind, resource)?;
        if !self.is_wanted(&encoded) {
            return Ok(false); // given up while the response was under way
        }
        if let Err(problem) = check(&encoded) {
            let complaint = complaint(&encoded, &problem);
            self.refuse(&encoded, complaint.clone());
            return Err(complaint);
        }
        Ok(self.hold(encoded))
    }

    /// Names that stand for nothing yet get to know that waiting is in vain; others keep what they stand for.
    fn refuse(&mut self, resource: &Encoded, complaint: String) {
        self.refused.insert(resource.name.clone(), complaint);
        for name in resource.aliases.iter().chain([&resource.name]) {
            if let Some(want) = self.wants.get_mut(name).filter(|want| want.answer.held().is_none()) {
                want.answer = Answer::Refused;
            }
        }
    }

    fn is_wanted(&self, resource: &Encoded) -> bool {
        resource.aliases.iter().chain([&resource.name]).any(|name| self.wants.contains_key(name))
    }

    fn hold(&mut self, resource: Encoded) -> bool {
        let mut changed = false;
        for name in resource.aliases.iter().chain([&resource.name]) {
            if let Some(want) = self.wants.get_mut(name) {
                changed |= want.answer.held() != Some(&resource.name);
                want.answer = Answer::Held(resource.name.clone());
            }
        }
        let name = resource.name.clone();
        let version = resource.version.clone();
        self.refused.remove(&name);
        let before = self.held.insert(name, Arc::new(resource));
        changed || before.is_none_or(|old| old.version != version)
    }

    fn remove(&mut self, names: &[String]) -> bool {
        let mut changed = false;
        for name in names {
            self.refused.remove(name);
            if let Some(want) = self.wants.get_mut(name) {
                changed |= want.answer != Answer::Absent;
                want.answer = Answer::Absent;
            }
        }
        changed
    }

    fn requests(&mut self, kind: Kind) -> Vec<DeltaDiscoveryRequest> {
        let mut requests: Vec<_> = self
            .replies
            .drain(..)
            .map(|(nonce, complaint)| DeltaDiscoveryRequest {
                type_url: kind.type_url(),
                response_nonce: nonce,
                error_detail: complaint.map(|message| Status { code: INVALID_ARGUMENT, message }),
                ..DeltaDiscoveryRequest::default()
            })
            .collect();
        if self.subscribe.is_empty() && self.unsubscribe.is_empty() {
            return requests;
        }
        requests.push(DeltaDiscoveryRequest {
            type_url: kind.type_url(),
            initial_resource_versions: if self.resuming { self.versions() } else { HashMap::new() },
            resource_names_subscribe: std::mem::take(&mut self.subscribe).into_iter().collect(),
            resource_names_unsubscribe: std::mem::take(&mut self.unsubscribe).into_iter().collect(),
            ..DeltaDiscoveryRequest::default()
        });
        self.resuming = false;
        requests
    }

    /// What is known of each name asked for, as the server wants it for a resumption.
    fn versions(&self) -> HashMap<String, String> {
        let version = |answer: &Answer| match answer {
            Answer::Waiting | Answer::Refused => None,
            Answer::Absent => Some(String::new()),
            Answer::Held(canonical) => self.held.get(canonical).map(|resource| resource.version.clone()),
        };
        self.wants.iter().filter_map(|(name, want)| Some((name.clone(), version(&want.answer)?))).collect()
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

fn decode(kind: Kind, resource: Resource) -> Result<Encoded, String> {
    let name = resource.name.clone();
    let bad = |problem: &str| format!("{kind:?} {:?}: {problem}", cut(name.clone(), 100));
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(bad("the name is empty, too long or has control characters"));
    }
    let encoded = Encoded::from_wire(resource).filter(|encoded| encoded.kind == kind);
    encoded.ok_or_else(|| bad("its content is missing or of another type"))
}

/// `Service shop/web generation 3 (Destination shop/web): problem`.
fn complaint(resource: &Encoded, problem: &str) -> String {
    let place = format!("{:?} {}", resource.kind, resource.name);
    match origin(resource) {
        Some(Origin { kind, namespace, name, generation }) => {
            format!("{kind} {namespace}/{name} generation {generation} ({place}): {problem}")
        }
        None => format!("{place}: {problem}"),
    }
}

/// The user's object a resource came from, where the resource says so.
pub fn origin(resource: &Encoded) -> Option<Origin> {
    match resource.kind {
        Kind::Destination => Destination::decode(resource.body.clone()).ok()?.origin,
        Kind::Inbound => Inbound::decode(resource.body.clone()).ok()?.origin,
        Kind::TrustBundle | Kind::Endpoints => None,
    }
}

fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        text.push('…');
    }
    text
}
