//! Numbers of ports in documents, wherever they stand.

use serde_json::Value;

/// The fields of conditions that list ports.
const FIELDS: [&str; 2] = ["ports", "notPorts"];

/// Whether the text of a document may have such a field.
///
/// ```
/// use selvedge_policies::matching::ports;
///
/// assert!(ports::are_named(r#"{"rules":[{"to":[{"ports":[80]}]}]}"#) && !ports::are_named(r#"{"rules":[]}"#));
/// ```
pub fn are_named(document: &str) -> bool {
    FIELDS.iter().any(|field| document.contains(field))
}

/// Puts what `to` says in place of each port that a condition of `document` names; `to` is told where it stands, too.
///
/// ```
/// use selvedge_policies::matching::ports;
/// use serde_json::json;
///
/// let mut document = json!({ "rules": [{ "to": [{ "ports": [80, 9090] }] }] });
/// ports::each(&mut document, &mut |path, port| if path == "rules[0].to[0].ports[0]" { 8080 } else { port });
/// assert_eq!(document, json!({ "rules": [{ "to": [{ "ports": [8080, 9090] }] }] }));
/// ```
pub fn each(document: &mut Value, to: &mut dyn FnMut(&str, u16) -> u16) {
    visit(document, "", to);
}

fn visit(value: &mut Value, path: &str, to: &mut dyn FnMut(&str, u16) -> u16) {
    match value {
        Value::Array(items) => {
            items.iter_mut().enumerate().for_each(|(n, item)| visit(item, &format!("{path}[{n}]"), to));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match value {
                    Value::Array(numbers) if FIELDS.contains(&name.as_str()) => put(numbers, &at, to),
                    value => visit(value, &at, to),
                }
            }
        }
        _ => {}
    }
}

fn put(numbers: &mut [Value], path: &str, to: &mut dyn FnMut(&str, u16) -> u16) {
    for (n, number) in numbers.iter_mut().enumerate() {
        if let Some(port) = number.as_u64().and_then(|port| u16::try_from(port).ok()) {
            *number = to(&format!("{path}[{n}]"), port).into();
        }
    }
}
