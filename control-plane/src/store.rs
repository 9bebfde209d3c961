//! The one writer: takes what sources tell, and publishes snapshots.
//!
//! Changes of a source gather until it says [`Change::Complete`]; then they take effect together. An object that is not
//! sound any more stays in force as it last was, as does every object of an origin that cannot be told apart any more;
//! only what is really gone is taken away, and of a source that has not told everything nothing is. With a [`Memory`] that
//! is [kept](keep) all of that holds over a restart.
//!
//! A change costs what it touches: the objects of the origins that changed, what refers to them, and the resources that are
//! made of them. The snapshot is published first; what is to be said about it is found out after that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use selvedge_policies::finding::Code;

use crate::{
    audit::AuditLog,
    compile::{self, Mesh, Subject},
    diagnostic::{Diagnostic, Place, Severity},
    model::{Model, Object, ObjectId},
    snapshot::{Draft, Snapshot},
    source::{
        Candidate, Change, Held, Origin, Reading,
        files::{self, Known},
    },
};

mod advice;
mod conflicts;
mod enforceable;
mod event;
mod feed;
mod gone;
mod in_force;
mod in_memory;
mod keeper;
mod lint;
mod memory;
mod references;
mod report;
mod shadows;
mod units;

pub use advice::Beside;
use event::{Documents, Event, Fate};
pub use feed::run;
use gone::Gone;
pub use in_force::InForce;
use in_force::{Entry, From};
pub use keeper::keep;
pub use lint::{Linted, lint, lint_all};
pub use memory::Memory;
use references::InVain;
use report::{About, Standing};
pub use report::{Counts, ObjectReport, Report, Reports};
use units::Units;

/// What the control plane holds in memory. See the module for what it guarantees.
#[derive(Debug)]
pub struct Store {
    mesh: Mesh,
    sources: BTreeMap<Arc<str>, Telling>,
    units: Units,
    model: Model,
    in_force: InForce,
    from: From,
    gone: Gone,
    /// Objects to be judged again.
    touched: BTreeSet<ObjectId>,
    /// Origins that whoever runs the mesh confirmed as gone since the last commit.
    confirmed: BTreeSet<Origin>,
    dirty: BTreeSet<Subject>,
    /// The networks that sidecars are told of.
    networks: Vec<IpNet>,
    snapshot: Arc<Snapshot>,
    reports: Reports,
    /// What is left to be said about the last commit.
    unsaid: Unsaid,
    in_vain: InVain,
    missing: Severity,
    /// Where it is taken down what becomes of objects, if anywhere.
    audit: Option<AuditLog>,
    /// True when what is in force is not what is saved, or on its way.
    unsaved: bool,
}

/// A source that is being told from.
#[derive(Debug, Default)]
struct Telling {
    /// True once it has told everything.
    complete: bool,
    /// True while it cannot say what there is.
    unavailable: bool,
    /// What it told since it was complete.
    steps: Vec<Change>,
}

/// What a commit left to be said.
#[derive(Debug, Default)]
struct Unsaid {
    /// Objects that were judged.
    judged: BTreeMap<ObjectId, Verdict>,
    /// Origins of which the objects in force are others, or what they say is.
    origins: BTreeSet<Origin>,
    /// Objects whose references and claims are to be looked at again.
    concerned: BTreeSet<ObjectId>,
    /// What became of objects, for the log.
    events: Vec<Event>,
}

/// What the judgement of an object says of it.
#[derive(Debug)]
struct Verdict {
    is_known: bool,
    current: bool,
    held: bool,
    findings: Vec<Diagnostic>,
}

impl Store {
    /// An empty store of a mesh with this trust domain.
    pub fn new(trust_domain: &str) -> Self {
        Self {
            mesh: Mesh { trust_domain: trust_domain.to_owned(), roots: Vec::new() },
            sources: BTreeMap::new(),
            units: Units::default(),
            model: Model::default(),
            in_force: InForce::default(),
            from: From::default(),
            gone: Gone::default(),
            touched: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            dirty: BTreeSet::from([Subject::Trust]),
            networks: Vec::new(),
            snapshot: Arc::default(),
            reports: Reports::default(),
            unsaid: Unsaid::default(),
            in_vain: InVain::default(),
            missing: Severity::Warning,
            audit: None,
            unsaved: false,
        }
    }

    /// Begins with what `memory` has. An object that the first state of its source neither has nor may have is taken away
    /// then.
    #[must_use]
    pub fn remember(mut self, memory: &Memory) -> Self {
        let memory::Remembered { in_force, objects } = memory.load();
        self.in_force = in_force;
        for object in objects {
            let Some(entry) = self.in_force.get(&object.id) else { continue };
            self.from.add(&entry.origin, &object.id);
            self.unsaid.concerned.insert(object.id.clone());
            self.touched.insert(object.id.clone());
            self.model.put(Arc::new(object));
        }
        self.dirty.extend(compile::everything(&self.model));
        self
    }

    /// This store, taking down in `audit` what becomes of objects.
    #[must_use]
    pub(crate) fn auditing(self, audit: AuditLog) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// The files that objects in force were read from: what a source has to know to tell what is missing.
    pub fn known(&self) -> Known {
        let files = self.in_force.objects.iter().filter(|(_, entry)| &*entry.origin.source == files::NAME);
        let known = |(_, entry): (&ObjectId, &Arc<Entry>)| {
            (entry.origin.name.clone(), self.in_force.held.get(&entry.origin).copied())
        };
        files.map(known).collect()
    }

    /// The names of the origins in `source` that objects in force come from.
    pub fn origins(&self, source: &str) -> impl Iterator<Item = &Arc<str>> {
        self.from.origins().filter(move |origin| &*origin.source == source).map(|origin| &origin.name)
    }

    /// Waits for this source too before anything is taken for complete.
    pub fn attend(&mut self, source: &Arc<str>) {
        self.sources.entry(source.clone()).or_default();
    }

    /// What is in force, to be saved; nothing when it is what the last call returned.
    pub fn unsaved(&mut self) -> Option<InForce> {
        std::mem::take(&mut self.unsaved).then(|| self.in_force.clone())
    }

    /// Sets the trusted authorities (certificates, DER); they go out with the next snapshot.
    pub fn set_roots(&mut self, roots: Vec<bytes::Bytes>) {
        if self.mesh.roots != roots {
            self.mesh.roots = roots;
            self.dirty.insert(Subject::Trust);
        }
    }

    /// Takes one step of a source. True when the step completes a state, so that a snapshot is due.
    pub fn take(&mut self, source: &str, change: Change) -> bool {
        let is_complete = matches!(change, Change::Complete);
        if !self.sources.contains_key(source) {
            self.attend(&source.into());
        }
        let Some(telling) = self.sources.get_mut(source) else { return false };
        telling.steps.push(change);
        if is_complete {
            let steps = std::mem::take(&mut telling.steps);
            self.complete(&source.into(), steps);
        }
        is_complete
    }

    /// Takes a complete state of a source.
    fn complete(&mut self, source: &Arc<str>, steps: Vec<Change>) {
        let mut unavailable = BTreeMap::new();
        for step in steps {
            let origin = |name| Origin { source: source.clone(), name };
            match step {
                Change::Put(name, reading) => self.put(origin(name), reading),
                Change::Remove(name) => self.forget(&origin(name)),
                Change::Confirmed(name) => {
                    self.forget(&origin(name.clone()));
                    self.gone.confirm(&name);
                    self.confirmed.insert(origin(name));
                }
                Change::Unavailable { origin, reason } => {
                    let finding = Diagnostic::new(Code::Unreadable, Severity::Error, Place::file(&origin), &*reason);
                    unavailable.insert(origin, finding);
                }
                Change::Complete => {}
            }
        }
        self.hold_all(source, !unavailable.is_empty());
        let is_first = unavailable.is_empty()
            && self.sources.get_mut(source).is_some_and(|told| !std::mem::replace(&mut told.complete, true));
        if is_first {
            // What it does not have is gone, and what was remembered of a source that there is no more.
            self.touched.extend(self.from.all().cloned());
        }
        self.reports.say(About::Source(source.clone()), unavailable.into_values().collect());
    }

    fn put(&mut self, origin: Origin, mut reading: Reading) {
        self.touched.extend(self.from.of(&origin).cloned());
        self.hold(&origin, reading.held);
        self.reports.say(About::Origin(origin.clone()), std::mem::take(&mut reading.findings));
        self.unsaid.origins.insert(origin.clone());
        self.touched.extend(self.units.put(origin, reading));
    }

    fn forget(&mut self, origin: &Origin) {
        self.touched.extend(self.from.of(origin).cloned());
        self.hold(origin, None);
        self.reports.say(About::Origin(origin.clone()), Vec::new());
        self.unsaid.origins.insert(origin.clone());
        self.touched.extend(self.units.remove(origin));
    }

    /// Notes how an origin is held, for a restart.
    fn hold(&mut self, origin: &Origin, held: Option<Held>) {
        if self.in_force.held.get(origin).copied() != held {
            self.unsaved = true;
            let all = Arc::make_mut(&mut self.in_force.held);
            match held {
                Some(held) => all.insert(origin.clone(), held),
                None => all.remove(origin),
            };
        }
    }

    /// Notes how all origins of a source are held that cannot say what there is, or that can again. Only a directory is told
    /// after a restart how its files were held: a cluster knows by itself what it had.
    fn hold_all(&mut self, source: &Arc<str>, unavailable: bool) {
        if **source != *files::NAME {
            return;
        }
        let Some(telling) = self.sources.get_mut(source) else { return };
        let was_unavailable = std::mem::replace(&mut telling.unavailable, unavailable);
        let is_of = |origin: &&Origin| origin.source == *source;
        if unavailable {
            let silent =
                |origin: &&Origin| !self.in_force.held.contains_key(*origin) && !self.confirmed.contains(*origin);
            let all: Vec<Origin> = self.from.origins().filter(is_of).filter(silent).cloned().collect();
            all.iter().for_each(|origin| self.hold(origin, Some(Held::Lost)));
        } else if was_unavailable {
            let all: Vec<Origin> = self.in_force.held.keys().filter(is_of).cloned().collect();
            for origin in all {
                self.hold(&origin, self.units.get(&origin).and_then(|reading| reading.held));
            }
        }
    }

    fn is_complete(&self) -> bool {
        !self.sources.is_empty() && self.sources.values().all(|source| source.complete)
    }

    /// Puts everything taken so far in force: the snapshot, and what is to be said about it. The snapshot is the
    /// one before when nothing changed.
    pub fn commit(&mut self) -> (Arc<Snapshot>, Report) {
        let snapshot = self.publish();
        (snapshot, self.account().report())
    }

    /// Puts everything taken so far in force. What is to be said about it is left to [`Self::account`].
    pub fn publish(&mut self) -> Arc<Snapshot> {
        let touched = std::mem::take(&mut self.touched);
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for id in touched {
            let entry = self.in_force.get(&id);
            let is_pending = entry.is_some_and(|entry| self.is_pending(&entry.origin));
            let judged = self.units.judge(&id, entry.map(|entry| &**entry), is_pending);
            let is_news =
                |candidate: &Candidate| !entry.is_some_and(|known| known.provenance.is(&candidate.provenance));
            match judged.counts {
                Some((origin, candidate)) if is_news(candidate) => put.push((origin.clone(), candidate.clone())),
                None if entry.is_some() && !judged.stays() => gone.push(id.clone()),
                _ => {}
            }
            self.unsaid.origins.extend(entry.map(|entry| entry.origin.clone()));
            let (is_known, current, held) = (judged.stays(), judged.is_current(), judged.held);
            let verdict = Verdict { is_known, current, held, findings: judged.findings };
            self.unsaid.judged.insert(id, verdict);
        }
        let gone: Vec<(Arc<Object>, Arc<Entry>)> = gone.iter().filter_map(|id| self.remove(id)).collect();
        put.into_iter().for_each(|(origin, candidate)| self.put_in_force(origin, candidate));
        for (object, entry) in gone {
            self.tell_gone(&object, &entry);
        }
        self.confirmed.clear();
        self.note_networks();
        self.compile();
        self.snapshot.clone()
    }

    /// Networks go out with the authorities, which every sidecar has.
    fn note_networks(&mut self) {
        let networks = self.model.networks().all();
        if self.networks != networks {
            self.networks = networks;
            self.dirty.insert(Subject::Trust);
        }
    }

    /// True while a source may have more to say of an origin than it has.
    fn is_pending(&self, origin: &Origin) -> bool {
        let source = self.sources.get(&origin.source);
        !self.confirmed.contains(origin) && !source.map_or_else(|| self.is_complete(), |source| source.complete)
    }

    fn remove(&mut self, id: &ObjectId) -> Option<(Arc<Object>, Arc<Entry>)> {
        self.concern(id, true);
        compile::affected(&self.model, id, &mut self.dirty);
        let (object, entry) = self.model.remove(id).zip(self.in_force.objects.remove(id))?;
        self.from.remove(&entry.origin, id);
        self.in_force.gone.insert(id.clone(), entry.generation);
        self.unsaved = true;
        Some((object, entry))
    }

    fn tell_gone(&mut self, object: &Object, entry: &Entry) {
        let Origin { name: file, source } = &entry.origin;
        let opened = gone::opened(&self.model, object);
        let is_gone = self.units.get(&entry.origin).is_none_or(Reading::is_empty);
        // What is gone from a cluster somebody has deleted by name.
        if is_gone && **source == *files::NAME && !self.confirmed.contains(&entry.origin) {
            self.gone.tell(object, file, &opened);
        }
        let (id, file, generation) = (object.id.clone(), file.clone(), object.generation);
        let documents = Documents { before: Some(entry.document.clone()), after: None };
        let (fate, provenance) = (Fate::Removed, entry.provenance.clone());
        let is_written = event::is_written(object);
        self.unsaid.events.push(Event {
            id,
            file,
            generation,
            fate,
            opened,
            provenance,
            documents,
            modes: None,
            is_written,
        });
    }

    /// Puts a version in force. Its generation is a new one when its content is.
    fn put_in_force(&mut self, origin: Origin, candidate: Candidate) {
        let Candidate { mut object, document, provenance, sound } = candidate;
        let id = object.id.clone();
        let known = self.model.get(&id);
        let same = known.filter(|known| known.same_content(&object)).cloned();
        let (is_first, is_same) = (known.is_none(), same.is_some());
        let generation = self.in_force.generation(&id) + u64::from(!is_same);
        self.concern(&id, is_first);
        match same {
            Some(same) => object = same,
            None => Arc::make_mut(&mut object).generation = generation,
        }
        self.units.share(&origin, &object);
        if !is_same {
            let new = Arc::clone(&object);
            let modes = gone::modes(&self.model, &new);
            compile::affected(&self.model, &id, &mut self.dirty);
            self.model.put(object);
            compile::affected(&self.model, &id, &mut self.dirty);
            self.concern(&id, false);
            let before = self.in_force.get(&id).map(|entry| entry.document.clone());
            self.unsaid.events.push(Event {
                id: id.clone(),
                file: origin.name.clone(),
                generation,
                fate: if is_first { Fate::Accepted } else { Fate::Changed },
                opened: String::new(),
                provenance: provenance.clone(),
                documents: Documents { before, after: Some(document.clone()) },
                modes: modes.zip(gone::modes(&self.model, &new)),
                is_written: event::is_written(&new),
            });
        }
        self.in_force.gone.remove(&id);
        let entry = Arc::new(Entry { origin: origin.clone(), provenance, document, generation, sound });
        let before = self.in_force.objects.insert(id.clone(), entry.clone());
        if let Some(before) = before.as_ref().filter(|before| before.origin != origin) {
            self.from.remove(&before.origin, &id);
        }
        self.from.add(&origin, &id);
        self.unsaid.origins.insert(origin);
        self.unsaved |= before.as_ref() != Some(&entry);
    }

    /// Notes whose findings may be others now. `comes_or_goes` tells whether the object was not there before, or is not any
    /// more after.
    fn concern(&mut self, id: &ObjectId, comes_or_goes: bool) {
        let concerned = &mut self.unsaid.concerned;
        concerned.insert(id.clone());
        references::concerned(&self.model, id, concerned);
        if comes_or_goes {
            references::concerned_by_presence(&self.model, id, concerned);
            concerned.extend(self.in_vain.of(id).cloned());
        }
    }

    /// Finds out what is to be said about the last commit.
    pub fn account(&mut self) -> Reports {
        let Unsaid { judged, origins, concerned, events } = std::mem::take(&mut self.unsaid);
        events.iter().for_each(Event::log);
        if let Some(audit) = &self.audit {
            events.iter().for_each(|event| event.put_on_record(audit));
        }
        for (id, verdict) in judged {
            let entry = self.in_force.get(&id);
            let standing = (entry.is_some() || verdict.is_known).then(|| Standing {
                file: entry.map_or_else(Arc::default, |entry| entry.origin.name.clone()),
                generation: entry.map_or(0, |entry| entry.generation),
                current: verdict.current,
                held: verdict.held,
            });
            self.reports.stand(&id, standing);
            self.reports.say(About::Twice(id), verdict.findings);
        }
        for origin in origins {
            let holding = self.units.holding(&origin, self.from.of(&origin));
            self.reports.say(About::Holding(origin), holding);
        }
        for id in concerned {
            let (findings, vain) = references::findings(&self.model, &self.in_force, self.missing, &id);
            self.in_vain.set(&id, vain);
            self.reports.say(About::References(id), findings);
        }
        let gone = self.gone.findings(&self.model).cloned().collect();
        self.reports.say(About::Gone, gone);
        self.reports.complete = self.is_complete();
        self.reports.pods = self.model.pods().clone();
        self.reports.clone()
    }

    /// As [`Self::account`], with what is to be said of moments that are near or past at this one, in seconds since the Unix
    /// epoch.
    pub fn account_at(&mut self, now: u64) -> Reports {
        self.account();
        let beside = Beside { trust_domain: &self.mesh.trust_domain, now };
        self.reports.say(About::Time, advice::of_time(&self.model, &self.in_force, beside));
        self.reports.clone()
    }

    /// Compiles what is dirty. A snapshot that refers to what is not there would be a defect of the compiler: the
    /// one before stays, and its subjects stay dirty.
    fn compile(&mut self) {
        let complete = self.is_complete();
        if self.dirty.is_empty() && self.snapshot.is_complete() == complete {
            return;
        }
        let mut draft = Draft::after(&self.snapshot);
        draft.set_complete(complete);
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
