//! What a policy kind says of itself, and how a bad document is reported.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// One complaint about a document, addressed by field path so that the control plane can point at the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path inside `spec`, for instance `rules[0].to[1].paths[0]`; empty for the whole document.
    pub path: String,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl Problem {
    /// A complaint at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// A kind of policy document the mesh understands.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The name users write in `kind:`.
    pub name: &'static str,
    /// One sentence for help texts and docs.
    pub summary: &'static str,
    /// JSON schema of `spec`.
    pub schema: fn() -> schemars::Schema,
    /// Every semantic problem of a `spec` whose structure is sound; a structural error is one problem too.
    pub check: fn(&Value) -> Vec<Problem>,
}

/// A document together with the object it came from.
#[derive(Clone, Debug)]
pub struct Attached<T> {
    /// `namespace/name` of the user's object.
    pub name: std::sync::Arc<str>,
    /// The parsed `spec`.
    pub spec: T,
}

/// Reads a `spec` as its type.
pub fn parse<T: DeserializeOwned>(document: &Value) -> Result<T, Vec<Problem>> {
    T::deserialize(document).map_err(|e| vec![Problem::new("", e.to_string())])
}

/// Writes a `spec` as the document that travels on the wire.
pub fn document<T: Serialize>(spec: &T) -> Value {
    serde_json::to_value(spec).unwrap_or(Value::Null)
}
