//! What a control plane would say of what sources tell at one time, without one.
//!
//! It says more than a running one: what is missing does not come later, so it is an error; so is what every sidecar would
//! refuse. A rule that makes no difference is a warning.

use std::{path::Path, sync::Arc};

use super::{Store, enforceable, shadows};
use crate::{
    diagnostic::{Diagnostic, Severity},
    source::{Change, files},
};

/// Every finding about a directory of files, by file and line.
///
/// # Errors
/// Why the directory cannot be listed.
pub fn lint(dir: &Path) -> Result<Vec<Diagnostic>, Arc<str>> {
    Ok(lint_all([(files::NAME, files::once(dir)?)]))
}

/// Every finding about all that these sources, each by its name, tell at one time.
pub fn lint_all<'a>(sources: impl IntoIterator<Item = (&'a str, Vec<Change>)>) -> Vec<Diagnostic> {
    let mut store = Store { missing: Severity::Error, ..Store::new("mesh.local") };
    for (source, changes) in sources {
        for change in changes.into_iter().chain([Change::Complete]) {
            store.take(source, change);
        }
    }
    let (snapshot, report) = store.commit();
    let mut findings = report.findings;
    findings.extend(enforceable::findings(&snapshot, &store.in_force));
    findings.extend(shadows::findings(&store.model, &store.in_force));
    findings
}
