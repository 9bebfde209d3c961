//! What was accepted and what was refused, object by object.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::merge::Merged;
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{Model, ObjectId},
    validate::Written,
};

/// The state of the user's objects after a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// True once the source has told everything.
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
    /// `kind`.
    pub kind: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The file of the version in force; empty when none is.
    pub file: String,
    /// The generation in force; 0 when none is.
    pub accepted_generation: u64,
    /// True when the object as it is written now is in force; false when the last good version is, or none.
    pub current: bool,
    /// What is wrong with the object as it is written now, each as one line.
    pub problems: Vec<String>,
}

/// What is to be said of an object that is held without a complaint of its own.
const HELD: &str = "it cannot be told whether the file still has the object; its last good version is in force";

pub(super) fn report(
    model: &Model,
    written: &HashMap<ObjectId, Written>,
    merged: &Merged<'_>,
    mut findings: Vec<Diagnostic>,
    complete: bool,
) -> Report {
    findings.sort_by(|a, b| {
        let key = |finding: &Diagnostic| (finding.place.file.clone(), finding.place.line, finding.place.column);
        key(a).cmp(&key(b))
    });
    let mut problems: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| !finding.object.is_empty()) {
        problems.entry(&finding.object).or_default().push(finding.to_string());
    }
    let problems_of = |id: &ObjectId| {
        let own = if problems.is_empty() { None } else { problems.get(id.to_string().as_str()).cloned() };
        let held = || merged.held.contains(id).then(|| vec![HELD.to_owned()]);
        own.or_else(held).unwrap_or_default()
    };
    let object = |id: &ObjectId| ObjectReport {
        kind: id.kind.to_owned(),
        namespace: id.namespace.to_string(),
        name: id.name.to_string(),
        file: written.get(id).map_or(String::new(), |written| written.file().to_string()),
        accepted_generation: model.get(id).map_or(0, |object| object.generation),
        current: merged.sound.get(id).is_some_and(|candidate| candidate.written.is_sound())
            && !merged.refused.contains(id),
        problems: problems_of(id),
    };
    let in_force = model.objects().map(|known| object(&known.id));
    let never = merged.refused.iter().filter(|id| model.get(id).is_none()).map(|id| object(id));
    let mut objects: Vec<ObjectReport> = in_force.chain(never).collect();
    objects.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
    Report { complete, objects, findings }
}

impl Report {
    /// How many findings refuse an object.
    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error).count()
    }

    /// Logs the findings that `before` did not have.
    pub(super) fn log(&self, before: &Report) {
        let known: HashSet<String> = before.findings.iter().map(ToString::to_string).collect();
        for finding in self.findings.iter().filter(|finding| !known.contains(&finding.to_string())) {
            match finding.severity {
                Severity::Error => tracing::error!(object = %finding.object, field = %finding.field, "{finding}"),
                Severity::Warning => tracing::warn!(object = %finding.object, field = %finding.field, "{finding}"),
            }
        }
    }
}
