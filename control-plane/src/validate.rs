//! One document of Kubernetes shape, checked: the envelope, and `spec` by its kind.
//!
//! Where a document was written is nothing to this: complaints name the field, and whoever has the document knows the
//! place. A document that is not sound still tells, if it can, which object it would be, for the last good version of that
//! one stays in force.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use selvedge_policies::{
    finding::Code,
    kind::{self, Kind, Problem},
    timestamp,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    diagnostic::Severity,
    model::{
        self, Labels, Object, ObjectId, Spec, endpoint_slice, label_problem,
        mesh_policy::{self, ROOT_NAMESPACE},
        service, workload,
    },
};

/// What a document is, and every complaint about it.
#[derive(Debug)]
pub struct Checked {
    /// The object it is, as far as that can be told.
    pub verdict: Verdict,
    /// The object it would be, as `Kind namespace/name`; empty when it cannot be told.
    pub object: String,
    /// What is wrong with which field of the document, as `spec.rules[0].to`. An error refuses it as it is written.
    pub complaints: Vec<(Severity, Problem)>,
}

/// What a document is.
#[derive(Debug)]
pub enum Verdict {
    /// This object; its generation is not known yet.
    Sound(Object),
    /// This object, which takes the place of no sound version of itself: something in it is written and empty, so that it
    /// says less than it was to say.
    Wanting(Object),
    /// This object, in no form that can be taken.
    Refused(ObjectId),
    /// Perhaps an object of the mesh, of a misspelt kind, with that namespace and name.
    Unclear(Arc<str>, Arc<str>),
    /// Certainly of some other system, or a `Service` that nothing of the mesh is behind.
    Foreign,
    /// It does not even tell which object it is, or not for certain.
    Unnamed,
}

/// Who wrote a document, which says what a parent of a route is that does not name its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// A person, of whom nobody can tell: the person has to say it.
    Person,
    /// A server of the Gateway API, to which it is a `Gateway`.
    Server,
    /// A person, for a release of this control plane to which it was a `Service`.
    Before,
}

impl Author {
    /// Writes what is meant where nothing is written.
    fn complete(self, spec: &mut Value) {
        let (group, kind) = match self {
            Self::Person => return,
            Self::Server => ("gateway.networking.k8s.io", "Gateway"),
            Self::Before => ("", "Service"),
        };
        let parents = spec.get_mut("parentRefs").and_then(Value::as_array_mut).into_iter().flatten();
        for parent in parents.filter_map(Value::as_object_mut).filter(|parent| !parent.contains_key("kind")) {
            parent.insert("kind".to_owned(), kind.into());
            parent.entry("group").or_insert_with(|| group.into());
        }
    }
}

/// What every object has beside `spec`. What only a server writes is read over.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    #[expect(dead_code, reason = "there for the schema; compared before the kind is known to be sound")]
    api_version: String,
    #[expect(dead_code, reason = "there for the schema; looked up before the envelope is known to be sound")]
    kind: String,
    metadata: Metadata,
    #[expect(dead_code, reason = "there for the schema; the kind checks it")]
    spec: Value,
    #[serde(default)]
    #[expect(dead_code, reason = "there for the schema; a server writes it")]
    status: Value,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[expect(dead_code, reason = "there for the schema; checked when the kind is known")]
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "there for the schema; read from the tree, like the rest of the id")]
    labels: Labels,
    #[serde(default)]
    #[expect(dead_code, reason = "there for the schema; nothing in the mesh looks at annotations")]
    annotations: BTreeMap<String, String>,
}

/// The fields of `metadata` that mean something here; a misspelt one is told from what servers add.
const METADATA: [&str; 4] = ["name", "namespace", "labels", "annotations"];

/// The fields that tell which object a document is.
pub const NAMING: [&str; 4] = ["kind", "metadata", "name", "namespace"];

/// Checks one document of this author: its structure first, and what its kind demands when that is sound.
pub fn check(document: &Value, author: Author) -> Checked {
    let Some(slice) = document.as_object().filter(|_| text(document, "kind") == Some(endpoint_slice::KIND.name)) else {
        return check_enveloped(document, author);
    };
    check_enveloped(&Value::Object(endpoint_slice::with_spec(slice)), author)
}

fn check_enveloped(document: &Value, author: Author) -> Checked {
    if is_beside(document) {
        return Checked { verdict: Verdict::Foreign, object: String::new(), complaints: Vec::new() };
    }
    let mut problems = kind::check::<Envelope>(document, envelope_problems);
    let misspelt = misspelt_metadata(document);
    problems.extend(misspelt.iter().map(misspelling));
    let kind = kind_of(document, &mut problems);
    problems.extend(misnamed(document, kind));
    problems.extend(misplaced(document, kind));
    let name = name_of(document, kind).filter(|_| is_named(document, &misspelt));
    let id = kind.zip(name.clone()).map(|(kind, (namespace, name))| ObjectId { kind: kind.name, namespace, name });
    let object = id.as_ref().map_or(String::new(), ObjectId::to_string);
    if problems.is_empty() && id.as_ref().is_some_and(|id| is_name_only(id, document)) {
        return Checked { verdict: Verdict::Foreign, object, complaints: Vec::new() };
    }
    let (mut blanks, mut complaints) = (Vec::new(), Vec::new());
    let spec = kind.and_then(|kind| {
        let mut written = document.get("spec")?.clone();
        complaints.extend(read_over(kind, author, &mut written).into_iter().map(|odd| (Severity::Warning, odd)));
        spec(kind, id.as_ref(), written, author, &mut problems, &mut blanks)
    });
    let is_sound = problems.is_empty();
    if let Some(id) = id.as_ref().filter(|id| id.kind == mesh_policy::KIND.name && !has_namespace(document)) {
        let message = format!(
            "no namespace is written, so this covers namespace '{}' alone: write that, or {ROOT_NAMESPACE} with targetRef \
             {{kind: Mesh}} for the whole mesh",
            id.namespace
        );
        complaints.push((Severity::Warning, Problem::new("metadata.namespace", message)));
    }
    let (created, odd) = created(document);
    complaints.extend(odd.map(|problem| (Severity::Warning, problem)));
    let is_whole = blanks.is_empty();
    complaints.extend(problems.into_iter().chain(blanks).map(|problem| (Severity::Error, problem)));
    let verdict = match (id, spec, name) {
        (Some(id), Some(spec), _) if is_sound => {
            let object = Object { id, generation: 0, labels: labels(document), created, spec };
            if is_whole { Verdict::Sound(object) } else { Verdict::Wanting(object) }
        }
        (Some(id), ..) => Verdict::Refused(id),
        (None, ..) if is_foreign(document) => Verdict::Foreign,
        (None, _, Some((namespace, name))) if text(document, "kind").is_some() => Verdict::Unclear(namespace, name),
        (None, ..) => Verdict::Unnamed,
    };
    Checked { verdict, object, complaints }
}

/// What kind of finding a complaint of this module is.
pub fn code(problem: &Problem) -> Code {
    let says = |text: &str| problem.message.starts_with(text);
    let is_about = |text: &str| problem.message.contains(text);
    let known: [(bool, Code); 6] = [
        (says("unknown field"), Code::UnknownField),
        (says("unknown kind"), Code::UnknownKind),
        (says("missing field"), Code::MissingField),
        (says("no namespace is written"), Code::NoNamespace),
        (is_about("as when values get lost"), Code::EmptyValue),
        (is_about("asks nothing"), Code::EmptyValue),
    ];
    known.into_iter().find(|(is, _)| *is).map_or(Code::InvalidValue, |(_, code)| code)
}

fn text<'a>(document: &'a Value, field: &str) -> Option<&'a str> {
    document.get(field)?.as_str()
}

/// True for a document that is certainly of some other system: neither its API nor its kind is like one of ours. The API
/// of Kubernetes' core says nothing: of its many kinds one is ours.
fn is_foreign(document: &Value) -> bool {
    let is_ours = |given: &str| {
        let group = group(given);
        !group.is_empty() && model::kinds().any(|kind| self::group(kind.api_version) == group)
    };
    match (text(document, "apiVersion"), text(document, "kind")) {
        (Some(version), Some(kind)) => !is_ours(version) && meant(kind, &kind_names()).is_none(),
        _ => false,
    }
}

/// Groups of Kubernetes itself that have none of our kinds, beside those that end in `.k8s.io`.
const GROUPS: [&str; 5] = ["apps", "autoscaling", "batch", "extensions", "policy"];

/// The kinds of groups that have some of ours, too, which are none.
const BESIDE: [(&str, &[&str]); 2] = [
    (
        "",
        &[
            "ConfigMap",
            "Endpoints",
            "Event",
            "LimitRange",
            "Namespace",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
            "Secret",
            "ServiceAccount",
        ],
    ),
    ("gateway.networking.k8s.io", &["Gateway", "GatewayClass", "ListenerSet"]),
];

/// True for what a cluster has beside the mesh, such as a `Deployment`: a kind of Kubernetes itself or of the Gateway API that
/// is none of ours. It stands among what the mesh reads, and nothing is wrong with that.
fn is_beside(document: &Value) -> bool {
    let (Some(version), Some(kind)) = (text(document, "apiVersion"), text(document, "kind")) else { return false };
    let group = group(version);
    match BESIDE.iter().find(|(shared, _)| *shared == group) {
        Some((_, kinds)) => kinds.contains(&kind),
        None => (GROUPS.contains(&group) || group.ends_with(".k8s.io")) && is_foreign(document),
    }
}

fn kind_of(document: &Value, problems: &mut Vec<Problem>) -> Option<&'static Kind> {
    let given = text(document, "kind")?;
    let Some(kind) = model::kinds().find(|kind| kind.name == given) else {
        let known = kind_names();
        let hint = match meant(given, &known) {
            Some(name) => format!("did you mean '{name}'?"),
            None => format!("expected one of {}", known.join(", ")),
        };
        problems.push(Problem::new("kind", format!("unknown kind '{}': {hint}", short(given))));
        return None;
    };
    if let Some(version) = text(document, "apiVersion").filter(|version| !kind.is_of(version)) {
        let (given, expected) = (short(version), kind.api_version);
        let why = format!("apiVersion '{given}' is not that of {}: expected {expected}", kind.name);
        problems.push(Problem::new("apiVersion", why));
    }
    Some(kind)
}

fn envelope_problems(envelope: &Envelope) -> Vec<Problem> {
    let namespace = envelope.metadata.namespace.as_deref().and_then(label_problem);
    namespace.map(|why| Problem::new("metadata.namespace", why)).into_iter().collect()
}

/// What is wrong with the name that a document has, for one of this kind.
fn misnamed(document: &Value, kind: Option<&Kind>) -> Option<Problem> {
    let why = model::name_problem(kind, text(document.get("metadata")?, "name")?)?;
    Some(Problem::new("metadata.name", why))
}

/// What is wrong with the namespace that a document has although objects of its kind are in none.
fn misplaced(document: &Value, kind: Option<&Kind>) -> Option<Problem> {
    let kind = kind.filter(|kind| model::home(Some(kind)).is_empty() && has_namespace(document))?;
    Some(Problem::new("metadata.namespace", format!("a {} is in no namespace: leave it out", kind.name)))
}

/// The fields of `metadata` that are misspelt, each with the one that was probably meant.
fn misspelt_metadata(document: &Value) -> Vec<(&str, &'static str)> {
    let fields = document.get("metadata").and_then(Value::as_object).into_iter().flatten();
    let unknown = fields.map(|(key, _)| &**key).filter(|key| !METADATA.contains(key));
    unknown.filter_map(|key| Some((key, meant(key, &METADATA)?))).collect()
}

fn misspelling((key, meant): &(&str, &str)) -> Problem {
    Problem::new(format!("metadata.{key}"), format!("unknown field '{}': did you mean '{meant}'?", short(key)))
}

/// False when a name or namespace is misspelt or not in `metadata`: what takes its place is another object's.
fn is_named(document: &Value, misspelt: &[(&str, &str)]) -> bool {
    let is_elsewhere = document.get("name").is_some() || document.get("namespace").is_some();
    !is_elsewhere && !misspelt.iter().any(|(_, meant)| NAMING.contains(meant))
}

/// Namespace and name, when both are sound for an object of this kind.
fn name_of(document: &Value, kind: Option<&Kind>) -> Option<(Arc<str>, Arc<str>)> {
    let metadata = document.get("metadata")?;
    let name = text(metadata, "name").filter(|name| model::name_problem(kind, name).is_none())?;
    let namespace = match metadata.get("namespace") {
        None | Some(Value::Null) => model::home(kind),
        Some(_) => text(metadata, "namespace").filter(|namespace| label_problem(namespace).is_none())?,
    };
    Some((namespace.into(), name.into()))
}

/// Whether the document says in which namespace it is.
fn has_namespace(document: &Value) -> bool {
    document.get("metadata").is_some_and(|metadata| text(metadata, "namespace").is_some())
}

fn labels(document: &Value) -> Labels {
    let Some(labels) = document.get("metadata").and_then(|metadata| metadata.get("labels")) else {
        return Labels::new();
    };
    serde_json::from_value(labels.clone()).unwrap_or_default()
}

/// When a server created the object, in seconds since the Unix epoch, and what is wrong with the time that is written.
fn created(document: &Value) -> (Option<u64>, Option<Problem>) {
    let Some(written) = document.get("metadata").and_then(|metadata| metadata.get("creationTimestamp")) else {
        return (None, None);
    };
    let odd =
        |why| Problem::new("metadata.creationTimestamp", format!("this object counts as the youngest, since {why}"));
    match written {
        Value::Null => (None, None),
        Value::String(text) => match timestamp::unix_seconds(text) {
            Ok(seconds) => (Some(seconds), None),
            Err(why) => (None, Some(odd(why))),
        },
        other => (None, Some(odd(format!("{other} is no timestamp: expected RFC 3339 such as 2026-12-31T23:59:59Z")))),
    }
}

/// True for a `Service` that nothing of the mesh is behind.
fn is_name_only(id: &ObjectId, document: &Value) -> bool {
    id.kind == service::KIND.name && document.get("spec").is_some_and(service::is_name_only)
}

/// Takes out of a `spec` of this kind what says nothing inside a mesh, and tells what of it is odd.
fn read_over(kind: &Kind, author: Author, spec: &mut Value) -> Vec<Problem> {
    if kind.name == workload::KIND.name && author == Author::Person {
        return workload::said_of_pods(spec).into_iter().map(within_spec).collect();
    }
    if kind.name != service::KIND.name {
        return Vec::new();
    }
    match author {
        Author::Server => service::read_of_server(spec),
        Author::Person | Author::Before => service::read_over(spec),
    }
    service::read_protocols(spec).into_iter().map(within_spec).collect()
}

/// `spec` as its kind reads it; `blanks` are what is written and empty in it, and was taken out.
fn spec(
    kind: &Kind,
    id: Option<&ObjectId>,
    mut document: Value,
    author: Author,
    problems: &mut Vec<Problem>,
    blanks: &mut Vec<Problem>,
) -> Option<Spec> {
    author.complete(&mut document);
    let mut written = document.clone();
    blanks.extend((kind.close)(&mut document).into_iter().map(within_spec));
    if !blanks.is_empty() {
        kind::take_nulls(&mut written); // they are told of already
    }
    let found = (kind.check)(&written);
    let namespace = id.map_or(model::home(Some(kind)), |id| &id.namespace);
    let result = if found.is_empty() { model::read(kind, namespace, &document) } else { Err(found) };
    match result {
        Ok(spec) => Some(spec),
        Err(found) => {
            problems.extend(found.into_iter().map(within_spec));
            None
        }
    }
}

fn within_spec(Problem { path, message }: Problem) -> Problem {
    Problem::new(if path.is_empty() { "spec".to_owned() } else { format!("spec.{path}") }, message)
}

/// The one of `known` that `given` is close to.
fn meant<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let given: String = given.to_lowercase().chars().take(100).collect();
    let best = known.iter().map(|name| (strsim::damerau_levenshtein(&given, &name.to_lowercase()), *name)).min();
    best.filter(|(distance, name)| *distance <= name.len().div_ceil(4)).map(|(_, name)| name)
}

fn kind_names() -> Vec<&'static str> {
    model::kinds().map(|kind| kind.name).collect()
}

/// The group of an `apiVersion`; empty for that of Kubernetes' core.
fn group(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or("", |(group, _)| group)
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
