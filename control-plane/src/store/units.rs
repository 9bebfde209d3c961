//! What all origins say: which objects there are, and which of two with one name counts.
//!
//! An object is judged by what the origins say that have it and the one it is in force from, so a change costs what it
//! touches. Of two with one id the one in force goes on counting, so that a copy under another name or in another source
//! changes nothing, also while the origin of the one in force is broken.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use selvedge_policies::finding::Code;

use super::in_force::Entry;
use crate::{
    diagnostic::{Diagnostic, Place, Severity},
    few::Few,
    model::{Object, ObjectId},
    source::{Candidate, Origin, Reading},
};

/// How many objects a finding names.
const MAX_NAMED: usize = 5;

/// Everything that is told.
#[derive(Debug, Default)]
pub(super) struct Units {
    units: BTreeMap<Origin, Unit>,
    /// The origins that have an object of that id, sound or not.
    claims: HashMap<ObjectId, Few<Origin>>,
}

#[derive(Debug)]
struct Unit {
    reading: Reading,
    stands: HashMap<ObjectId, Stand>,
    is_sound: bool,
}

/// How an object stands in one reading.
#[derive(Debug, Default)]
struct Stand {
    /// Indices of the candidates, in the order in which they stand.
    candidates: Vec<usize>,
    refused: bool,
}

/// What becomes of an object.
#[derive(Debug, Default)]
pub(super) struct Judged<'a> {
    /// The version that counts.
    pub(super) counts: Option<(&'a Origin, &'a Candidate)>,
    /// It is there in a version that cannot be taken.
    pub(super) refused: bool,
    /// Nobody can tell whether it is still where it came from.
    pub(super) held: bool,
    /// Where it stands twice.
    pub(super) findings: Vec<Diagnostic>,
}

impl Judged<'_> {
    /// True when an object in force stays.
    pub(super) fn stays(&self) -> bool {
        self.counts.is_some() || self.refused || self.held
    }

    /// True when what counts is what is written now.
    pub(super) fn is_current(&self) -> bool {
        !self.refused && self.counts.is_some_and(|(_, candidate)| candidate.sound)
    }
}

/// What the origin of an object in force says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// That it is there or that it is not.
    Sure,
    /// That it is there, in a version that cannot be taken.
    Refused,
    /// Nothing that could be relied on.
    Silent,
}

impl Units {
    /// Puts what an origin says in place of what it said, and returns the objects that either has.
    pub(super) fn put(&mut self, origin: Origin, reading: Reading) -> BTreeSet<ObjectId> {
        let mut touched = self.remove(&origin);
        let unit = Unit::new(reading);
        for id in unit.stands.keys() {
            self.claims.entry(id.clone()).or_default().insert(origin.clone());
            touched.insert(id.clone());
        }
        self.units.insert(origin, unit);
        touched
    }

    /// Takes away what an origin says, and returns the objects it had.
    pub(super) fn remove(&mut self, origin: &Origin) -> BTreeSet<ObjectId> {
        let Some(unit) = self.units.remove(origin) else { return BTreeSet::new() };
        for id in unit.stands.keys() {
            let Some(origins) = self.claims.get_mut(id) else { continue };
            origins.remove(origin);
            if origins.is_empty() {
                self.claims.remove(id);
            }
        }
        unit.stands.into_keys().collect()
    }

    /// Holds an object in force from `origin` once, where it was read and where it is in force.
    pub(super) fn share(&mut self, origin: &Origin, object: &Arc<Object>) {
        let Some(Unit { reading, stands, .. }) = self.units.get_mut(origin) else { return };
        for at in stands.get(&object.id).into_iter().flat_map(|stand| &stand.candidates) {
            if let Some(candidate) = reading.objects.get_mut(*at)
                && candidate.object.same_content(object)
            {
                candidate.object = Arc::clone(object);
            }
        }
    }

    pub(super) fn get(&self, origin: &Origin) -> Option<&Reading> {
        self.units.get(origin).map(|unit| &unit.reading)
    }

    /// What becomes of the object of that id. `is_pending` tells whether the origin of the one in force may still have to
    /// say something. Judging again what was put in force because of it says the same.
    pub(super) fn judge(&self, id: &ObjectId, in_force: Option<&Entry>, is_pending: bool) -> Judged<'_> {
        let home = in_force.map_or(Home::Sure, |entry| self.home(id, entry, is_pending));
        let origins = self.claims.get(id).into_iter().flat_map(Few::iter);
        let mut judged = Judged { held: home == Home::Silent, ..Judged::default() };
        let mut candidates = Vec::new();
        for (origin, unit) in origins.filter_map(|origin| Some((origin, self.units.get(origin)?))) {
            let Some(stand) = unit.stands.get(id) else { continue };
            judged.refused |= stand.refused;
            let at = stand.candidates.iter().filter_map(|at| unit.reading.objects.get(*at));
            candidates.extend(at.map(|candidate| (origin, candidate)));
        }
        if home == Home::Sure {
            let at_home =
                candidates.iter().filter(|(origin, _)| in_force.is_some_and(|entry| entry.origin == **origin));
            judged.counts = best(at_home, in_force).or_else(|| best(candidates.iter(), in_force));
        }
        for (_, candidate) in candidates {
            judged.weigh(candidate, in_force);
        }
        judged
    }

    fn home(&self, id: &ObjectId, entry: &Entry, is_pending: bool) -> Home {
        let Some(unit) = self.units.get(&entry.origin) else {
            return if is_pending { Home::Silent } else { Home::Sure };
        };
        let stand = unit.stands.get(id);
        let candidates = stand.into_iter().flat_map(|stand| &stand.candidates);
        let mut candidates = candidates.filter_map(|at| unit.reading.objects.get(*at));
        if unit.is_sound || candidates.any(|candidate| may_be_taken(candidate, Some(entry))) {
            Home::Sure
        } else if stand.is_some() {
            Home::Refused
        } else if unit.reading.is_silent_of(id) {
            Home::Silent
        } else {
            Home::Sure
        }
    }

    /// Says which of `ids`, the objects in force from `origin`, stay so although nobody can tell whether they are still there.
    pub(super) fn holding<'a>(&self, origin: &Origin, ids: impl Iterator<Item = &'a ObjectId>) -> Vec<Diagnostic> {
        let Some(unit) = self.units.get(origin).filter(|unit| !unit.is_sound) else { return Vec::new() };
        let is_held = |id: &&ObjectId| !unit.stands.contains_key(*id) && unit.reading.is_silent_of(id);
        let held: Vec<&ObjectId> = ids.filter(is_held).collect();
        if held.is_empty() {
            return Vec::new();
        }
        let mut named: Vec<String> = held.iter().take(MAX_NAMED).map(ToString::to_string).collect();
        if held.len() > MAX_NAMED {
            named.push(format!("{} more", held.len() - MAX_NAMED));
        }
        let message = format!(
            "it cannot be told whether this still has {}, so the last good version stays in force",
            named.join(", ")
        );
        vec![Diagnostic::new(Code::Held, Severity::Warning, Place::file(&origin.name), message)]
    }
}

impl Judged<'_> {
    /// Says what becomes of a version beside the one that counts.
    fn weigh(&mut self, candidate: &Candidate, in_force: Option<&Entry>) {
        let counts = self.counts.map(|(_, counts)| counts);
        if counts.is_some_and(|counts| std::ptr::eq(counts, candidate)) {
            return;
        }
        if !may_be_taken(candidate, in_force) || !candidate.sound && counts.is_some_and(|counts| counts.sound) {
            self.refused = true;
            return;
        }
        let at = "metadata.name";
        let finding = match (counts, in_force) {
            (Some(counts), _) => duplicate(counts.provenance.place(at), "this one is in force", candidate),
            (None, Some(entry)) => {
                duplicate(entry.provenance.place(at), "the last good version of this one is in force", candidate)
            }
            (None, None) => return,
        };
        self.findings.push(finding);
    }
}

/// The first that is sound, else the first that may be taken.
fn best<'c, 'a: 'c>(
    candidates: impl Iterator<Item = &'c (&'a Origin, &'a Candidate)> + Clone,
    in_force: Option<&Entry>,
) -> Option<(&'a Origin, &'a Candidate)> {
    let sound = candidates.clone().find(|(_, candidate)| candidate.sound);
    sound.or_else(|| candidates.clone().find(|(_, candidate)| may_be_taken(candidate, in_force))).copied()
}

/// An object that is not sound takes the place of no sound version.
fn may_be_taken(candidate: &Candidate, in_force: Option<&Entry>) -> bool {
    candidate.sound || !in_force.is_some_and(|entry| entry.sound)
}

fn duplicate(counts: Place, why: &str, other: &Candidate) -> Diagnostic {
    let message = format!("{} is written twice", other.object.id);
    let finding = other.provenance.finding(Code::DuplicateObject, Severity::Error, "metadata.name", message);
    finding.object(other.object.id.to_string()).related(counts, why)
}

impl Unit {
    fn new(mut reading: Reading) -> Self {
        // Most origins have one.
        reading.objects.shrink_to_fit();
        let mut stands: HashMap<ObjectId, Stand> = HashMap::new();
        for (at, candidate) in reading.objects.iter().enumerate() {
            stands.entry(candidate.object.id.clone()).or_default().candidates.push(at);
        }
        for id in &reading.refused {
            stands.entry(id.clone()).or_default().refused = true;
        }
        Self { is_sound: reading.is_sound(), reading, stands }
    }
}
