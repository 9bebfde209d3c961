//! Header changes of a route, compiled.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::HeaderFilter;
use crate::{kind::Problem, matching::header::field_name};

/// Changes of a header section, done in the order set, add, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl HeaderChanges {
    /// True when nothing changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }

    /// Takes in the changes of a filter found at `path`; what cannot be done is left out and reported.
    pub(super) fn extend(&mut self, filter: &HeaderFilter, path: &str, problems: &mut Vec<Problem>) {
        for (list, lines, field) in [(&mut self.set, &filter.set, "set"), (&mut self.add, &filter.add, "add")] {
            for (n, line) in lines.iter().enumerate() {
                let (name, value) = (changeable(&line.name), field_value(&line.value));
                let at = format!("{path}.{field}[{n}]");
                problems.extend(name.as_ref().err().map(|why| Problem::new(format!("{at}.name"), why)));
                problems.extend(value.as_ref().err().map(|why| Problem::new(format!("{at}.value"), why)));
                list.extend(name.ok().zip(value.ok()));
            }
        }
        for (n, name) in filter.remove.iter().enumerate() {
            match changeable(name) {
                Ok(name) => self.remove.push(name),
                Err(why) => problems.push(Problem::new(format!("{path}.remove[{n}]"), why)),
            }
        }
    }
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
