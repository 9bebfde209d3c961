//! One document of Kubernetes shape: the envelope, and `spec` by its kind.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use selvedge_policies::kind::{self, Kind, Problem};
use serde::Deserialize;
use serde_json::Value;

use super::{Candidate, Complaints, Reading, Written};
use crate::{
    diagnostic::Severity,
    model::{
        self, Labels, Object, ObjectId, Spec, label_problem,
        mesh_policy::{self, ROOT_NAMESPACE},
        service,
    },
    source::files::{
        tree::{Content, Node},
        yaml::Fault,
    },
};

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
const NAMING: [&str; 4] = ["kind", "metadata", "name", "namespace"];

/// Reads one document into `reading`: its object, or why there is none. `repeated` are its fields that stand twice:
/// nobody knows which of the two was meant, so they make an object unsound.
pub(super) fn read(written: Written, repeated: &[Fault], reading: &mut Reading, complaints: &mut Complaints) {
    if let Some(items) = list_items(&written.node) {
        return list(&written, items, repeated, reading, complaints);
    }
    let mut problems = kind::check::<Envelope>(&written.node.to_value(), envelope_problems);
    let misspelt = misspelt_metadata(&written.node);
    problems.extend(misspelt.iter().map(misspelling));
    let kind = kind_of(&written.node, &mut problems);
    let name = name_of(&written.node).filter(|_| is_named(&written.node, &misspelt));
    let id = kind.zip(name.clone()).map(|(kind, (namespace, name))| ObjectId { kind: kind.name, namespace, name });
    let mut blanks = Vec::new();
    let spec = kind.and_then(|kind| spec(kind, id.as_ref(), &written.node, &mut problems, &mut blanks));
    let object = id.as_ref().map_or(String::new(), ObjectId::to_string);
    if let Some(id) = id.as_ref().filter(|id| id.kind == mesh_policy::KIND.name && !has_namespace(&written.node)) {
        let message = format!(
            "no namespace is written, so this covers namespace '{}' alone: write that, or {ROOT_NAMESPACE} with targetRef \
             {{kind: Mesh}} for the whole mesh",
            id.namespace
        );
        complaints.add(|| written.finding(Severity::Warning, "metadata.namespace", message).object(&object));
    }
    for problem in problems.iter().chain(&blanks) {
        complaints.add(|| written.finding(Severity::Error, &problem.path, &*problem.message).object(&object));
    }
    for fault in repeated {
        complaints.add(|| written.fault(fault).object(&object));
    }
    reading.incomplete |= repeated.iter().any(names_the_object);
    match (id, spec, name) {
        (Some(id), Some(spec), _) if problems.is_empty() && repeated.is_empty() => {
            let labels = labels(&written.node);
            let written = Written { sound: blanks.is_empty(), ..written };
            reading.objects.push(Candidate { object: Object { id, generation: 0, labels, spec }, written });
        }
        (Some(id), ..) => reading.refused.push(id),
        (None, ..) if is_foreign(&written.node) => {}
        (None, _, Some(name)) if written.node.text("kind").is_some() => reading.unclear.push(name),
        (None, ..) => reading.incomplete = true,
    }
}

/// Reads the items of a `kind: List`, each as a document.
fn list(written: &Written, items: &[Node], repeated: &[Fault], reading: &mut Reading, complaints: &mut Complaints) {
    let within = |fault: &&Fault, item: &Node| item.span.contains(&fault.span.start);
    for item in items {
        let own: Vec<Fault> = repeated.iter().filter(|fault| within(fault, item)).cloned().collect();
        read(Written { node: Arc::new(item.clone()), ..written.clone() }, &own, reading, complaints);
    }
    for fault in repeated.iter().filter(|fault| !items.iter().any(|item| within(fault, item))) {
        reading.incomplete = true;
        complaints.add(|| written.fault(fault));
    }
}

fn names_the_object(fault: &Fault) -> bool {
    fault.repeats.as_ref().is_some_and(|field| NAMING.contains(&field.key.as_str()))
}

/// True for a document that is certainly of some other system: neither its API nor its kind is like one of ours. The API
/// of Kubernetes' core says nothing: of its many kinds one is ours.
fn is_foreign(node: &Node) -> bool {
    let is_ours = |given: &str| {
        let group = group(given);
        !group.is_empty() && model::kinds().any(|kind| self::group(kind.api_version) == group)
    };
    match (node.text("apiVersion"), node.text("kind")) {
        (Some(version), Some(kind)) => !is_ours(version) && meant(kind, &kind_names()).is_none(),
        _ => false,
    }
}

/// The items of a `kind: List`.
fn list_items(node: &Node) -> Option<&[Node]> {
    match (&node.get("items")?.value.content, node.text("kind")) {
        (Content::List(items), Some("List")) => Some(items),
        _ => None,
    }
}

fn kind_of(node: &Node, problems: &mut Vec<Problem>) -> Option<&'static Kind> {
    let given = node.text("kind")?;
    let Some(kind) = model::kinds().find(|kind| kind.name == given) else {
        let known = kind_names();
        let hint = match meant(given, &known) {
            Some(name) => format!("did you mean '{name}'?"),
            None => format!("expected one of {}", known.join(", ")),
        };
        problems.push(Problem::new("kind", format!("unknown kind '{}': {hint}", short(given))));
        return None;
    };
    let expected = kind.api_version;
    if let Some(version) = node.text("apiVersion").filter(|version| *version != expected) {
        let why = format!("apiVersion '{}' is not that of {}: expected {expected}", short(version), kind.name);
        problems.push(Problem::new("apiVersion", why));
    }
    Some(kind)
}

fn envelope_problems(envelope: &Envelope) -> Vec<Problem> {
    let Metadata { name, namespace, .. } = &envelope.metadata;
    let name = label_problem(name).map(|why| Problem::new("metadata.name", why));
    let namespace = namespace.as_deref().and_then(label_problem);
    name.into_iter().chain(namespace.map(|why| Problem::new("metadata.namespace", why))).collect()
}

/// The fields of `metadata` that are misspelt, each with the one that was probably meant.
fn misspelt_metadata(node: &Node) -> Vec<(&str, &'static str)> {
    let Some(Content::Map(entries)) = node.get("metadata").map(|entry| &entry.value.content) else { return Vec::new() };
    let unknown = entries.iter().map(|entry| &*entry.key).filter(|key| !METADATA.contains(key));
    unknown.filter_map(|key| Some((key, meant(key, &METADATA)?))).collect()
}

fn misspelling((key, meant): &(&str, &str)) -> Problem {
    Problem::new(format!("metadata.{key}"), format!("unknown field '{}': did you mean '{meant}'?", short(key)))
}

/// False when a name or namespace is misspelt or not in `metadata`: what takes its place is another object's.
fn is_named(node: &Node, misspelt: &[(&str, &str)]) -> bool {
    let is_elsewhere = node.get("name").is_some() || node.get("namespace").is_some();
    !is_elsewhere && !misspelt.iter().any(|(_, meant)| NAMING.contains(meant))
}

/// Namespace and name, when both are sound.
fn name_of(node: &Node) -> Option<(Arc<str>, Arc<str>)> {
    let metadata = &node.get("metadata")?.value;
    let name = metadata.text("name").filter(|name| label_problem(name).is_none())?;
    let namespace = match metadata.get("namespace") {
        None => "default",
        Some(entry) if entry.value.content == Content::Null => "default",
        Some(_) => metadata.text("namespace").filter(|namespace| label_problem(namespace).is_none())?,
    };
    Some((namespace.into(), name.into()))
}

/// Whether the document says in which namespace it is.
fn has_namespace(node: &Node) -> bool {
    node.get("metadata").is_some_and(|metadata| metadata.value.text("namespace").is_some())
}

fn labels(node: &Node) -> Labels {
    let Some(entry) = node.get("metadata").and_then(|metadata| metadata.value.get("labels")) else {
        return Labels::new();
    };
    serde_json::from_value(entry.value.to_value()).unwrap_or_default()
}

/// `spec` as its kind reads it; `blanks` are what is written and empty in it, and was taken out.
fn spec(
    kind: &Kind,
    id: Option<&ObjectId>,
    node: &Node,
    problems: &mut Vec<Problem>,
    blanks: &mut Vec<Problem>,
) -> Option<Spec> {
    let mut document = node.get("spec")?.value.to_value();
    if kind.name == service::KIND.name {
        service::read_over(&mut document);
    }
    let found = (kind.check)(&document);
    blanks.extend((kind.close)(&mut document).into_iter().map(within_spec));
    let namespace = id.map_or("default", |id| &id.namespace);
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
    best.filter(|(distance, name)| *distance <= 1 + name.len() / 4).map(|(_, name)| name)
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
