//! Compares a document with a JSON schema and finds every difference at once, each with its field path.
//!
//! Only what schemas derived from Rust types contain is understood; anything else is accepted here and left to the
//! parser.

use serde_json::{Map, Value};

use super::{Problem, suggest};
use crate::{cidr::Cidr, duration::Span};

/// Every place where `document` differs from `schema`.
///
/// ```
/// use selvedge_policies::kind::structure::problems;
/// use serde_json::json;
///
/// let schema = json!({ "type": "object", "properties": { "port": { "type": "integer" } }, "additionalProperties": false });
/// assert!(problems(&schema, &json!({ "port": 80 })).is_empty());
/// assert_eq!(problems(&schema, &json!({ "prot": 80 }))[0].path, "prot");
/// ```
pub fn problems(schema: &Value, document: &Value) -> Vec<Problem> {
    let mut walk = Walk { root: schema, problems: Vec::new() };
    walk.visit(schema, document, String::new());
    walk.problems
}

struct Walk<'a> {
    root: &'a Value,
    problems: Vec<Problem>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, schema: &'a Value, value: &Value, path: String) {
        let Some(schema) = self.resolve(schema).as_object() else { return };
        if let Some(Value::Array(alternatives)) = schema.get("anyOf").or_else(|| schema.get("oneOf")) {
            return self.visit_alternatives(alternatives, value, path);
        }
        if let Some(why) = type_problem(schema, value).or_else(|| value_problem(schema, value)) {
            return self.problems.push(Problem::new(path, why));
        }
        match value {
            Value::Object(fields) => self.visit_object(schema, fields, &path),
            Value::Array(items) => {
                let schema = schema.get("items").unwrap_or(&Value::Null);
                for (n, item) in items.iter().enumerate() {
                    self.visit(schema, item, format!("{path}[{n}]"));
                }
            }
            _ => {}
        }
    }

    fn visit_object(&mut self, schema: &'a Map<String, Value>, fields: &Map<String, Value>, path: &str) {
        let no_fields = Map::new();
        let known = schema.get("properties").and_then(Value::as_object);
        let names = || known.unwrap_or(&no_fields).keys().map(String::as_str);
        for (name, value) in fields {
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match (known.and_then(|known| known.get(name)), schema.get("additionalProperties")) {
                (Some(field), _) => self.visit(field, value, at),
                (None, Some(Value::Bool(false))) => {
                    let why = format!("unknown field '{name}'{}", suggest(name, names()));
                    self.problems.push(Problem::new(at, why));
                }
                (None, other) => self.visit(other.unwrap_or(&Value::Null), value, at),
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str).filter(|name| !fields.contains_key(*name)) {
            self.problems.push(Problem::new(path, format!("missing field '{name}'")));
        }
    }

    /// Reports the problems of the alternative that comes nearest, or which words are allowed.
    fn visit_alternatives(&mut self, alternatives: &'a [Value], value: &Value, path: String) {
        let resolved = alternatives.iter().map(|alternative| self.resolve(alternative));
        let (words, shapes): (Vec<_>, Vec<_>) = resolved.partition(|alternative| is_words(alternative));
        let words: Vec<&str> = words.into_iter().flat_map(words_of).collect();
        let tags = shapes.iter().filter_map(|shape| shape.get("required")?.get(0)?.as_str());
        if let (Value::String(given), false) = (value, words.is_empty()) {
            if !words.contains(&&**given) {
                let why = format!("'{given}' is not known here{}", suggest(given, words.iter().copied().chain(tags)));
                self.problems.push(Problem::new(path, why));
            }
            return;
        }
        let fits =
            shapes.iter().filter(|shape| shape.as_object().is_none_or(|shape| type_problem(shape, value).is_none()));
        let nearest = fits.map(|shape| {
            let mut walk = Walk { root: self.root, problems: Vec::new() };
            walk.visit(shape, value, path.clone());
            walk.problems
        });
        match nearest.min_by_key(Vec::len) {
            Some(found) => self.problems.extend(found),
            None => self.problems.push(Problem::new(path, expected(alternatives_types(&words, &shapes), value))),
        }
    }

    /// Follows a reference to a definition of the schema.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let pointer = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
        pointer.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(schema)
    }
}

fn is_words(schema: &Value) -> bool {
    schema.get("const").is_some() || schema.get("enum").is_some()
}

/// The strings a schema allows.
fn words_of(schema: &Value) -> Vec<&str> {
    let several = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    schema.get("const").into_iter().chain(several).filter_map(Value::as_str).collect()
}

fn alternatives_types(words: &[&str], shapes: &[&Value]) -> Vec<String> {
    let shapes = shapes.iter().filter_map(|shape| shape.get("type")?.as_str());
    let word = if words.is_empty() { None } else { Some("string") };
    word.into_iter().chain(shapes.filter(|name| *name != "null")).map(str::to_owned).collect()
}

/// Why the value has the wrong type, if so.
fn type_problem(schema: &Map<String, Value>, value: &Value) -> Option<String> {
    let types: Vec<String> = match schema.get("type")? {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => return None,
    };
    let found = |name: &String| match &**name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    if types.iter().any(found) { None } else { Some(expected(types, value)) }
}

fn expected(mut types: Vec<String>, value: &Value) -> String {
    types.retain(|name| name != "null");
    let wanted = types.iter().map(|name| with_article(name)).collect::<Vec<_>>().join(" or ");
    let found = match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => format!("{value}"),
        Value::String(text) => format!("'{}'", text.chars().take(64).collect::<String>()),
        Value::Array(_) => with_article("array").to_owned(),
        Value::Object(_) => with_article("object").to_owned(),
    };
    let quotes =
        if wanted == "a string" && (value.is_number() || value.is_boolean()) { "; put it in quotes" } else { "" };
    format!("expected {wanted}, found {found}{quotes}")
}

/// A type of JSON in the words of people who write YAML.
fn with_article(name: &str) -> &str {
    match name {
        "boolean" => "true or false",
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number",
        "array" => "a list",
        "object" => "a map of fields",
        other => other,
    }
}

/// Why a value of the right type is not allowed, if so.
fn value_problem(schema: &Map<String, Value>, value: &Value) -> Option<String> {
    if let Value::String(text) = value {
        return word_problem(schema, text).or_else(|| format_problem(schema, text));
    }
    let number = value.as_f64()?;
    let limit = |name| schema.get(name).and_then(Value::as_f64);
    let (least, most) = (limit("minimum"), limit("maximum"));
    if least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most) {
        return None;
    }
    let wanted = match (least, most) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, most) => format!("at most {}", most.unwrap_or(f64::MAX)),
    };
    Some(format!("{value} is out of range: expected {wanted}"))
}

fn word_problem(schema: &Map<String, Value>, text: &str) -> Option<String> {
    let several = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let mut words = schema.get("const").into_iter().chain(several).filter_map(Value::as_str).peekable();
    words.peek()?;
    let words: Vec<&str> = words.collect();
    if words.contains(&text) { None } else { Some(format!("'{text}' is not known here{}", suggest(text, words))) }
}

/// The formats of our own types.
fn format_problem(schema: &Map<String, Value>, text: &str) -> Option<String> {
    match schema.get("format")?.as_str()? {
        Span::FORMAT => text.parse::<Span>().err().map(|error| error.to_string()),
        Cidr::FORMAT => text.parse::<Cidr>().err().map(|error| error.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::super::{check, document};
    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Sample {
        name: String,
        #[serde(default)]
        port: Option<u16>,
        #[serde(default)]
        wait: Option<Span>,
        #[serde(default)]
        parts: Vec<Part>,
        #[serde(default)]
        mode: Option<Mode>,
        #[serde(default)]
        action: Action,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Part {
        networks: Vec<Cidr>,
    }

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    enum Action {
        #[default]
        Allow,
        Deny,
    }

    /// How.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    enum Mode {
        /// Without.
        Fast,
        /// Without either.
        Careful,
        /// By name.
        Named(String),
    }

    fn found(value: &Value) -> Vec<(String, String)> {
        check::<Sample>(value, |_| Vec::new()).into_iter().map(|problem| (problem.path, problem.message)).collect()
    }

    #[test]
    fn sound_documents_have_no_problems() {
        let parts = vec![Part { networks: vec!["10.0.0.0/8".parse().unwrap()] }];
        for mode in [Mode::Fast, Mode::Careful, Mode::Named("x".into())] {
            let sample = Sample {
                name: "a".into(),
                port: Some(80),
                wait: Some(Span::from_secs(1)),
                parts: Vec::new(),
                mode: Some(mode),
                action: Action::Deny,
            };
            assert_eq!(found(&document(&sample)), []);
        }
        let sample = Sample { name: "a".into(), port: None, wait: None, parts, mode: None, action: Action::Allow };
        assert_eq!(found(&document(&sample)), []);
    }

    #[test]
    fn every_problem_is_found_with_its_path() {
        let value = json!({
            "port": 70_000,
            "wait": "5",
            "mode": "fats",
            "parts": [{ "networks": ["10.0.0.0/8", "10.0.0.0/99"] }, { "netwroks": [] }, 7],
        });
        let paths: Vec<String> = found(&value).into_iter().map(|(path, _)| path).collect();
        for path in ["", "port", "wait", "mode", "parts[0].networks[1]", "parts[1].netwroks", "parts[1]", "parts[2]"] {
            assert!(paths.iter().any(|found| found == path), "{path:?} is missing in {paths:?}");
        }
        assert_eq!(paths.len(), 8);
    }

    #[test]
    fn messages_say_what_was_expected_and_meant() {
        for (value, path, message) in [
            (json!({ "nmae": "a", "name": "a" }), "nmae", "unknown field 'nmae': did you mean 'name'?"),
            (json!({}), "", "missing field 'name'"),
            (json!({ "name": 1 }), "name", "expected a string, found 1; put it in quotes"),
            (json!({ "name": "a", "port": "80" }), "port", "expected a whole number, found '80'"),
            (json!({ "name": "a", "port": -1 }), "port", "-1 is out of range: expected 0 to 65535"),
            (json!({ "name": "a", "parts": {} }), "parts", "expected a list, found a map of fields"),
            (
                json!({ "name": "a", "mode": "carefull" }),
                "mode",
                "'carefull' is not known here: did you mean 'careful'?",
            ),
            (json!({ "name": "a", "action": "dney" }), "action", "'dney' is not known here: did you mean 'deny'?"),
            (json!({ "name": "a", "mode": 3 }), "mode", "expected a string or a map of fields, found 3"),
            (
                json!({ "name": "a", "mode": { "nmaed": "x" } }),
                "mode.nmaed",
                "unknown field 'nmaed': did you mean 'named'?",
            ),
            (json!("text"), "", "expected a map of fields, found 'text'"),
        ] {
            let problems = found(&value);
            let expected = (path.to_owned(), message.to_owned());
            assert!(problems.contains(&expected), "{value} gives {problems:?}");
        }
    }
}
