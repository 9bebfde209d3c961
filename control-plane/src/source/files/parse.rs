//! The text of a file as objects with places, and every complaint about the rest.
//!
//! One document never hides another: each is read, checked for structure, and checked for meaning by its kind, and every
//! complaint names file, line, column and field.

use std::sync::Arc;

use selvedge_policies::finding::Code;

use super::{
    tree::{Content, Node},
    yaml::{self, Fault},
};
use crate::{
    diagnostic::{Diagnostic, Place, Severity},
    source::{Document, Provenance, Reading, Written},
    validate::{self, Author, NAMING, Verdict},
};

/// Most complaints about one file; more would hide the first.
const MAX_FINDINGS: usize = 100;

/// Reads the text of a file as it is now.
pub fn parse(document: &Document) -> Reading {
    parse_of(document, Author::Person)
}

/// Reads the text of a file of this author.
pub fn parse_of(document: &Document, author: Author) -> Reading {
    let file = &document.origin;
    let text = match &document.text {
        Ok(text) => text,
        Err(unread) => return Reading::unread(file, unread),
    };
    let mut reading = Reading::default();
    let mut complaints = Complaints { findings: Vec::new(), more: 0 };
    for yaml::Document { tree, faults } in yaml::read(text) {
        match tree {
            Some(node) => {
                let written = Written { file: file.clone(), text: text.clone(), node: Arc::new(node) };
                read(written, author, &faults, &mut reading, &mut complaints);
            }
            None => {
                reading.incomplete |= !faults.is_empty();
                faults.iter().for_each(|fault| complaints.add(|| complaint(file, text, fault)));
            }
        }
    }
    reading.findings = complaints.finish(file);
    reading
}

/// Reads one document into `reading`: its object, or why there is none. `repeated` are its fields that stand twice:
/// nobody knows which of the two was meant, so they make an object unsound.
fn read(written: Written, author: Author, repeated: &[Fault], reading: &mut Reading, complaints: &mut Complaints) {
    if let Some(items) = list_items(&written.node) {
        return list(&written, items, author, repeated, reading, complaints);
    }
    let document = written.node.to_value();
    let mut checked = validate::check(&document, author);
    let provenance = Provenance::File(written.clone());
    for (severity, problem) in &checked.complaints {
        let finding = || {
            provenance
                .finding(validate::code(problem), *severity, &problem.path, &*problem.message)
                .object(&checked.object)
        };
        complaints.add(finding);
    }
    for fault in repeated {
        complaints.add(|| complaint(&written.file, &written.text, fault).object(&checked.object));
    }
    reading.incomplete |= repeated.iter().any(names_the_object);
    checked.verdict = match checked.verdict {
        Verdict::Sound(object) | Verdict::Wanting(object) if !repeated.is_empty() => Verdict::Refused(object.id),
        verdict => verdict,
    };
    reading.add(&document, checked, provenance);
}

/// Reads the items of a `kind: List`, each as a document.
fn list(
    written: &Written,
    items: &[Node],
    author: Author,
    repeated: &[Fault],
    reading: &mut Reading,
    complaints: &mut Complaints,
) {
    let within = |fault: &&Fault, item: &Node| item.span.contains(&fault.span.start);
    for item in items {
        let own: Vec<Fault> = repeated.iter().filter(|fault| within(fault, item)).cloned().collect();
        read(Written { node: Arc::new(item.clone()), ..written.clone() }, author, &own, reading, complaints);
    }
    for fault in repeated.iter().filter(|fault| !items.iter().any(|item| within(fault, item))) {
        reading.incomplete = true;
        complaints.add(|| complaint(&written.file, &written.text, fault));
    }
}

fn names_the_object(fault: &Fault) -> bool {
    fault.repeats.as_ref().is_some_and(|field| NAMING.contains(&field.key.as_str()))
}

/// The items of a `kind: List`.
fn list_items(node: &Node) -> Option<&[Node]> {
    match (&node.get("items")?.value.content, node.text("kind")) {
        (Content::List(items), Some("List")) => Some(items),
        _ => None,
    }
}

fn complaint(file: &str, text: &str, fault: &Fault) -> Diagnostic {
    let finding =
        Diagnostic::new(Code::Syntax, Severity::Error, Place::new(file, text, fault.span.clone()), &*fault.message);
    match &fault.repeats {
        Some(field) => finding.related(Place::new(file, text, field.first.clone()), "it stands here first"),
        None => finding,
    }
}

/// The complaints about one file. Finding a place takes time, so it is not looked for beyond those that are shown.
struct Complaints {
    findings: Vec<Diagnostic>,
    more: usize,
}

impl Complaints {
    fn add(&mut self, complaint: impl FnOnce() -> Diagnostic) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(complaint());
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self, file: &Arc<str>) -> Vec<Diagnostic> {
        self.findings.sort_by_key(|finding| (finding.place.line, finding.place.column));
        if self.more > 0 {
            let message = format!("and {} more complaints about this file", self.more);
            self.findings.push(Diagnostic::new(Code::Syntax, Severity::Error, Place::file(file), message));
        }
        self.findings
    }
}
