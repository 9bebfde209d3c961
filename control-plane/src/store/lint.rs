//! What a control plane would say of what sources tell at one time, without one.
//!
//! It says more than a running one: what is missing does not come later, so it is an error; so is what every sidecar would
//! refuse. A rule that makes no difference is a warning, and so is what hardly means what its author meant.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use selvedge_policies::finding::Code;

use super::{Beside, Store, advice, enforceable, shadows};
use crate::{
    clock,
    diagnostic::{Diagnostic, Place, Severity},
    model::ObjectId,
    source::{Change, Reading, files},
};

/// What was read, and what is to be said of it.
#[derive(Debug, Default)]
pub struct Linted {
    /// Every finding, by file and line.
    pub findings: Vec<Diagnostic>,
    /// How many files were read.
    pub files: usize,
    /// How many objects there are of each kind, sound or not.
    pub objects: BTreeMap<&'static str, usize>,
    /// How many documents of each kind are not of the mesh.
    pub passed_over: BTreeMap<Arc<str>, usize>,
}

/// Every finding about a directory of files of a mesh with the usual trust domain, by file and line.
///
/// # Errors
/// Why the directory cannot be listed.
pub fn lint(dir: &Path) -> Result<Vec<Diagnostic>, Arc<str>> {
    let beside = Beside { trust_domain: "mesh.local", now: clock::unix() };
    Ok(lint_all([(files::NAME, files::once(dir)?)], beside).findings)
}

/// What is to be said of all that these sources, each by its name, tell at one time.
pub fn lint_all<'a>(sources: impl IntoIterator<Item = (&'a str, Vec<Change>)>, beside: Beside<'_>) -> Linted {
    let mut store = Store { missing: Severity::Error, ..Store::new(beside.trust_domain) };
    let mut linted = Linted::default();
    for (source, changes) in sources {
        for change in changes.into_iter().chain([Change::Complete]) {
            if let Change::Put(origin, reading) = &change {
                linted.count(source, origin, reading);
            }
            store.take(source, change);
        }
    }
    let (snapshot, report) = store.commit();
    linted.findings.extend(report.findings);
    linted.findings.extend(enforceable::findings(&snapshot, &store.in_force));
    linted.findings.extend(shadows::findings(&store.model, &store.in_force));
    linted.findings.extend(advice::findings(&store.model, &store.in_force, beside));
    let place = |finding: &Diagnostic| {
        (finding.place.file.clone(), finding.place.line, finding.place.column, finding.severity, finding.code)
    };
    linted.findings.sort_by_cached_key(place);
    linted
}

impl Linted {
    /// How many findings are this bad.
    pub fn count_of(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    fn count(&mut self, source: &str, origin: &str, reading: &Reading) {
        let sound = reading.objects.iter().map(|candidate| &candidate.object.id);
        for ObjectId { kind, .. } in sound.chain(&reading.refused) {
            *self.objects.entry(kind).or_default() += 1;
        }
        if source != files::NAME {
            return;
        }
        self.files += 1;
        let mut here = BTreeMap::<Arc<str>, usize>::new();
        for kind in &reading.passed_over {
            *here.entry(kind.clone()).or_default() += 1;
            *self.passed_over.entry(kind.clone()).or_default() += 1;
        }
        if !here.is_empty() {
            let (count, kinds) = (reading.passed_over.len(), listed(&here));
            let documents = if count == 1 { "document is" } else { "documents are" };
            let message = format!("{count} {documents} not of the mesh and passed over: {kinds}");
            self.findings.push(Diagnostic::new(Code::PassedOver, Severity::Note, Place::file(origin), message));
        }
    }
}

/// Counted kinds, in words.
fn listed(kinds: &BTreeMap<Arc<str>, usize>) -> String {
    let counted = kinds.iter().map(|(kind, count)| format!("{count} {kind}"));
    counted.collect::<Vec<_>>().join(", ")
}
