//! Texts of CEL, the language of the expressions of an API server.

/// A text as a literal of CEL.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
}
