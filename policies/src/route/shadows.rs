//! Matches that no request gets to: for each of their hosts another one goes before them that holds whenever they do.

use serde_json::Value;

use super::{HttpRouteMatch, HttpRouteSpec, check, explain::matches, table::Draft};
use crate::{
    kind::{self, Attached},
    matching::path::{PathMatch, PathMatchType, element_prefix},
    policy::Shadowed,
};

/// An expression that every path matches.
const EVERY_PATH: &str = ".*";

/// One match, in the order in which they are tried within a host.
struct Tried<'a> {
    route: &'a Attached<HttpRouteSpec>,
    at: String,
    condition: HttpRouteMatch,
}

/// Every match that no request gets to, with one that goes before it.
pub(super) fn shadows(documents: &[Attached<Value>]) -> Vec<Shadowed> {
    let Ok(mut routes) = kind::parse_all::<HttpRouteSpec>(documents, check::close) else { return Vec::new() };
    routes.sort_by(|a, b| a.name.cmp(&b.name));
    let mut tried: Vec<Tried<'_>> = routes.iter().flat_map(all).collect();
    let mut problems = Vec::new();
    tried.sort_by_cached_key(|tried| {
        Draft::new(&tried.condition, 0, &[], "", &mut problems).map(|draft| draft.precedence())
    });
    if !problems.is_empty() {
        return Vec::new();
    }
    let shadowed = tried.iter().enumerate().filter_map(|(place, narrow)| {
        let before = &tried[..place];
        let first = |host: &Option<String>| {
            before.iter().find(|broad| broad.hosts().contains(host) && covers(&broad.condition, &narrow.condition))
        };
        let found: Option<Vec<&Tried<'_>>> = narrow.hosts().iter().map(first).collect();
        let broad = *found?.first()?;
        Some(Shadowed {
            object: narrow.route.name.clone(),
            at: narrow.at.clone(),
            by: broad.route.name.clone(),
            by_at: broad.at.clone(),
            how: "takes every request that this matches",
        })
    });
    shadowed.collect()
}

fn all(route: &Attached<HttpRouteSpec>) -> Vec<Tried<'_>> {
    let all = matches(&route.spec).into_iter();
    all.map(|(_, at, condition)| Tried { route, at, condition }).collect()
}

impl Tried<'_> {
    /// The hosts under which it is looked for; `None` stands for every other one.
    fn hosts(&self) -> Vec<Option<String>> {
        let named = &self.route.spec.hostnames;
        if named.is_empty() {
            return vec![None];
        }
        named.iter().map(|host| Some(host.to_ascii_lowercase())).collect()
    }
}

/// Whether `broad` holds whenever `narrow` does.
fn covers(broad: &HttpRouteMatch, narrow: &HttpRouteMatch) -> bool {
    covers_path(broad.path.clone().unwrap_or_default(), narrow.path.clone().unwrap_or_default())
        && (broad.method.is_none() || broad.method == narrow.method)
        && broad.headers.iter().all(|header| narrow.headers.contains(header))
        && broad.query_params.iter().all(|query| narrow.query_params.contains(query))
}

fn covers_path(broad: PathMatch, narrow: PathMatch) -> bool {
    match (broad.kind, narrow.kind) {
        (PathMatchType::RegularExpression, _) if broad.value == EVERY_PATH => true,
        (PathMatchType::PathPrefix, PathMatchType::PathPrefix) => {
            element_prefix(&broad.value) == element_prefix(&narrow.value)
        }
        _ => broad == narrow,
    }
}
