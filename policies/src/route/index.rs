//! Finds the first entry, in Gateway API precedence, that matches a request without looking at all others: by path, then
//! by the value of a header or query parameter.

use std::collections::HashMap;

use http::HeaderName;
use regex::bytes::Regex;

use super::entry::{Asked, Entry};
use crate::matching::{
    glob::ByLength,
    path::{PathMatch, PathMatchType, element_prefix, elements},
    query,
};

/// Entries of one host by path. Entries are numbers in order of precedence.
#[derive(Clone, Debug, Default)]
pub(super) struct PathIndex {
    exact: HashMap<Box<str>, Shelf>,
    regexes: Vec<(Regex, u32)>,
    prefixes: ByLength<Shelf>,
}

impl PathIndex {
    /// Files entry `number`; entries must come in order of precedence.
    pub(super) fn insert(&mut self, path: &PathMatch, regex: Option<Regex>, number: u32, entry: &Entry) {
        match (path.kind, regex) {
            (PathMatchType::Exact, _) => {
                self.exact.entry(path.value.as_str().into()).or_default().insert(number, entry)
            }
            (PathMatchType::PathPrefix, _) => self.prefixes.entry(element_prefix(&path.value)).insert(number, entry),
            (PathMatchType::RegularExpression, regex) => self.regexes.extend(regex.map(|regex| (regex, number))),
        }
    }

    /// The first entry that matches.
    pub(super) fn first(&self, asked: Asked<'_>, entries: &[Entry]) -> Option<u32> {
        let regex_matches = |(regex, number): &(Regex, u32)| {
            regex.is_match(asked.path.as_bytes()) && entries[*number as usize].matches(asked)
        };
        let exact = || self.exact.get(asked.path)?.first(asked, entries);
        let regex = || self.regexes.iter().find(|entry| regex_matches(entry)).map(|(_, number)| *number);
        let mut prefixes = self.prefixes.longest_first(asked.path.len(), |length| elements(asked.path, length));
        exact().or_else(regex).or_else(|| prefixes.find_map(|shelf| shelf.first(asked, entries)))
    }
}

/// Entries of one path, each under the first header or query value that it demands, so that a thousand tenants told
/// apart by a header cost what one does.
#[derive(Clone, Debug, Default)]
struct Shelf {
    by_header: Vec<(HeaderName, ByValue)>,
    by_query: Vec<(Box<[u8]>, ByValue)>,
    others: Vec<u32>,
}

type ByValue = HashMap<Box<[u8]>, Vec<u32>>;

impl Shelf {
    fn insert(&mut self, number: u32, entry: &Entry) {
        let header = entry.headers.iter().find_map(|header| header.exact());
        let query = entry.queries.iter().find_map(|parameter| parameter.exact());
        let list = match (header, query) {
            (Some((name, value)), _) => of(&mut self.by_header, name).entry(value.into()).or_default(),
            (None, Some((name, value))) => of(&mut self.by_query, &name.into()).entry(value.into()).or_default(),
            (None, None) => &mut self.others,
        };
        list.push(number);
    }

    /// The first entry that matches: the earliest of the first ones of each list it can be in.
    fn first(&self, asked: Asked<'_>, entries: &[Entry]) -> Option<u32> {
        let headers =
            self.by_header.iter().filter_map(|(name, values)| values.get(asked.headers.get(name)?.as_bytes()));
        let queries = self.by_query.iter();
        let queries = queries.filter_map(|(name, values)| values.get(&*query::first_value(asked.query, name)?));
        let lists = headers.chain(queries).chain([&self.others]);
        lists.filter_map(|list| list.iter().copied().find(|number| entries[*number as usize].matches(asked))).min()
    }
}

/// The value under `name` in a short list, made when there is none.
fn of<'a, K: Clone + Eq, V: Default>(list: &'a mut Vec<(K, V)>, name: &K) -> &'a mut V {
    let place = list.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        list.push((name.clone(), V::default()));
        list.len() - 1
    });
    &mut list[place].1
}
