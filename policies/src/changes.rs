//! Changes of a header section, compiled.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Changes of a header section, done in the order set, add, remove.
///
/// ```
/// use http::{HeaderMap, HeaderName, HeaderValue};
/// use selvedge_policies::changes::HeaderChanges;
///
/// let (seen, gone) = (HeaderName::from_static("x-seen"), HeaderName::from_static("x-gone"));
/// let mut changes = HeaderChanges::default();
/// changes.set(seen.clone(), HeaderValue::from_static("1"));
/// changes.add(seen, HeaderValue::from_static("2"));
/// changes.remove(gone.clone());
/// let mut headers = HeaderMap::from_iter([(gone, HeaderValue::from_static("x"))]);
/// changes.apply(&mut headers);
/// assert!(headers.get_all("x-seen").iter().eq(["1", "2"]) && headers.len() == 2);
/// assert!(!changes.is_empty());
/// ```
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

    /// Replaces every line of the field.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.set.push((name, value));
    }

    /// Adds a line to the field.
    pub fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.add.push((name, value));
    }

    /// Removes every line of the field.
    pub fn remove(&mut self, name: HeaderName) {
        self.remove.push(name);
    }

    /// Makes the changes to a header section: what is set first, then what is added, and last what is removed.
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
}
