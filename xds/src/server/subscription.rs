//! What one client subscribed to of one kind, and what it was told.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use prost::{Message, Name};

use super::{Find, MAX_NAME, Reply, RequestError};
use crate::{
    proto::{
        discovery::{DeltaDiscoveryRequest, Status},
        mesh::Refusal,
    },
    resource::{Encoded, TypeUrl},
};

/// A response is closed once it has this many bytes of resources; the rest follows in the next one.
pub(super) const RESPONSE_BYTES: usize = 1 << 20;
/// Characters of a client's complaint that are kept; it goes into the log and the status.
const MAX_COMPLAINT: usize = 4096;
/// Characters of a version a client resumes with that are kept: ours have 16.
const MAX_VERSION: usize = 32;

/// A table that has room for so many times what is in it is made smaller.
const ROOMY: usize = 8;

/// What the client knows about a name it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It waits for an answer, whatever it may hold.
    Owed,
    /// It resumed with this version.
    Resumed(Box<str>),
    /// It was told that there is none.
    Absent,
    /// It was sent this resource, or another version of it.
    Holds(Arc<Encoded>),
}

impl Answer {
    fn held(&self) -> Option<&str> {
        match self {
            Self::Holds(resource) => Some(&resource.name),
            Self::Owed | Self::Resumed(_) | Self::Absent => None,
        }
    }

    fn claims_something(&self) -> bool {
        match self {
            Self::Holds(_) => true,
            Self::Resumed(version) => !version.is_empty(),
            Self::Owed | Self::Absent => false,
        }
    }
}

/// A resource as it was sent, found by its canonical name.
#[derive(Debug)]
struct Sent(Arc<Encoded>);

impl Borrow<str> for Sent {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Hash for Sent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl PartialEq for Sent {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Sent {}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) nonce: u64,
    pub(super) delivered: Vec<Arc<Encoded>>,
}

/// One kind on one stream. Of names there are some twenty on each of thousands of streams: too few for a tree, whose nodes
/// would be half empty.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) kind: TypeUrl,
    pub(super) asked: HashMap<Box<str>, Answer>,
    /// Bytes of the names asked for.
    pub(super) text: usize,
    /// The versions sent, one of each resource.
    sent: HashSet<Sent>,
    pub(super) in_flight: Option<InFlight>,
    /// What it turned out to hold when it resumed.
    pub(super) confirmed: Vec<Arc<Encoded>>,
    /// Canonical names of what it holds no more.
    pub(super) dropped: Vec<String>,
    /// Of what names there may be something to say.
    pub(super) news: News,
}

/// Names to be looked at. A change touches one or two of the many a client asked for, on each of thousands of streams.
#[derive(Debug, Default)]
pub(super) enum News {
    /// None, until a request or a change comes.
    #[default]
    Nothing,
    /// These, among them every name of a resource that changed.
    Of(BTreeSet<String>),
    /// All that were asked for.
    OfAnything,
}

impl News {
    pub(super) const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// A resource with the names it was asked by, and whether it must be sent.
struct Found {
    resource: Arc<Encoded>,
    names: Vec<String>,
    due: bool,
}

/// What one response will say.
#[derive(Default)]
pub(super) struct Batch {
    /// Resources with the aliases they were asked by.
    pub(super) resources: Vec<(Arc<Encoded>, Vec<String>)>,
    pub(super) removed: Vec<String>,
    pub(super) complete: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}

impl Subscription {
    pub(super) fn new(kind: TypeUrl) -> Self {
        Self {
            kind,
            asked: HashMap::new(),
            text: 0,
            sent: HashSet::new(),
            in_flight: None,
            confirmed: Vec::new(),
            dropped: Vec::new(),
            news: News::Nothing,
        }
    }

    pub(super) fn reply(&mut self, request: &DeltaDiscoveryRequest) -> Option<Reply> {
        let delivered = self.in_flight.take_if(|f| request.response_nonce.parse() == Ok(f.nonce))?.delivered;
        let complaint = request.error_detail.as_ref().map(|error| error.message.chars().take(MAX_COMPLAINT).collect());
        let named = request.error_detail.as_ref().map(named).unwrap_or_default();
        let whole = complaint.is_some() && !delivered.iter().any(|resource| named.contains(&resource.name));
        let still_asked = delivered.into_iter().filter(|resource| self.sent.contains(&*resource.name));
        let (refused, taken) = still_asked.partition(|resource| whole || named.contains(&resource.name));
        Some(Reply { kind: self.kind, taken, refused, complaint: complaint.map(|text: String| text.into()) })
    }

    /// Applies the names of a request. A name in both lists ends up subscribed. One that is only added costs itself,
    /// however many there are.
    pub(super) fn rename(&mut self, request: DeltaDiscoveryRequest) -> Result<(), RequestError> {
        let mut resumed = request.initial_resource_versions;
        let mut released = false;
        for name in &request.resource_names_unsubscribe {
            if let Some(answer) = self.asked.remove(&**name) {
                self.text -= name.len();
                released |= answer.held().is_some();
            }
        }
        for name in request.resource_names_subscribe {
            if name.len() > MAX_NAME {
                return Err(RequestError::LongName(self.kind));
            }
            let known =
                resumed.remove(&name).map(|version| version.chars().take(MAX_VERSION).collect::<String>().into());
            match self.asked.insert(name.as_str().into(), known.map_or(Answer::Owed, Answer::Resumed)) {
                Some(answer) => released |= answer.held().is_some(),
                None => self.text += name.len(),
            }
            self.touch(&name);
        }
        if released {
            self.prune();
        }
        // What is no longer asked for is no longer paid for.
        if self.asked.capacity() > ROOMY * self.asked.len() {
            self.asked.shrink_to_fit();
        }
        Ok(())
    }

    /// A change may concern `name`.
    pub(super) fn touch(&mut self, name: &str) {
        if !self.asked.contains_key(name) {
            return;
        }
        match &mut self.news {
            News::Nothing => self.news = News::Of(BTreeSet::from([name.to_owned()])),
            News::Of(names) => drop(names.insert(name.to_owned())),
            News::OfAnything => {}
        }
    }

    /// The names to be looked at, with what the client knows of each.
    fn in_question(&self) -> Box<dyn Iterator<Item = (&str, &Answer)> + '_> {
        match &self.news {
            News::Nothing => Box::new(std::iter::empty()),
            News::Of(names) => Box::new(names.iter().filter_map(|name| Some((&**name, self.asked.get(&**name)?)))),
            News::OfAnything => Box::new(self.asked.iter().map(|(name, answer)| (&**name, answer))),
        }
    }

    /// Forgets the versions of resources no name stands for any more.
    fn prune(&mut self) {
        let held: HashSet<&str> = self.asked.values().filter_map(Answer::held).collect();
        let gone = self.sent.extract_if(|Sent(resource)| !held.contains(&*resource.name));
        self.dropped.extend(gone.map(|Sent(resource)| resource.name.clone()));
        if self.sent.capacity() > ROOMY * self.sent.len() {
            self.sent.shrink_to_fit();
        }
    }

    /// The next additions and "there is none" answers, recorded as sent; `None` when there are some and the kind
    /// is `busy`.
    pub(super) fn additions(&mut self, find: Find<'_>, busy: bool) -> Option<Batch> {
        let (found, absent) = self.look_up(find);
        if busy && (!absent.is_empty() || found.iter().any(|f| f.due)) {
            return None;
        }
        for name in &absent {
            self.asked.insert(name.as_str().into(), Answer::Absent);
        }
        let mut batch = Batch { removed: absent, complete: true, ..Batch::default() };
        let mut bytes = 0;
        let mut moved = false;
        for Found { resource, names, due } in found {
            if due && bytes >= RESPONSE_BYTES {
                batch.complete = false;
                continue;
            }
            if !due && names.iter().any(|name| matches!(self.asked.get(&**name), Some(Answer::Resumed(_)))) {
                self.confirmed.push(Arc::clone(&resource));
            }
            moved |= self.record(&resource, &names);
            if due {
                bytes += resource.body.len();
                let aliases = names.into_iter().filter(|name| *name != resource.name).collect();
                batch.resources.push((resource, aliases));
            }
        }
        if moved {
            self.prune();
        }
        Some(batch)
    }

    /// The resources there are, by canonical name, and the names that wait for an answer and have none.
    fn look_up(&self, find: Find<'_>) -> (Vec<Found>, Vec<String>) {
        let mut found: Vec<Found> = Vec::new();
        let mut absent = Vec::new();
        for (name, answer) in self.in_question() {
            let Some(resource) = find(self.kind, name) else {
                if *answer == Answer::Owed {
                    absent.push(name.to_owned());
                }
                continue;
            };
            let due = self.is_due(answer, &resource);
            found.push(Found { resource, names: vec![name.to_owned()], due });
        }
        // What is said is in order, so that it is the same each time.
        absent.sort_unstable();
        found.sort_by(|a, b| (&a.resource.name, &a.names).cmp(&(&b.resource.name, &b.names)));
        found.dedup_by(|next, one| {
            let is_same = next.resource.name == one.resource.name;
            if is_same {
                one.names.append(&mut next.names);
                one.due |= next.due;
            }
            is_same
        });
        (found, absent)
    }

    fn is_due(&self, answer: &Answer, resource: &Encoded) -> bool {
        match answer {
            Answer::Owed | Answer::Absent => true,
            Answer::Resumed(version) => **version != *resource.version,
            Answer::Holds(held) => {
                let sent = self.sent.get(&*resource.name);
                held.name != resource.name || sent.is_none_or(|Sent(sent)| sent.version != resource.version)
            }
        }
    }

    /// True when one of the names stood for another resource before.
    fn record(&mut self, resource: &Arc<Encoded>, names: &[String]) -> bool {
        let mut moved = false;
        for name in names {
            let Some(answer) = self.asked.get_mut(&**name) else { continue };
            let before = std::mem::replace(answer, Answer::Holds(Arc::clone(resource)));
            moved |= before.held().is_some_and(|held| held != resource.name);
        }
        self.sent.replace(Sent(Arc::clone(resource)));
        moved
    }

    /// Names the client holds something for although there is nothing any more; recorded as told unless a response
    /// is in flight.
    pub(super) fn removals(&mut self, find: Find<'_>) -> Vec<String> {
        let kind = self.kind;
        let is_gone = |(name, answer): &(&str, &Answer)| answer.claims_something() && find(kind, name).is_none();
        let mut gone: Vec<String> = self.in_question().filter(is_gone).map(|(name, _)| name.to_owned()).collect();
        gone.sort_unstable();
        if self.in_flight.is_none() && !gone.is_empty() {
            for name in &gone {
                self.asked.insert(name.as_str().into(), Answer::Absent);
            }
            self.prune();
        }
        gone
    }
}

/// The resources a complaint lists.
fn named(error: &Status) -> HashSet<String> {
    let refusals = error.details.iter().filter(|detail| detail.type_url == Refusal::type_url());
    refusals.filter_map(|detail| Refusal::decode(&*detail.value).ok()).flat_map(|refusal| refusal.resources).collect()
}
