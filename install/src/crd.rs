//! CustomResourceDefinitions of the mesh's own kinds: `kubectl apply` takes these kinds, and says at once what is wrong.
//!
//! Everything in them follows from what a kind says of itself. A column of `kubectl get` is what an object is about, and
//! each field of one value or one word.

use selvedge_control_plane::{model, source::kubernetes};
use selvedge_inject::setting;
use selvedge_policies::{
    kind::{Kind, SELVEDGE},
    policy::Role,
    registry,
};
use serde_json::{Map, Value, json};

use crate::schema;

/// What `kubectl get selvedge` lists.
const CATEGORY: &str = "selvedge";

/// The definitions, in the order of the list of kinds.
pub fn all() -> Vec<Value> {
    model::kinds().filter(|kind| kind.api_version == SELVEDGE).map(of).collect()
}

/// The definition of the kind that the settings of sidecars are of, which the control plane writes.
pub fn injection_config() -> Value {
    let summary = "What all sidecars have; the control plane writes it.";
    definition(setting::KIND, setting::GROUP, setting::VERSION, summary, setting::schema())
}

/// The definition of one kind that users write.
fn of(kind: &Kind) -> Value {
    let spec = schema::structural((kind.schema)().as_value(), has_defaults(kind));
    let columns = columns(&spec);
    let version = &kind.api_version[kind.group().len() + 1..];
    let mut definition = definition(kind.name, kind.group(), version, kind.summary, spec);
    definition["spec"]["versions"][0]["additionalPrinterColumns"] = columns.into();
    definition["spec"]["names"]["categories"] = json!([CATEGORY]);
    if let Some(short) = short_name(kind.name) {
        definition["spec"]["names"]["shortNames"] = json!([short]);
    }
    definition
}

fn definition(kind: &str, group: &str, version: &str, summary: &str, spec: Value) -> Value {
    let plural = kubernetes::plural(kind);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}"), "labels": { "app.kubernetes.io/part-of": "selvedge" } },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_ascii_lowercase(),
            },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": object(summary, spec) },
            }],
        },
    })
}

/// The schema of a whole object.
fn object(summary: &str, spec: Value) -> Value {
    json!({
        "type": "object",
        "description": summary,
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": spec,
            "status": {
                "type": "object",
                "description": "What the mesh makes of it.",
                "x-kubernetes-preserve-unknown-fields": true,
            },
        },
    })
}

/// Whether the API server may write the values of fields that are left out. Where several objects set fields of one thing,
/// what is left out is what another one says, so nobody may write it.
fn has_defaults(kind: &Kind) -> bool {
    !registry::find(kind.name).is_some_and(|policy| matches!(policy.role, Role::Tries))
}

/// The first letters of its words, as in `mp` for `MeshPolicy`; a name of one word is short enough.
fn short_name(kind: &str) -> Option<String> {
    let letters: String = kind.chars().filter(char::is_ascii_uppercase).collect();
    (letters.len() > 1).then(|| letters.to_ascii_lowercase())
}

fn columns(spec: &Value) -> Vec<Value> {
    let fields = fields(spec);
    let is_about = fields.contains_key(TARGET).then(|| column("Target", "string", ".spec.targetRef.name"));
    let own = fields.iter().filter(|(name, _)| *name != TARGET).flat_map(|(name, field)| {
        let words = self::fields(field).into_iter().filter(|(_, inner)| inner.get("enum").is_some());
        let inner = words.map(|(inner, schema)| (format!("{name}.{inner}"), inner, schema));
        std::iter::once((name.clone(), name.clone(), field.clone())).chain(inner).collect::<Vec<_>>()
    });
    let of_one_value = own.filter_map(|(path, name, field)| {
        let kind = field.get("type")?.as_str().filter(|kind| matches!(*kind, "string" | "integer" | "boolean"))?;
        Some(column(&title(&name), kind, &format!(".spec.{path}")))
    });
    let age = column("Age", "date", ".metadata.creationTimestamp");
    is_about.into_iter().chain(of_one_value).chain([age]).collect()
}

/// The field that says what an object is about.
const TARGET: &str = "targetRef";

fn fields(schema: &Value) -> Map<String, Value> {
    schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn column(name: &str, kind: &str, path: &str) -> Value {
    json!({ "name": name, "type": kind, "jsonPath": path })
}

/// The words of a field's name, as in `Service Account` for `serviceAccount`.
fn title(field: &str) -> String {
    let mut title = String::new();
    for (n, letter) in field.chars().enumerate() {
        if letter.is_ascii_uppercase() && n > 0 {
            title.push(' ');
        }
        title.push(if n == 0 { letter.to_ascii_uppercase() } else { letter });
    }
    title
}
