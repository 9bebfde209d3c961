//! Finds the first rule, in Gateway API precedence, without looking at the others: by host, then by path.

use std::collections::HashMap;

use regex::bytes::Regex;

use crate::matching::{
    glob::ByLength,
    path::{PathMatch, PathMatchType, element_prefix, elements},
};

/// Entries of one host by path. Entries are numbers in order of precedence.
#[derive(Clone, Debug, Default)]
pub(super) struct PathIndex {
    exact: HashMap<Box<str>, Vec<u32>>,
    regexes: Vec<(Regex, u32)>,
    prefixes: ByLength<Vec<u32>>,
}

impl PathIndex {
    /// Files an entry; entries must come in order of precedence.
    pub(super) fn insert(&mut self, path: &PathMatch, regex: Option<Regex>, entry: u32) {
        match (path.kind, regex) {
            (PathMatchType::Exact, _) => self.exact.entry(path.value.as_str().into()).or_default().push(entry),
            (PathMatchType::PathPrefix, _) => self.prefixes.entry(element_prefix(&path.value)).push(entry),
            (PathMatchType::RegularExpression, Some(regex)) => self.regexes.push((regex, entry)),
            (PathMatchType::RegularExpression, None) => {}
        }
    }

    /// The entries whose path matches, in order of precedence.
    pub(super) fn matching<'a>(&'a self, path: &'a str) -> impl Iterator<Item = u32> + 'a {
        let exact = self.exact.get(path).into_iter().flatten().copied();
        let regexes = self.regexes.iter().filter(|(regex, _)| regex.is_match(path.as_bytes())).map(|(_, entry)| *entry);
        let prefixes = self.prefixes.longest_first(path.len(), |length| elements(path, length)).flatten().copied();
        exact.chain(regexes).chain(prefixes)
    }
}
