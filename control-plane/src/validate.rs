//! What users wrote, as objects of the mesh, and every complaint about the rest.
//!
//! One document never hides another: each is read, checked for structure, and checked for meaning by its kind, and
//! every complaint names file, line, column and field. [`references`] then looks at all objects together.

use std::{ops::Range, sync::Arc};

use crate::{
    diagnostic::{Diagnostic, Place, Severity},
    model::{Object, ObjectId},
    source::{
        Document, Held,
        files::{
            tree::Node,
            yaml::{self, Fault},
        },
    },
};

mod addresses;
mod object;
pub mod references;

/// What one file holds.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The sound objects, in the order of the file, and those that are taken where no sound version is in force.
    pub objects: Vec<Candidate>,
    /// Objects that are there and not sound; their last good version stays in force.
    pub refused: Vec<ObjectId>,
    /// True when some document does not even tell which object it is, or not for certain, so that nothing of the file may
    /// be taken for removed.
    pub incomplete: bool,
    /// Namespace and name of documents that may be objects of the mesh of a misspelt kind: objects of these names must
    /// not be taken for removed.
    pub unclear: Vec<(Arc<str>, Arc<str>)>,
    /// How what the file said last is held, when nobody can tell what it says now.
    pub held: Option<Held>,
    /// The complaints; of very many the first, and how many more there are.
    pub findings: Vec<Diagnostic>,
}

impl Reading {
    /// True when the file has no object, sound or not.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.is_sound()
    }

    /// True when everything in the file is a sound object, or of no concern.
    pub fn is_sound(&self) -> bool {
        let objects = self.objects.iter().all(|candidate| candidate.written.is_sound());
        objects && self.refused.is_empty() && self.unclear.is_empty() && !self.incomplete
    }
}

/// An object that can be put in force, with the place it was written.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The object; its generation is not known yet.
    pub object: Object,
    /// Where it was written.
    pub written: Written,
}

/// Where an object was written, down to the field.
#[derive(Clone, Debug)]
pub struct Written {
    file: Arc<str>,
    text: Arc<str>,
    node: Arc<Node>,
    /// False when something in it is written and empty, so that it says less than it was to say.
    sound: bool,
}

/// Most complaints about one file; more would hide the first.
const MAX_FINDINGS: usize = 100;

/// Reads one document of a source.
pub fn read(document: &Document) -> Reading {
    let file = &document.origin;
    let mut reading = Reading::default();
    let text = match &document.text {
        Ok(text) => text,
        Err(unread) => {
            reading.incomplete = true;
            reading.held = Some(unread.held);
            reading.findings.push(Diagnostic::new(Severity::Error, Place::file(file), &*unread.why));
            return reading;
        }
    };
    let mut complaints = Complaints { findings: Vec::new(), more: 0 };
    for yaml::Document { tree, faults } in yaml::read(text) {
        match tree {
            Some(node) => {
                let written = Written { file: file.clone(), text: text.clone(), node: Arc::new(node), sound: true };
                object::read(written, &faults, &mut reading, &mut complaints);
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

fn complaint(file: &str, text: &str, fault: &Fault) -> Diagnostic {
    let finding = Diagnostic::new(Severity::Error, Place::new(file, text, fault.span.clone()), &*fault.message);
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
            self.findings.push(Diagnostic::new(Severity::Error, Place::file(file), message));
        }
        self.findings
    }
}

impl Written {
    /// The file.
    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// The whole text of the file.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// False for an object that takes the place of no sound version of itself.
    pub const fn is_sound(&self) -> bool {
        self.sound
    }

    /// True when both are one reading of one document, so that nothing can have changed.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }

    /// The place of a field, as `spec.rules[0].to`.
    pub fn place(&self, path: &str) -> Place {
        self.at(self.node.locate(path, false))
    }

    /// A complaint at a field.
    pub fn finding(&self, severity: Severity, path: &str, message: impl Into<String>) -> Diagnostic {
        let message = message.into();
        let span = self.node.locate(path, message.starts_with("unknown field"));
        Diagnostic::new(severity, self.at(span), message).field(path)
    }

    /// The complaint about a fault of the YAML.
    fn fault(&self, fault: &Fault) -> Diagnostic {
        complaint(&self.file, &self.text, fault)
    }

    fn at(&self, span: Range<usize>) -> Place {
        Place::new(&self.file, &self.text, span)
    }
}
