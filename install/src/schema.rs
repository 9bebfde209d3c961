//! Schemas as a CustomResourceDefinition takes them (structural schemas), made of those of Rust types.
//!
//! Guarantees:
//! - There is no reference and no list of types; every value has a type, or takes several and says so. Fields that are not
//!   named are left to the API server, which refuses or prunes them.
//! - What the type takes the schema takes, and nothing of it is pruned.
//! - A field that may be left out may be `null`. An API server takes any other `null` for a field that is left out, and a
//!   condition whose value got lost would be gone without a word; so it stays, and the control plane says what is missing.

use serde_json::{Map, Value, json};

/// A schema, or a part of one.
type Schema = Map<String, Value>;

/// What of a schema means the same to an API server. Of formats it knows others; the types have patterns beside them.
const SAME: [&str; 13] = [
    "type",
    "description",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "required",
    "default",
    "uniqueItems",
];

/// What begins the names of what only an API server knows.
const OWN: &str = "x-kubernetes-";

/// Says that a value has a type that cannot be told, and is kept as it is.
const ANYTHING: &str = "x-kubernetes-preserve-unknown-fields";

/// The structural schema of what `schema` describes. Values that the type gives to fields left out are written by the API
/// server where `defaults` says so.
pub(crate) fn structural(schema: &Value, defaults: bool) -> Value {
    let reader = Reader { root: schema, defaults };
    Value::Object(reader.read(schema))
}

struct Reader<'a> {
    root: &'a Value,
    defaults: bool,
}

impl Reader<'_> {
    fn read(&self, schema: &Value) -> Schema {
        let schema = self.resolved(schema);
        let alternatives = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
        match alternatives {
            Some(alternatives) => {
                let mut read = self.one_of(alternatives);
                // What is said of the field goes before what is said of its type.
                read.extend(self.same(&schema));
                read
            }
            None => self.plain(&schema),
        }
    }

    /// The schema that a reference names, with what stands beside the reference.
    fn resolved(&self, schema: &Value) -> Schema {
        let Some(fields) = schema.as_object() else { return Schema::new() };
        let pointer = fields.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#'));
        let Some(named) = pointer.and_then(|pointer| self.root.pointer(pointer)) else { return fields.clone() };
        let mut resolved = self.resolved(named);
        resolved.extend(
            fields.iter().filter(|(name, _)| *name != "$ref").map(|(name, value)| (name.clone(), value.clone())),
        );
        resolved
    }

    fn plain(&self, schema: &Schema) -> Schema {
        let mut read = self.same(schema);
        if let Some(word) = schema.get("const") {
            read.insert("enum".to_owned(), json!([word]));
        }
        match schema.get("type") {
            Some(Value::Array(types)) => match without_null(types).as_slice() {
                [one] => drop(read.insert("type".to_owned(), (*one).clone())),
                _ => drop(read.insert(ANYTHING.to_owned(), json!(true))),
            },
            Some(_) => {}
            None => drop(read.insert(ANYTHING.to_owned(), json!(true))),
        }
        if let Some(items) = schema.get("items") {
            read.insert("items".to_owned(), self.read(items).into());
        }
        if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
            read.insert("properties".to_owned(), self.fields(schema, fields).into());
        } else if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            read.insert("additionalProperties".to_owned(), nullable(self.read(values)).into());
        }
        read
    }

    /// What means the same to an API server.
    fn same(&self, schema: &Schema) -> Schema {
        let is_same = |name: &str| SAME.contains(&name) || name.starts_with(OWN);
        let says = |name: &str, value: &Value| match name {
            "type" => value.is_string(),
            "default" => self.defaults && !is_nothing(value),
            _ => true,
        };
        let same = schema.iter().filter(|(name, value)| is_same(name) && says(name, value));
        same.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn fields(&self, schema: &Schema, fields: &Schema) -> Schema {
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |name: &String| required.is_some_and(|names| names.iter().any(|known| known == name));
        let read = fields.iter().map(|(name, field)| {
            let field = self.read(field);
            (name.clone(), if is_required(name) { field } else { nullable(field) }.into())
        });
        read.collect()
    }

    /// The schema of a value that is as one of several says.
    fn one_of(&self, alternatives: &[Value]) -> Schema {
        let resolved = alternatives.iter().map(|alternative| self.resolved(alternative));
        let some: Vec<Schema> = resolved.filter(|schema| schema.get("type") != Some(&json!("null"))).collect();
        if let [one] = some.as_slice() {
            return self.read(&one.clone().into());
        }
        let words: Vec<(Value, String)> = some.iter().flat_map(words).collect();
        if some.iter().all(|schema| words_in(schema) > 0) {
            return one_word(words);
        }
        // A word, or a map of fields: no type of an API server is both.
        [(ANYTHING.to_owned(), json!(true))].into_iter().collect()
    }
}

/// One of these words, each with what it means.
fn one_word(words: Vec<(Value, String)>) -> Schema {
    let told = words.iter().filter(|(_, meaning)| !meaning.is_empty());
    let told: Vec<String> =
        told.map(|(word, meaning)| format!("{}: {meaning}", word.as_str().unwrap_or_default())).collect();
    let words: Vec<Value> = words.into_iter().map(|(word, _)| word).collect();
    let mut schema = Schema::new();
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), words.into());
    if !told.is_empty() {
        schema.insert("description".to_owned(), told.join("\n").into());
    }
    schema
}

/// The words that a schema takes, each with what it means where that is said of it alone.
fn words(schema: &Schema) -> Vec<(Value, String)> {
    let meaning = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let several = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let one = schema.get("const").map(|word| (word.clone(), meaning.to_owned()));
    one.into_iter().chain(several.map(|word| (word.clone(), String::new()))).collect()
}

fn words_in(schema: &Schema) -> usize {
    words(schema).len()
}

fn without_null(types: &[Value]) -> Vec<&Value> {
    types.iter().filter(|name| *name != "null").collect()
}

/// The same, where there may be no value.
fn nullable(mut schema: Schema) -> Schema {
    schema.insert("nullable".to_owned(), json!(true));
    schema
}

/// True for a value that says no more than a field that is left out does.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
