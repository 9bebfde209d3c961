//! What a client wants and holds of one kind.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use prost::{Message, Name};

use super::{Answer, Change, Judge, cut};
use crate::{
    proto::{
        discovery::{DeltaDiscoveryRequest, Resource, Status},
        mesh::Refusal,
    },
    resource::{Encoded, KindSet, TypeUrl},
    server::MAX_NAME,
};

/// `INVALID_ARGUMENT` of google.rpc.Code.
const INVALID_ARGUMENT: i32 = 3;
/// Names of one request, so that its size does not depend on how many there are.
const MOST_NAMES: usize = 1000;

#[derive(Debug)]
pub(super) struct Want {
    pub(super) pinned: bool,
    pub(super) last_used: Duration,
    pub(super) answer: Answer,
}

/// The newest version of a resource that is refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) complaint: String,
    /// The names it was ever asked by, and its own: each response has only those that it answers.
    names: BTreeSet<String>,
}

/// What is wrong with a response.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    /// For people; long ones are cut.
    pub(super) message: String,
    /// Names of the resources refused, all of them.
    pub(super) resources: Vec<String>,
}

/// What is wanted, held and refused of one kind of resource.
#[derive(Debug)]
pub(super) struct Interest {
    pub(super) kind: TypeUrl,
    pub(super) wants: BTreeMap<String, Want>,
    pub(super) held: BTreeMap<String, Arc<Encoded>>,
    /// Resources whose newest version is refused, by canonical name.
    pub(super) refused: BTreeMap<String, Refused>,
    pub(super) subscribe: BTreeSet<String>,
    pub(super) unsubscribe: BTreeSet<String>,
    pub(super) replies: Vec<(String, Option<Complaint>)>,
    /// The next request is the first of its kind on the stream and says what is held.
    pub(super) resuming: bool,
}

impl Interest {
    pub(super) fn new(kind: TypeUrl) -> Self {
        Self {
            kind,
            wants: BTreeMap::new(),
            held: BTreeMap::new(),
            refused: BTreeMap::new(),
            subscribe: BTreeSet::new(),
            unsubscribe: BTreeSet::new(),
            replies: Vec::new(),
            resuming: false,
        }
    }

    pub(super) fn want(&mut self, name: &str, pinned: bool, now: Duration) {
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

    /// Makes room for one more name among `most`. An eighth of those that are needed least goes at once, so that looking for
    /// them costs little for each new name, however fast these come.
    pub(super) fn make_room(&mut self, most: usize) -> Change {
        if self.wants.len() < most {
            return Change::Nothing;
        }
        let such = |held: bool| {
            let of_demand = self.wants.iter().filter(|(_, want)| !want.pinned);
            let such = of_demand.filter(|(_, want)| want.answer.held().is_some() == held);
            // A name goes before what it begins with: an `ip:port` is nobody's only while it is known of that address, too.
            such.map(|(name, want)| (want.last_used, Reverse(name))).collect()
        };
        let mut least: Vec<(Duration, Reverse<&String>)> = such(false);
        if least.is_empty() {
            least = such(true);
        }
        least.sort_unstable();
        let names: Vec<String> =
            least.iter().take(least.len().div_ceil(8)).map(|(_, Reverse(name))| String::clone(name)).collect();
        self.give_up(&names)
    }

    /// What became of what is known by it.
    pub(super) fn give_up(&mut self, names: &[String]) -> Change {
        let mut change = Change::Nothing;
        for name in names {
            let answer = self.wants.remove(name).map(|want| want.answer);
            change = change.max(match answer {
                None | Some(Answer::Waiting) => Change::Nothing,
                Some(Answer::Absent) => Change::Absent,
                Some(Answer::Refused | Answer::Held(_)) => Change::Known,
            });
            self.subscribe.remove(name);
            self.unsubscribe.insert(name.clone());
        }
        if change == Change::Known || !self.refused.is_empty() {
            self.drop_unwanted();
        }
        change
    }

    pub(super) fn drop_unwanted(&mut self) {
        let standing: HashSet<&str> = self.wants.values().filter_map(|want| want.answer.held()).collect();
        self.held.retain(|canonical, _| standing.contains(canonical.as_str()));
        let may_stand = |name: &String| self.wants.get(name).is_some_and(|want| want.answer != Answer::Absent);
        self.refused.retain(|_, refused| refused.names.iter().any(may_stand));
    }

    /// Puts one resource of a response in force. Whether that changed anything.
    pub(super) fn take(&mut self, resource: Resource, kinds: &KindSet, judge: Judge) -> Result<bool, String> {
        let encoded = decode(self.kind, resource, kinds)?;
        if !self.is_wanted(&encoded) {
            return Ok(false); // given up while the response was under way
        }
        if let Err(problem) = (judge.check)(&encoded) {
            let complaint = complaint(&encoded, (judge.describe)(&encoded), &problem);
            self.refuse(&encoded, complaint.clone());
            return Err(complaint);
        }
        Ok(self.hold(encoded))
    }

    /// Names that stand for nothing yet get to know that waiting is in vain; others keep what they stand for.
    fn refuse(&mut self, resource: &Encoded, complaint: String) {
        let mut names = self.refused.remove(&resource.name).map(|before| before.names).unwrap_or_default();
        for name in resource.aliases.iter().chain([&resource.name]) {
            if let Some(want) = self.wants.get_mut(name).filter(|want| want.answer.held().is_none()) {
                want.answer = Answer::Refused;
            }
            names.insert(name.clone());
        }
        self.refused.insert(resource.name.clone(), Refused { complaint, names });
    }

    fn is_wanted(&self, resource: &Encoded) -> bool {
        resource.aliases.iter().chain([&resource.name]).any(|name| self.wants.contains_key(name))
    }

    pub(super) fn hold(&mut self, resource: Encoded) -> bool {
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

    /// Notes that these names stand for nothing. What is pinned is needed for something else, which waits for any answer.
    pub(super) fn remove(&mut self, names: &[String]) -> Change {
        let mut change = Change::Nothing;
        for name in names {
            let Some(want) = self.wants.get_mut(name) else { continue };
            change = change.max(match std::mem::replace(&mut want.answer, Answer::Absent) {
                Answer::Absent => Change::Nothing,
                Answer::Waiting if !want.pinned => Change::Absent,
                Answer::Waiting | Answer::Refused | Answer::Held(_) => Change::Known,
            });
        }
        change
    }

    pub(super) fn requests(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut requests: Vec<_> = self
            .replies
            .drain(..)
            .map(|(nonce, complaint)| DeltaDiscoveryRequest {
                type_url: self.kind.to_string(),
                response_nonce: nonce,
                error_detail: complaint.map(Complaint::into_wire),
                ..DeltaDiscoveryRequest::default()
            })
            .collect();
        if self.subscribe.is_empty() && self.unsubscribe.is_empty() {
            return requests;
        }
        let mut subscribe = std::mem::take(&mut self.subscribe).into_iter();
        let mut unsubscribe = std::mem::take(&mut self.unsubscribe).into_iter();
        while subscribe.len() + unsubscribe.len() > 0 {
            let names: Vec<String> = subscribe.by_ref().take(MOST_NAMES).collect();
            requests.push(DeltaDiscoveryRequest {
                type_url: self.kind.to_string(),
                initial_resource_versions: if self.resuming { self.versions(&names) } else { HashMap::new() },
                resource_names_subscribe: names,
                resource_names_unsubscribe: unsubscribe.by_ref().take(MOST_NAMES).collect(),
                ..DeltaDiscoveryRequest::default()
            });
        }
        self.resuming = false;
        requests
    }

    /// What is known of each of `names`, as the server wants it for a resumption.
    fn versions(&self, names: &[String]) -> HashMap<String, String> {
        let version = |answer: &Answer| match answer {
            Answer::Waiting | Answer::Refused => None,
            Answer::Absent => Some(String::new()),
            Answer::Held(canonical) => self.held.get(canonical).map(|resource| resource.version.clone()),
        };
        names.iter().filter_map(|name| Some((name.clone(), version(&self.wants.get(name)?.answer)?))).collect()
    }
}

impl Complaint {
    fn into_wire(self) -> Status {
        let refusal = Refusal { resources: self.resources };
        let detail = prost_types::Any { type_url: Refusal::type_url(), value: refusal.encode_to_vec() };
        Status { code: INVALID_ARGUMENT, message: self.message, details: vec![detail] }
    }
}

fn decode(kind: TypeUrl, resource: Resource, kinds: &KindSet) -> Result<Encoded, String> {
    let name = resource.name.clone();
    let bad = |problem: &str| format!("{kind:?} {:?}: {problem}", cut(name.clone(), 100));
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(bad("the name is empty, too long or has control characters"));
    }
    let encoded = Encoded::from_wire(resource, kinds).filter(|encoded| encoded.kind == kind);
    encoded.ok_or_else(|| bad("its content is missing or of another type"))
}

/// `Service shop/web generation 3 (Destination shop/web): problem`.
fn complaint(resource: &Encoded, object: Option<String>, problem: &str) -> String {
    let place = format!("{:?} {}", resource.kind, resource.name);
    match object {
        Some(object) => format!("{object} ({place}): {problem}"),
        None => format!("{place}: {problem}"),
    }
}
