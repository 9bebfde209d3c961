//! What an API server asks of the schemas of a CustomResourceDefinition, and what it does by them: the rules of structural
//! schemas and of pruning in the documentation of Kubernetes, as far as schemas made of Rust types come near them.

use selvedge_policies::kind::structure;
use serde_json::{Map, Value, json};

/// What an API server knows of a schema.
const KNOWN: [&str; 22] = [
    "type",
    "description",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "items",
    "properties",
    "additionalProperties",
    "required",
    "default",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
];

const TYPES: [&str; 6] = ["object", "array", "string", "integer", "number", "boolean"];

/// Why an API server would refuse the schema, with the place.
pub(crate) fn problems(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    visit(schema, "", &mut found);
    found
}

fn visit(schema: &Value, path: &str, found: &mut Vec<String>) {
    let mut complain = |what: String| found.push(format!("{path}: {what}"));
    let Some(fields) = schema.as_object() else { return complain("it is no schema".to_owned()) };
    for name in fields.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
        complain(format!("{name} is not known"));
    }
    let is_open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true))
        || fields.get("x-kubernetes-int-or-string") == Some(&json!(true));
    let kind = fields.get("type").and_then(Value::as_str).filter(|kind| TYPES.contains(kind));
    if kind.is_none() && (!is_open || fields.contains_key("type")) {
        complain("it has no type".to_owned());
    }
    if fields.contains_key("properties") && fields.contains_key("additionalProperties") {
        complain("properties and additionalProperties are both there".to_owned());
    }
    if kind == Some("array") && !fields.contains_key("items") {
        complain("items are missing".to_owned());
    }
    if let Some(default) = fields.get("default") {
        let is_sound = structure::problems(&as_json_schema(schema), default).is_empty();
        if !is_sound || &pruned(schema, default) != default {
            complain(format!("the default {default} is not sound"));
        }
    }
    keys(fields, &mut complain);
    let parts = fields.get("properties").and_then(Value::as_object).into_iter().flatten();
    for (name, part) in parts {
        visit(part, &format!("{path}.{name}"), found);
    }
    for part in ["items", "additionalProperties"] {
        if let Some(part) = fields.get(part) {
            visit(part, &format!("{path}[]"), found);
        }
    }
}

/// Each key of a list that is a map is required of its items, or has a default.
fn keys(fields: &Map<String, Value>, complain: &mut impl FnMut(String)) {
    let keys = fields.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
    let items = &fields.get("items").cloned().unwrap_or_default();
    for key in keys.filter_map(Value::as_str) {
        let is_required = items["required"].as_array().is_some_and(|names| names.contains(&json!(key)));
        if !is_required && items["properties"][key].get("default").is_none() {
            complain(format!("the key {key} of its items may be missing"));
        }
    }
}

/// What an API server keeps of a value.
pub(crate) fn pruned(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| pruned(&schema["items"], item)).collect(),
        Value::Object(fields) => {
            let is_open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
            // Nothing is said of metadata, and it is kept.
            let is_kept = is_open || *schema == json!({ "type": "object" });
            let kept = fields.iter().filter_map(|(name, value)| {
                let of_field = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
                match of_field {
                    Some(schema) => Some((name.clone(), pruned(schema, value))),
                    None => is_kept.then(|| (name.clone(), value.clone())),
                }
            });
            Value::Object(kept.collect())
        }
        other => other.clone(),
    }
}

/// The schema as JSON Schema has it: there a value that may be `null` has two types.
pub(crate) fn as_json_schema(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let is_nullable = fields.get("nullable") == Some(&json!(true));
            let converted = fields.iter().filter(|(name, _)| *name != "nullable" && !name.starts_with("x-"));
            let mut converted: Map<String, Value> =
                converted.map(|(name, value)| (name.clone(), as_json_schema(value))).collect();
            if let (true, Some(Value::String(kind))) = (is_nullable, fields.get("type")) {
                converted.insert("type".to_owned(), json!([kind, "null"]));
            }
            Value::Object(converted)
        }
        Value::Array(items) => items.iter().map(as_json_schema).collect(),
        other => other.clone(),
    }
}
