//! What one origin says: its objects, and what cannot be taken.

use std::sync::Arc;

use selvedge_policies::{finding::Code, kind::Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Provenance, provenance::ClusterObject};
use crate::{
    diagnostic::{Diagnostic, Place, Severity},
    model::{self, Object, ObjectId},
    validate::{self, Author, Checked, Verdict},
};

/// What one origin says.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The objects that can be put in force, in the order in which they stand.
    pub objects: Vec<Candidate>,
    /// Objects that are there and not sound; their last good version stays in force.
    pub refused: Vec<ObjectId>,
    /// True when some document does not even tell which object it is, or not for certain, so that nothing of the origin
    /// may be taken for removed.
    pub incomplete: bool,
    /// Namespace and name of documents that may be objects of the mesh of a misspelt kind: objects of these names must
    /// not be taken for removed.
    pub unclear: Vec<(Arc<str>, Arc<str>)>,
    /// How what the origin said last is held, when nobody can tell what it says now.
    pub held: Option<Held>,
    /// The kinds of documents that are of some other system, each as often as it was passed over.
    pub passed_over: Vec<Arc<str>>,
    /// The complaints; of very many the first, and how many more there are.
    pub findings: Vec<Diagnostic>,
}

/// An object that can be put in force, with where it comes from.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The object. Its generation is known once it is in force, and its memory is then shared with what is.
    pub object: Arc<Object>,
    /// The document it was read from, as JSON.
    pub document: Arc<str>,
    /// Where it comes from.
    pub provenance: Provenance,
    /// False for one that takes the place of no sound version of itself.
    pub sound: bool,
}

/// Why nobody can tell what an origin says now. What it said last stays in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The reason, in words for people.
    pub why: Arc<str>,
    /// How it is held.
    pub held: Held,
}

/// How what an origin said last is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Held {
    /// It is a file that has nothing in it, not even a comment, or was one when it was removed.
    Emptied,
    /// It cannot be read, or is gone with everything around it.
    Lost,
}

impl From<&str> for Unread {
    fn from(why: &str) -> Self {
        Self { why: why.into(), held: Held::Lost }
    }
}

impl Reading {
    /// What an object of a cluster says.
    pub fn of_cluster(document: &Value, of: ClusterObject) -> Self {
        let mut reading = Self::default();
        let checked = validate::check(document, Author::Server);
        let provenance = Provenance::Cluster(of);
        let findings = checked.complaints.iter();
        let findings = findings.map(|(severity, problem)| {
            provenance
                .finding(validate::code(problem), *severity, &problem.path, &*problem.message)
                .object(&checked.object)
        });
        reading.findings.extend(findings);
        reading.add(document, checked, provenance);
        reading
    }

    /// The same, with warnings about the one object, which only its source knows of.
    pub(super) fn warned(mut self, of: &Provenance, problems: Vec<Problem>) -> Self {
        let known = self.objects.iter().map(|candidate| &candidate.object.id).chain(&self.refused);
        let object = known.map(ObjectId::to_string).next().unwrap_or_default();
        let warning = |Problem { path, message }| {
            of.finding(Code::NotDone, Severity::Warning, &format!("spec.{path}"), message).object(&*object)
        };
        self.findings.extend(problems.into_iter().map(warning));
        self
    }

    /// Of an origin of that name nobody can tell what it says.
    pub fn unread(name: &str, unread: &Unread) -> Self {
        let finding = Diagnostic::new(Code::Unreadable, Severity::Error, Place::file(name), &*unread.why);
        Self { incomplete: true, held: Some(unread.held), findings: vec![finding], ..Self::default() }
    }

    /// Adds what `document` is.
    pub(super) fn add(&mut self, document: &Value, checked: Checked, provenance: Provenance) {
        let document_kind = document.get("kind");
        let document = || document.to_string().into();
        let candidate = |object, sound| Candidate { object: Arc::new(object), document: document(), provenance, sound };
        match checked.verdict {
            Verdict::Sound(object) => self.objects.push(candidate(object, true)),
            Verdict::Wanting(object) => self.objects.push(candidate(object, false)),
            Verdict::Refused(id) => self.refused.push(id),
            Verdict::Unclear(namespace, name) => self.unclear.push((namespace, name)),
            Verdict::Foreign => {
                let kind = document_kind.and_then(Value::as_str).unwrap_or_default();
                // A Service may be another name for something, of which there is nothing to say.
                if model::kinds().all(|ours| ours.name != kind) {
                    self.passed_over.push(kind.into());
                }
            }
            Verdict::Unnamed => self.incomplete = true,
        }
    }

    /// True when there is no object, sound or not.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.is_sound()
    }

    /// True when it says nothing that could be relied on about an object that it does not have.
    pub fn is_silent_of(&self, id: &ObjectId) -> bool {
        let is_meant = |(namespace, name): &(Arc<str>, Arc<str>)| *namespace == id.namespace && *name == id.name;
        self.incomplete || self.unclear.iter().any(is_meant)
    }

    /// True when everything is a sound object, or of no concern.
    pub fn is_sound(&self) -> bool {
        let objects = self.objects.iter().all(|candidate| candidate.sound);
        objects && self.refused.is_empty() && self.unclear.is_empty() && !self.incomplete
    }
}
