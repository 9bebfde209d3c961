//! Writes into files what is certain to be meant.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use selvedge_control_plane::diagnostic::Diagnostic;

/// Writes every fix that is certain, and says how many. A place that is not as it was read stays as it is.
pub(super) fn write(findings: &[Diagnostic]) -> anyhow::Result<usize> {
    let mut by_file: BTreeMap<&str, Vec<&Diagnostic>> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.fix.as_ref().is_some_and(|fix| fix.certain)) {
        by_file.entry(&finding.place.file).or_default().push(finding);
    }
    let mut written = 0;
    for (name, mut findings) in by_file.into_iter().filter(|(name, _)| Path::new(name).is_file()) {
        let mut text = fs::read_to_string(name).with_context(|| format!("reading {name}"))?;
        // From the end on, so that the places before stay what they are.
        findings.sort_by_key(|finding| (finding.place.line, finding.place.column));
        findings.dedup_by_key(|finding| (finding.place.line, finding.place.column));
        let before = written;
        for finding in findings.into_iter().rev() {
            let Some(fix) = &finding.fix else { continue };
            if let Some(fixed) = finding.place.rewrite(&text, &fix.text) {
                text = fixed;
                written += 1;
            }
        }
        if written > before {
            fs::write(name, text).with_context(|| format!("writing {name}"))?;
        }
    }
    Ok(written)
}
