//! What is in force: every object with where it comes from, and what is to be known of those that are gone.
//!
//! A copy is cheap and shares its memory, so that what is saved while the store goes on is one state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    model::ObjectId,
    shared::Shared,
    source::{Held, Origin, Provenance},
};

/// What is in force, to be saved.
#[derive(Clone, Debug, Default)]
pub struct InForce {
    pub(super) objects: Shared<ObjectId, Arc<Entry>>,
    /// The last generations of objects that are gone: an object that comes back counts on.
    pub(super) gone: Shared<ObjectId, u64>,
    /// The origins that nobody can tell anything of.
    pub(super) held: Arc<BTreeMap<Origin, Held>>,
}

/// One object in force.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) provenance: Provenance,
    /// The document it was read from, as JSON.
    pub(super) document: Arc<str>,
    pub(super) generation: u64,
    /// False for one that takes the place of no sound version of itself.
    pub(super) sound: bool,
}

/// Equal to whoever saves them: a restart makes the same of both.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        let key = |entry: &Self| (entry.generation, entry.sound);
        key(self) == key(other) && self.origin == other.origin && self.document == other.document
    }
}

impl InForce {
    pub(super) fn get(&self, id: &ObjectId) -> Option<&Arc<Entry>> {
        self.objects.get(id)
    }

    /// The generation an object has, or had last; 0 when there was none.
    pub(super) fn generation(&self, id: &ObjectId) -> u64 {
        self.get(id).map(|entry| entry.generation).or_else(|| self.gone.get(id).copied()).unwrap_or_default()
    }
}

/// The objects in force, by the origin they come from.
#[derive(Debug, Default)]
pub(super) struct From(BTreeMap<Origin, BTreeSet<ObjectId>>);

impl From {
    pub(super) fn add(&mut self, origin: &Origin, id: &ObjectId) {
        match self.0.get_mut(origin) {
            Some(ids) => drop(ids.insert(id.clone())),
            None => drop(self.0.insert(origin.clone(), BTreeSet::from([id.clone()]))),
        }
    }

    pub(super) fn remove(&mut self, origin: &Origin, id: &ObjectId) {
        let Some(ids) = self.0.get_mut(origin) else { return };
        ids.remove(id);
        if ids.is_empty() {
            self.0.remove(origin);
        }
    }

    pub(super) fn of(&self, origin: &Origin) -> impl Iterator<Item = &ObjectId> {
        self.0.get(origin).into_iter().flatten()
    }

    pub(super) fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.0.keys()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &ObjectId> {
        self.0.values().flatten()
    }
}
