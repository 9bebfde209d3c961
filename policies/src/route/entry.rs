//! What one match of a rule asks of a request, besides host and path.

use http::{HeaderMap, Method};

use crate::matching::{header::HeaderMatcher, query::QueryMatcher};

/// What entries are chosen by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
}

/// What one match of a rule asks besides host and path.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The rule, by its number.
    pub(super) rule: u32,
    pub(super) method: Option<Method>,
    pub(super) headers: Vec<HeaderMatcher>,
    pub(super) queries: Vec<QueryMatcher>,
}

impl Entry {
    /// Whether a request on the host and path of the entry is one of its.
    pub(super) fn matches(&self, asked: Asked<'_>) -> bool {
        self.method.as_ref().is_none_or(|expected| expected == asked.method)
            && self.headers.iter().all(|header| header.matches_every(asked.headers))
            && self.queries.iter().all(|parameter| parameter.matches(asked.query))
    }
}
