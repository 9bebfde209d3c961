//! What was accepted and what was refused, object by object.
//!
//! [`Reports`] is kept up to date object by object, so that it costs what a change touches; a [`Report`] is written from it
//! when somebody asks.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{ObjectId, pods::Pods},
    shared::Shared,
    source::Origin,
};

/// The state of the user's objects after a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// True once every source has told everything.
    pub complete: bool,
    /// Every object in force or refused, by kind, namespace and name.
    pub objects: Vec<ObjectReport>,
    /// Every complaint, by file and line.
    pub findings: Vec<Diagnostic>,
}

/// The state of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReport {
    /// The kind, as it is written in `kind:`.
    pub kind: String,
    /// The namespace it is in (`metadata.namespace`).
    pub namespace: String,
    /// Its name there (`metadata.name`).
    pub name: String,
    /// The file of the version in force, or what its source calls it; empty when none is.
    pub file: String,
    /// The generation in force; 0 when none is.
    pub accepted_generation: u64,
    /// True when the object as it is written now is in force; false when the last good version is, or none.
    pub current: bool,
    /// What is wrong with the object as it is written now, each as one line.
    pub problems: Vec<String>,
}

/// What a report is written from. A copy is cheap.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// True once every source has told everything.
    pub complete: bool,
    /// How many objects there are in which state.
    pub counts: Counts,
    /// How far the pods of namespaces have sidecars.
    pub pods: Pods,
    standing: Shared<ObjectId, Standing>,
    findings: Shared<About, Arc<[Diagnostic]>>,
}

/// The user's objects by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In force as they are written now.
    pub current: usize,
    /// In force as they last were good.
    pub stale: usize,
    /// In force in no version.
    pub refused: usize,
}

/// How one object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Where the version in force comes from; empty when none is.
    pub(super) file: Arc<str>,
    pub(super) generation: u64,
    pub(super) current: bool,
    pub(super) held: bool,
}

/// What a group of findings is about, which come and go together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum About {
    /// A source that cannot say what there is.
    Source(Arc<str>),
    /// What an origin says.
    Origin(Origin),
    /// The objects in force of which nobody can tell whether an origin still has them.
    Holding(Origin),
    /// The objects that went with their origin.
    Gone,
    /// Moments that are near or past.
    Time,
    /// An object that stands twice.
    Twice(ObjectId),
    /// What an object has to do with the others.
    References(ObjectId),
}

/// What is to be said of an object that is held without a complaint of its own.
const HELD: &str = "it cannot be told whether the file still has the object; its last good version is in force";

impl Reports {
    /// Says how an object stands; `None` when there is none.
    pub(super) fn stand(&mut self, id: &ObjectId, standing: Option<Standing>) {
        if let Some(standing) = &standing {
            *self.counts.of(standing) += 1;
        }
        let before = match standing {
            Some(standing) => self.standing.insert(id.clone(), standing),
            None => self.standing.remove(id),
        };
        if let Some(before) = &before {
            *self.counts.of(before) -= 1;
        }
    }

    /// Says all that is to be said about something.
    pub(super) fn say(&mut self, about: About, findings: Vec<Diagnostic>) {
        if findings.is_empty() {
            self.findings.remove(&about);
        } else {
            self.findings.insert(about, findings.into());
        }
    }

    /// True when what is in force is all that users wrote: every source has told everything, and nothing of it is refused, stale
    /// or held.
    pub fn is_whole(&self) -> bool {
        let is_error = |finding: &Diagnostic| finding.severity == Severity::Error;
        self.complete
            && self.standing.iter().all(|(_, standing)| standing.current && !standing.held)
            && !self.findings.iter().any(|(_, findings)| findings.iter().any(is_error))
    }

    /// All of it as `/status` shows it, in order of objects and places.
    pub fn report(&self) -> Report {
        let mut findings: Vec<(&About, &Diagnostic)> = Vec::new();
        for (about, said) in self.findings.iter() {
            findings.extend(said.iter().map(|finding| (about, finding)));
        }
        findings.sort_by(|(_, a), (_, b)| {
            let key = |finding: &Diagnostic| (finding.place.line, finding.place.column, finding.severity);
            a.place.file.cmp(&b.place.file).then(key(a).cmp(&key(b))).then_with(|| a.message.cmp(&b.message))
        });
        let mut problems: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        // That it was removed once is nothing that is wrong with it now.
        let now = findings.iter().filter(|(about, finding)| **about != About::Gone && !finding.object.is_empty());
        for (_, finding) in now {
            problems.entry(&finding.object).or_default().push(finding.to_string());
        }
        let problems_of = |id: &ObjectId, standing: &Standing| {
            let own = if problems.is_empty() { None } else { problems.get(id.to_string().as_str()).cloned() };
            own.or_else(|| standing.held.then(|| vec![HELD.to_owned()])).unwrap_or_default()
        };
        let object = |(id, standing): (&ObjectId, &Standing)| ObjectReport {
            kind: id.kind.to_owned(),
            namespace: id.namespace.to_string(),
            name: id.name.to_string(),
            file: standing.file.to_string(),
            accepted_generation: standing.generation,
            current: standing.current,
            problems: problems_of(id, standing),
        };
        let mut objects: Vec<ObjectReport> = self.standing.iter().map(object).collect();
        objects.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
        let findings = findings.into_iter().map(|(_, finding)| finding.clone()).collect();
        Report { complete: self.complete, objects, findings }
    }

    /// Logs the findings that `before` did not have.
    pub(super) fn log(&self, before: &Self) {
        let (news, _) = self.findings.since(&before.findings);
        for (about, findings) in news {
            let known: Vec<String> = before
                .findings
                .get(about)
                .into_iter()
                .flat_map(|known| known.iter())
                .map(ToString::to_string)
                .collect();
            for finding in findings.iter().filter(|finding| !known.contains(&finding.to_string())) {
                match finding.severity {
                    Severity::Error => tracing::error!(object = %finding.object, field = %finding.field, "{finding}"),
                    Severity::Warning | Severity::Note => {
                        tracing::warn!(object = %finding.object, field = %finding.field, "{finding}")
                    }
                }
            }
        }
    }
}

impl Counts {
    fn of(&mut self, standing: &Standing) -> &mut usize {
        match standing {
            Standing { current: true, .. } => &mut self.current,
            Standing { generation: 0, .. } => &mut self.refused,
            Standing { .. } => &mut self.stale,
        }
    }
}

impl Report {
    /// How many findings refuse an object.
    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error).count()
    }
}
