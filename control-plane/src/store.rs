//! The one writer: takes what a source tells, and publishes snapshots.
//!
//! Changes gather until the source says [`Change::Complete`]; then they take effect together. An object that is not
//! sound any more stays in force as it last was, as does every object of a file that cannot be told apart any more;
//! only what is really gone is taken away. With a [`Memory`] that is [kept](keep) all of that holds over a restart. The
//! store knows which resources a change touches and compiles no others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    Error,
    compile::{self, Mesh, Subject},
    diagnostic::{Diagnostic, Place, Severity},
    model::{Model, Object, ObjectId},
    snapshot::{Draft, Snapshot},
    source::{Change, Changes, Document, Held, Unread, files::Known},
    validate::{self, Candidate, Reading, Written, references},
};

mod event;
mod gone;
mod keeper;
mod memory;
mod merge;
mod report;

use event::{Event, Fate};
use gone::Gone;
pub use keeper::keep;
pub use memory::{InForce, Memory};
pub use report::{ObjectReport, Report};

/// What the control plane holds in memory. See the module for what it guarantees.
#[derive(Debug)]
pub struct Store {
    mesh: Mesh,
    files: BTreeMap<Arc<str>, Reading>,
    /// Why the source could not say what there is, in the last complete state and in the one that is being told.
    unavailable: Option<Diagnostic>,
    becoming_unavailable: Option<Diagnostic>,
    model: Model,
    written: HashMap<ObjectId, Written>,
    /// The generation an object had last, also when it is gone: it never counts backwards.
    generations: HashMap<ObjectId, u64>,
    dirty: BTreeSet<Subject>,
    /// Files that whoever runs the mesh confirmed as gone since the last commit.
    confirmed: BTreeSet<Arc<str>>,
    gone: Gone,
    /// What became of objects and is not logged yet.
    events: Vec<Event>,
    /// How files were held that the memory has.
    remembered: BTreeMap<Arc<str>, Held>,
    snapshot: Arc<Snapshot>,
    complete: bool,
    missing: Severity,
    /// True when what is in force is not what is saved, or on its way.
    unsaved: bool,
}

impl Store {
    /// An empty store of a mesh with this trust domain.
    pub fn new(trust_domain: &str) -> Self {
        Self {
            mesh: Mesh { trust_domain: trust_domain.to_owned(), roots: Vec::new() },
            files: BTreeMap::new(),
            unavailable: None,
            becoming_unavailable: None,
            model: Model::default(),
            written: HashMap::new(),
            generations: HashMap::new(),
            dirty: BTreeSet::from([Subject::Trust]),
            confirmed: BTreeSet::new(),
            gone: Gone::default(),
            events: Vec::new(),
            remembered: BTreeMap::new(),
            snapshot: Arc::default(),
            complete: false,
            missing: Severity::Warning,
            unsaved: false,
        }
    }

    /// Begins with what `memory` has. An object that the first state of the source neither has nor may have is taken away
    /// then.
    #[must_use]
    pub fn remember(mut self, memory: &Memory) -> Self {
        let remembered = memory.load();
        self.generations.extend(remembered.gone);
        self.remembered = remembered.held.into_iter().collect();
        for (Candidate { object, written }, generation) in remembered.in_force {
            self.generations.insert(object.id.clone(), generation);
            self.written.insert(object.id.clone(), written);
            self.model.put(Arc::new(Object { generation, ..object }));
        }
        self.dirty.extend(compile::everything(&self.model));
        self
    }

    /// The files that objects in force were read from: what a source has to know to tell what is missing.
    pub fn known(&self) -> Known {
        let file = |written: &Written| (written.file().clone(), self.remembered.get(written.file()).copied());
        self.written.values().map(file).collect()
    }

    /// What is in force, to be saved; nothing when it is what the last call returned.
    pub fn unsaved(&mut self) -> Option<InForce> {
        let unsaved = std::mem::take(&mut self.unsaved);
        let held = || self.files.iter().filter_map(|(file, reading)| Some((file.clone(), reading.held?))).collect();
        unsaved.then(|| InForce::of(&self.model, &self.written, &self.generations, held()))
    }

    /// Sets the trusted authorities (certificates, DER); they go out with the next snapshot.
    pub fn set_roots(&mut self, roots: Vec<bytes::Bytes>) {
        if self.mesh.roots != roots {
            self.mesh.roots = roots;
            self.dirty.insert(Subject::Trust);
        }
    }

    /// Takes one step of a source. True when the step completes a state, so that a snapshot is due.
    pub fn take(&mut self, change: Change) -> bool {
        match change {
            Change::Put(document) => {
                let reading = validate::read(&document);
                let held = reading.held;
                let before = self.files.insert(document.origin, reading);
                self.unsaved |= before.and_then(|before| before.held) != held;
            }
            Change::Remove(origin) => {
                self.files.remove(&origin);
            }
            Change::Confirmed(origin) => {
                self.files.remove(&origin);
                self.gone.confirm(&origin);
                self.confirmed.insert(origin);
            }
            Change::Unavailable { origin, reason } => {
                let place = Place::file(&origin);
                self.becoming_unavailable = Some(Diagnostic::new(Severity::Error, place, &*reason));
            }
            Change::Complete => {
                self.unavailable = self.becoming_unavailable.take();
                self.complete |= self.unavailable.is_none();
                return true;
            }
        }
        false
    }

    /// Puts everything taken so far in force: the snapshot, and what is to be said about it. The snapshot is the
    /// one before when nothing changed.
    pub fn commit(&mut self) -> (Arc<Snapshot>, Report) {
        let mut findings = Vec::new();
        let merged = merge::merge(&self.files, &self.written);
        // Before the source has told everything, nobody knows that something is gone.
        let gone = self.written.keys().filter(|id| self.complete && !merged.stays(id));
        let gone: BTreeSet<ObjectId> = gone.cloned().collect();
        let mut removed = Vec::new();
        for id in gone {
            self.unsaved = true;
            compile::affected(&self.model, &id, &mut self.dirty);
            removed.extend(self.model.remove(&id).zip(self.written.remove(&id)));
        }
        for Candidate { object, written } in merged.sound.values().copied() {
            if self.written.get(&object.id).is_some_and(|known| known.is(written)) {
                continue;
            }
            self.events.extend(put(&mut self.model, &mut self.generations, &mut self.dirty, object, written));
            self.written.insert(object.id.clone(), written.clone());
            self.unsaved = true;
        }
        for (object, written) in removed {
            let file = written.file();
            let is_gone = self.files.get(file).is_none_or(Reading::is_empty);
            if is_gone && !self.confirmed.contains(file) {
                self.gone.tell(&self.model, &object, file);
            }
            let (id, file, generation) = (object.id.clone(), file.clone(), object.generation);
            self.events.push(Event { id, file, generation, fate: Fate::Removed });
        }
        self.confirmed.clear();
        findings.extend(self.gone.findings(&self.model).cloned());
        findings.extend(self.unavailable.clone());
        findings.extend(self.files.values().flat_map(|reading| reading.findings.iter().cloned()));
        findings.extend(merged.findings.iter().cloned());
        findings.extend(references::findings(&self.model, &self.written, self.missing));
        let report = report::report(&self.model, &self.written, &merged, findings, self.complete);
        drop(merged);
        self.compile();
        (self.snapshot.clone(), report)
    }

    /// Compiles what is dirty. A snapshot that refers to what is not there would be a defect of the compiler: the
    /// one before stays, and its subjects stay dirty.
    fn compile(&mut self) {
        if self.dirty.is_empty() && self.snapshot.is_complete() == self.complete {
            return;
        }
        let mut draft = Draft::after(&self.snapshot);
        draft.set_complete(self.complete);
        for subject in &self.dirty {
            compile::subject(&self.model, &self.mesh, subject, &mut draft);
        }
        match draft.finish() {
            Ok(snapshot) => {
                self.snapshot = Arc::new(snapshot);
                self.dirty.clear();
            }
            Err(dangling) => {
                for reference in dangling {
                    tracing::error!(%reference, "the new snapshot is not published; please report this defect");
                }
            }
        }
    }
}

/// Puts an object into the model when its content is new, and tells what became of it.
fn put(
    model: &mut Model,
    generations: &mut HashMap<ObjectId, u64>,
    dirty: &mut BTreeSet<Subject>,
    object: &Object,
    written: &Written,
) -> Option<Event> {
    let known = model.get(&object.id);
    if known.is_some_and(|known| known.same_content(object)) {
        return None;
    }
    let fate = if known.is_some() { Fate::Changed } else { Fate::Accepted };
    let generation = generations.entry(object.id.clone()).or_default();
    *generation += 1;
    compile::affected(model, &object.id, dirty);
    model.put(Arc::new(Object { generation: *generation, ..object.clone() }));
    compile::affected(model, &object.id, dirty);
    Some(Event { id: object.id.clone(), file: written.file().clone(), generation: *generation, fate })
}

/// Feeds a store from a source until the last reader of snapshots is gone. `roots` are the trusted authorities; a change
/// of them makes a snapshot of its own. What is then in force goes to `saves`, from where [`keep`] takes the newest:
/// nothing here waits for the disk.
///
/// # Errors
/// The source ended, or the store panicked: from then on no change would take effect.
pub async fn run(
    mut store: Store,
    mut changes: Changes,
    mut roots: watch::Receiver<Vec<bytes::Bytes>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    reports: watch::Sender<Arc<Report>>,
    saves: watch::Sender<Arc<InForce>>,
) -> Result<(), Error> {
    store.set_roots(roots.borrow_and_update().clone());
    let mut rotates = true;
    loop {
        let step = tokio::select! {
            change = changes.recv() => match change {
                Some(change) => Step::Change(change),
                None => return Err(Error::Frozen { why: "the source of configuration", source: None }),
            },
            rotated = roots.changed(), if rotates => {
                rotates = rotated.is_ok();
                Step::Roots(roots.borrow_and_update().clone())
            }
            () = snapshots.closed() => return Ok(()),
        };
        let (mut same, outcome) = blocking(move || store.step(step)).await?;
        if let Some((snapshot, report)) = outcome {
            report.log(&reports.borrow());
            reports.send_replace(Arc::new(report));
            let is_new = !Arc::ptr_eq(&snapshot, &snapshots.borrow());
            if is_new {
                snapshots.send_replace(snapshot);
            }
            // What is published comes first.
            let look = move || {
                same.events.drain(..).for_each(|event| event.log());
                let unsaved = same.unsaved();
                (same, unsaved)
            };
            let unsaved;
            (same, unsaved) = blocking(look).await?;
            if let Some(in_force) = unsaved {
                saves.send_replace(Arc::new(in_force));
            }
        }
        store = same;
    }
}

/// Does work that takes time on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| Error::Frozen { why: "the store", source: Some(panic) })
}

/// What a running store is given.
enum Step {
    Change(Change),
    Roots(Vec<bytes::Bytes>),
}

impl Store {
    /// Takes one step, and commits when that is due. Reading and compiling take time, so this runs on a thread of
    /// its own while sidecars are served.
    fn step(mut self, step: Step) -> (Self, Option<(Arc<Snapshot>, Report)>) {
        let due = match step {
            Step::Change(change) => self.take(change),
            Step::Roots(roots) => {
                self.set_roots(roots);
                self.complete
            }
        };
        let outcome = due.then(|| self.commit());
        (self, outcome)
    }
}

/// Every finding about a directory of files, by file and line; a reference to what the directory does not have is an
/// error here.
///
/// # Errors
/// Why the directory cannot be listed.
pub fn lint(dir: &std::path::Path) -> Result<Vec<Diagnostic>, Arc<str>> {
    let mut store = Store { missing: Severity::Error, ..Store::new("mesh.local") };
    for (origin, text) in crate::source::files::read(dir)? {
        let text = text.map_err(|why| Unread { why, held: Held::Lost });
        store.take(Change::Put(Document { origin, text }));
    }
    store.take(Change::Complete);
    Ok(store.commit().1.findings)
}
