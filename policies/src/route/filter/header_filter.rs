//! The changes of a header section that both modifiers are written with.

use http::{HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Written;
use crate::{
    changes::HeaderChanges,
    kind::{self, Problem},
    matching::header::field_name,
};

/// Changes of a header section (Gateway API `HTTPHeaderFilter`), done in the order set, add, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct HeaderFilter {
    /// Each replaces every line of its field by one with this value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    set: Vec<HeaderValueSpec>,
    /// Each adds one more line of its field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    add: Vec<HeaderValueSpec>,
    /// Names of fields of which every line is removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remove: Vec<String>,
}

/// A header line to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderValueSpec {
    /// Field name, in any case.
    name: String,
    /// The value of the line (RFC 9110 section 5.5).
    value: String,
}

/// The changes of several filters as one; what cannot be done is left out and reported.
pub(super) fn changes(filters: &[Written<'_>], problems: &mut Vec<Problem>) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    for (path, value) in filters {
        match kind::parse(value) {
            Ok(filter) => extend(&mut changes, &filter, path, problems),
            Err(found) => problems.extend(found.into_iter().map(|problem| Problem::new(&**path, problem.message))),
        }
    }
    changes
}

fn extend(changes: &mut HeaderChanges, filter: &HeaderFilter, path: &str, problems: &mut Vec<Problem>) {
    for (n, line) in filter.set.iter().enumerate() {
        if let Some((name, value)) = read(line, &format!("{path}.set[{n}]"), problems) {
            changes.set(name, value);
        }
    }
    for (n, line) in filter.add.iter().enumerate() {
        if let Some((name, value)) = read(line, &format!("{path}.add[{n}]"), problems) {
            changes.add(name, value);
        }
    }
    for (n, name) in filter.remove.iter().enumerate() {
        match changeable(name) {
            Ok(name) => changes.remove(name),
            Err(why) => problems.push(Problem::new(format!("{path}.remove[{n}]"), why)),
        }
    }
}

fn read(line: &HeaderValueSpec, at: &str, problems: &mut Vec<Problem>) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = (changeable(&line.name), field_value(&line.value));
    problems.extend(name.as_ref().err().map(|why| Problem::new(format!("{at}.name"), why)));
    problems.extend(value.as_ref().err().map(|why| Problem::new(format!("{at}.value"), why)));
    name.ok().zip(value.ok())
}

/// Fields that frame or address the message, or belong to one hop: the sidecar alone writes them.
const OWN: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

fn changeable(name: &str) -> Result<HeaderName, String> {
    let name = field_name(name)?;
    if OWN.contains(&name) || name.as_str().starts_with("selvedge-") {
        return Err(format!("{name} is written by the sidecar alone and cannot be changed by a route"));
    }
    Ok(name)
}

fn field_value(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).map_err(|_| format!("{value:?} has characters that no header value may have"))
}
