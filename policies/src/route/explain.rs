//! Why a rule is the one for a request, and why the others are not; for people, never on a request's way.
//!
//! Each condition is asked alone, as a table of its own, so what is said here is said by what decides.

use super::{HttpRouteMatch, HttpRouteRule, HttpRouteSpec, RouteTable};
use crate::{facts::RequestFacts, kind::Attached, matching::path::PathMatch};

/// One match of one rule, looked at for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The rule, `namespace/route/rule`, as [`RouteRule::name`](super::RouteRule::name) has it.
    pub rule: String,
    /// Where the match is written in the route's `spec`: `rules[0].matches[1]`, or `rules[0]` for a rule that has none.
    pub at: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its rule is the one.
    Taken,
    /// It matches, and a more specific one goes before it.
    Preceded,
    /// It does not match: the first condition that fails, as a field of the route's `spec`.
    Fails(String),
}

/// Every match of `routes` in the order in which they are written, looked at for `request`.
pub fn explain(routes: &[Attached<HttpRouteSpec>], request: &RequestFacts<'_>) -> Vec<Considered> {
    let taken = RouteTable::compile(routes).ok().and_then(|table| Some(select(&table, request)?.to_owned()));
    let mut considered = Vec::new();
    for route in routes {
        for (number, rule) in rules(&route.spec).iter().enumerate() {
            let name = rule.name.clone().unwrap_or_else(|| number.to_string());
            let name = format!("{}/{name}", route.name);
            for (at, condition) in matches(rule, number) {
                let outcome = match failing(&route.spec, &condition, &at, request) {
                    Some(field) => Outcome::Fails(field),
                    None if taken.as_ref() == Some(&name) => Outcome::Taken,
                    None => Outcome::Preceded,
                };
                considered.push(Considered { rule: name.clone(), at, outcome });
            }
        }
    }
    considered
}

fn select<'a>(table: &'a RouteTable, request: &RequestFacts<'_>) -> Option<&'a str> {
    let RequestFacts { host, method, path, query, headers, .. } = *request;
    table.select(host, method, path, query, headers).map(|rule| &*rule.name)
}

/// The rules of a route; without any it has one that matches everything.
fn rules(spec: &HttpRouteSpec) -> Vec<HttpRouteRule> {
    if spec.rules.is_empty() { vec![HttpRouteRule::default()] } else { spec.rules.clone() }
}

/// The matches of a rule with their fields; without any it has one that matches everything.
fn matches(rule: &HttpRouteRule, number: usize) -> Vec<(String, HttpRouteMatch)> {
    if rule.matches.is_empty() {
        return vec![(format!("rules[{number}]"), HttpRouteMatch::default())];
    }
    let numbered = rule.matches.iter().enumerate();
    numbered.map(|(n, condition)| (format!("rules[{number}].matches[{n}]"), condition.clone())).collect()
}

/// The first condition of a match found at `at` that does not hold alone.
fn failing(route: &HttpRouteSpec, found: &HttpRouteMatch, at: &str, request: &RequestFacts<'_>) -> Option<String> {
    let alone = |hostnames: &[String], condition: HttpRouteMatch| {
        let rules = vec![HttpRouteRule { matches: vec![condition], ..HttpRouteRule::default() }];
        let spec = HttpRouteSpec { parent_refs: Vec::new(), hostnames: hostnames.to_vec(), rules };
        let table = RouteTable::compile(&[Attached { name: "".into(), spec }]);
        table.is_ok_and(|table| select(&table, request).is_some())
    };
    let any = HttpRouteMatch::default;
    if !alone(&route.hostnames, any()) {
        return Some("hostnames".to_owned());
    }
    let path =
        found.path.clone().map(|path: PathMatch| ("path".to_owned(), HttpRouteMatch { path: Some(path), ..any() }));
    let method = found.method.clone();
    let method = method.map(|method| ("method".to_owned(), HttpRouteMatch { method: Some(method), ..any() }));
    let headers = found.headers.iter().enumerate();
    let headers =
        headers.map(|(n, header)| (format!("headers[{n}]"), HttpRouteMatch { headers: vec![header.clone()], ..any() }));
    let queries = found.query_params.iter().enumerate();
    let queries = queries
        .map(|(n, query)| (format!("queryParams[{n}]"), HttpRouteMatch { query_params: vec![query.clone()], ..any() }));
    let mut conditions = path.into_iter().chain(method).chain(headers).chain(queries);
    conditions.find(|(_, condition)| !alone(&[], condition.clone())).map(|(field, _)| format!("{at}.{field}"))
}
