//! All files together: which objects there are, and which of two with one name counts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    diagnostic::{Diagnostic, Severity},
    model::ObjectId,
    validate::{Candidate, Reading, Written},
};

/// What all files say together.
pub(super) struct Merged<'a> {
    /// The sound objects, one for each id.
    pub(super) sound: HashMap<&'a ObjectId, &'a Candidate>,
    /// Objects that are there and not sound.
    pub(super) refused: BTreeSet<&'a ObjectId>,
    /// Objects last seen in a file of which nobody can tell any more what is in it.
    held: BTreeSet<ObjectId>,
    /// Objects that stand twice.
    pub(super) duplicates: Vec<Diagnostic>,
}

impl Merged<'_> {
    /// True when an object in force stays.
    pub(super) fn stays(&self, id: &ObjectId) -> bool {
        self.sound.contains_key(id) || self.refused.contains(id) || self.held.contains(id)
    }
}

/// Puts the files together. `written` tells where the objects in force come from: of two with one id the one in
/// force goes on counting, so that a copy under another file name changes nothing.
pub(super) fn merge<'a>(files: &'a BTreeMap<Arc<str>, Reading>, written: &HashMap<ObjectId, Written>) -> Merged<'a> {
    let mut merged = Merged {
        sound: HashMap::new(),
        refused: files.values().flat_map(|reading| &reading.refused).collect(),
        held: BTreeSet::new(),
        duplicates: Vec::new(),
    };
    let incomplete: BTreeSet<&str> = files.iter().filter(|(_, r)| r.incomplete).map(|(origin, _)| &**origin).collect();
    if !incomplete.is_empty() {
        let held = written.iter().filter(|(_, written)| incomplete.contains(&**written.file()));
        merged.held = held.map(|(id, _)| id.clone()).collect();
    }
    for candidate in files.values().flat_map(|reading| &reading.objects) {
        let id = &candidate.object.id;
        let Some(first) = merged.sound.get(id).copied() else {
            merged.sound.insert(id, candidate);
            continue;
        };
        let in_force = written.get(id).map(|written| written.file());
        let is_in_force = |candidate: &Candidate| in_force == Some(candidate.written.file());
        let (counts, other) =
            if is_in_force(candidate) && !is_in_force(first) { (candidate, first) } else { (first, candidate) };
        merged.sound.insert(id, counts);
        merged.duplicates.push(duplicate(counts, other));
    }
    merged
}

fn duplicate(counts: &Candidate, other: &Candidate) -> Diagnostic {
    let message = format!("{} is written twice", other.object.id);
    let finding = other.written.finding(Severity::Error, "metadata.name", message);
    let place = counts.written.place("metadata.name");
    finding.object(other.object.id.to_string()).related(place, "this one is in force")
}
