//! All files together: which objects there are, and which of two with one name counts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    diagnostic::{Diagnostic, Place, Severity},
    model::ObjectId,
    validate::{Candidate, Reading, Written},
};

/// How many objects a finding names.
const MAX_NAMED: usize = 5;

/// What all files say together.
pub(super) struct Merged<'a> {
    /// The sound objects, one for each id.
    pub(super) sound: HashMap<&'a ObjectId, &'a Candidate>,
    /// Objects that are there and not sound.
    pub(super) refused: BTreeSet<&'a ObjectId>,
    /// Objects in force of whose file nobody can tell whether they are still in it.
    pub(super) held: BTreeSet<ObjectId>,
    /// Objects that stand twice, and files of which objects are held.
    pub(super) findings: Vec<Diagnostic>,
}

impl Merged<'_> {
    /// True when an object in force stays.
    pub(super) fn stays(&self, id: &ObjectId) -> bool {
        self.sound.contains_key(id) || self.refused.contains(id) || self.held.contains(id)
    }
}

/// Puts the files together. `written` tells where the objects in force come from: of two with one id the one in
/// force goes on counting, so that a copy under another file name changes nothing, also while the file of the one in
/// force is broken.
pub(super) fn merge<'a>(files: &'a BTreeMap<Arc<str>, Reading>, written: &HashMap<ObjectId, Written>) -> Merged<'a> {
    let mut merged = Merged {
        sound: HashMap::new(),
        refused: files.values().flat_map(|reading| &reading.refused).collect(),
        held: BTreeSet::new(),
        findings: Vec::new(),
    };
    let broken = broken(files, written, &mut merged);
    for candidate in files.values().flat_map(|reading| &reading.objects) {
        let id = &candidate.object.id;
        if !may_be_taken(candidate, written) {
            merged.refused.insert(id);
            continue;
        }
        let in_force = written.get(id);
        if let Some(in_force) = in_force.filter(|_| broken.contains(id)) {
            merged.findings.push(duplicate(in_force, "the last good version of this one is in force", candidate));
            continue;
        }
        let Some(first) = merged.sound.get(id).copied() else {
            merged.sound.insert(id, candidate);
            continue;
        };
        let is_in_force = |candidate: &Candidate| in_force.map(Written::file) == Some(candidate.written.file());
        let (counts, other) =
            if is_in_force(candidate) && !is_in_force(first) { (candidate, first) } else { (first, candidate) };
        merged.sound.insert(id, counts);
        merged.findings.push(duplicate(&counts.written, "this one is in force", other));
    }
    merged
}

/// An object that is not sound takes the place of no sound version.
fn may_be_taken(candidate: &Candidate, written: &HashMap<ObjectId, Written>) -> bool {
    candidate.written.is_sound() || !written.get(&candidate.object.id).is_some_and(Written::is_sound)
}

/// The objects in force of which the file they came from has no sound version, and may have an unsound one. Those that
/// are not even to be found there are held.
fn broken<'w>(
    files: &BTreeMap<Arc<str>, Reading>,
    written: &'w HashMap<ObjectId, Written>,
    merged: &mut Merged<'_>,
) -> HashSet<&'w ObjectId> {
    let mut broken = HashSet::new();
    if files.values().all(Reading::is_sound) {
        return broken;
    }
    let mut from: BTreeMap<&str, Vec<&'w ObjectId>> = BTreeMap::new();
    for (id, written) in written {
        from.entry(written.file()).or_default().push(id);
    }
    for (origin, reading) in files.iter().filter(|(_, reading)| !reading.is_sound()) {
        // The origin of a folder that cannot be listed ends with a slash and stands for all files in it.
        let is_within = |file: &str| file == &**origin || origin.ends_with('/') && file.starts_with(&**origin);
        let sound = reading.objects.iter().filter(|candidate| may_be_taken(candidate, written));
        let sound: HashSet<&ObjectId> = sound.map(|candidate| &candidate.object.id).collect();
        let refused = reading.objects.iter().map(|candidate| &candidate.object.id).chain(&reading.refused);
        let refused: HashSet<&ObjectId> = refused.collect();
        let unclear: HashSet<(&str, &str)> = reading.unclear.iter().map(|(ns, name)| (&**ns, &**name)).collect();
        let mut held = BTreeSet::new();
        let files = from.range::<&str, _>(&**origin..).take_while(|(file, _)| is_within(file));
        for id in files.flat_map(|(_, ids)| ids).copied() {
            if sound.contains(id) {
                continue;
            }
            if refused.contains(id) {
                broken.insert(id);
            } else if reading.incomplete || unclear.contains(&(&*id.namespace, &*id.name)) {
                broken.insert(id);
                held.insert(id);
            }
        }
        merged.findings.extend(holding(origin, &held));
        merged.held.extend(held.into_iter().cloned());
    }
    broken
}

fn duplicate(counts: &Written, why: &str, other: &Candidate) -> Diagnostic {
    let message = format!("{} is written twice", other.object.id);
    let finding = other.written.finding(Severity::Error, "metadata.name", message);
    finding.object(other.object.id.to_string()).related(counts.place("metadata.name"), why)
}

/// Says that objects stay in force although nobody can tell whether they are still in the file.
fn holding(origin: &str, held: &BTreeSet<&ObjectId>) -> Option<Diagnostic> {
    let mut named: Vec<String> = held.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    if held.len() > MAX_NAMED {
        named.push(format!("{} more", held.len() - MAX_NAMED));
    }
    let message = format!(
        "it cannot be told whether this still has {}, so the last good version stays in force",
        named.join(", ")
    );
    (!held.is_empty()).then(|| Diagnostic::new(Severity::Warning, Place::file(origin), message))
}
