//! Objects as the text that `kubectl apply -f -` reads.

use serde_json::Value;

/// The objects as YAML, one document after the other.
///
/// # Errors
/// A value that YAML cannot say, which no object has.
pub fn yaml(objects: &[Value]) -> Result<String, serde_saphyr::SerializeError> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(object)?);
    }
    Ok(text)
}
