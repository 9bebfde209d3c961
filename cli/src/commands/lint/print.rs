//! Findings for people, and as one JSON object.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
};

use selvedge_control_plane::{
    diagnostic::{Diagnostic, Severity},
    store::Linted,
};
use serde::Serialize;

/// What `-o json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    errors: usize,
    warnings: usize,
    notes: usize,
    files: usize,
    objects: &'a BTreeMap<&'static str, usize>,
    passed_over: BTreeMap<&'a str, usize>,
    findings: &'a [Diagnostic],
}

/// Prints all of it as JSON.
pub(super) fn json(out: &mut impl Write, linted: &Linted) -> io::Result<()> {
    let count = |severity| linted.count_of(severity);
    let passed_over = linted.passed_over.iter().map(|(kind, count): (&Arc<str>, _)| (&**kind, *count)).collect();
    let summary = Summary {
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        notes: count(Severity::Note),
        files: linted.files,
        objects: &linted.objects,
        passed_over,
        findings: &linted.findings,
    };
    serde_json::to_writer_pretty(&mut *out, &summary)?;
    writeln!(out)
}

/// Prints each finding with the lines it is about, and at the end what was read.
pub(super) fn text(out: &mut impl Write, linted: &Linted, fixed: usize, colours: bool) -> io::Result<()> {
    for finding in &linted.findings {
        writeln!(out, "{}\n", finding.render(colours))?;
    }
    if fixed > 0 {
        writeln!(out, "wrote {} into the files", counted(fixed, "fix", "fixes"))?;
    }
    let found = |severity, one, many| counted(linted.count_of(severity), one, many);
    let mut told = match linted.count_of(Severity::Error) + linted.count_of(Severity::Warning) {
        0 => "no findings".to_owned(),
        _ => [found(Severity::Error, "error", "errors"), found(Severity::Warning, "warning", "warnings")].join(", "),
    };
    if linted.count_of(Severity::Note) > 0 {
        told = [told, found(Severity::Note, "note", "notes")].join(", ");
    }
    let files = counted(linted.files, "file", "files");
    let objects = counted(linted.objects.values().sum(), "object", "objects");
    writeln!(out, "{told}: {objects} in {files}{}", kinds(&linted.objects))
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn kinds(objects: &BTreeMap<&'static str, usize>) -> String {
    let counted: Vec<String> = objects.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if counted.is_empty() { String::new() } else { format!(" ({})", counted.join(", ")) }
}
