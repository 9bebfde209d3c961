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

/// The conditions of one route, each compiled alone.
///
/// ```
/// use selvedge_policies::{
///     kind::{self, Attached},
///     route::{Conditions, Outcome},
///     testing::Request,
/// };
/// use serde_json::json;
///
/// let spec = json!({
///     "parentRefs": [{ "kind": "Service", "name": "web" }],
///     "rules": [{ "matches": [{ "path": { "value": "/cart" } }] }, {}],
/// });
/// let conditions = Conditions::of(&Attached { name: "shop/web".into(), spec: kind::parse(&spec).unwrap() });
/// let considered = conditions.explain(&Request::new("GET", "/").facts(), Some("shop/web/1"));
/// assert_eq!(considered[0].outcome, Outcome::Fails("rules[0].matches[0].path".to_owned()));
/// assert_eq!(considered[1].outcome, Outcome::Taken);
/// ```
#[derive(Clone, Debug)]
pub struct Conditions {
    hosts: Alone,
    matches: Vec<Match>,
}

/// One match of one rule.
#[derive(Clone, Debug)]
struct Match {
    /// The name of its rule.
    rule: String,
    at: String,
    /// Each condition with its field.
    conditions: Vec<(String, Alone)>,
}

/// A table of one condition. One that does not compile holds for nothing.
#[derive(Clone, Debug)]
struct Alone(RouteTable);

impl Conditions {
    /// Those of `route`, in the order in which they are written.
    pub fn of(route: &Attached<HttpRouteSpec>) -> Self {
        let matches = matches(&route.spec).into_iter().map(|(rule, at, written)| Match {
            rule: format!("{}/{rule}", route.name),
            conditions: conditions(&written, &at),
            at,
        });
        Self { hosts: Alone::of(&route.spec.hostnames, HttpRouteMatch::default()), matches: matches.collect() }
    }

    /// Every match, looked at for `request`, of which the table of all routes chose the rule of the name `taken`.
    pub fn explain(&self, request: &RequestFacts<'_>, taken: Option<&str>) -> Vec<Considered> {
        let outcome = |found: &Match| match self.failing(found, request) {
            Some(field) => Outcome::Fails(field),
            None if taken == Some(&found.rule) => Outcome::Taken,
            None => Outcome::Preceded,
        };
        let considered = self.matches.iter();
        considered
            .map(|found| Considered { rule: found.rule.clone(), at: found.at.clone(), outcome: outcome(found) })
            .collect()
    }

    /// The first condition that does not hold alone.
    fn failing(&self, found: &Match, request: &RequestFacts<'_>) -> Option<String> {
        if !self.hosts.holds(request) {
            return Some("hostnames".to_owned());
        }
        found.conditions.iter().find(|(_, alone)| !alone.holds(request)).map(|(field, _)| field.clone())
    }
}

impl Alone {
    fn of(hostnames: &[String], condition: HttpRouteMatch) -> Self {
        let rules = vec![HttpRouteRule { matches: vec![condition], ..HttpRouteRule::default() }];
        let spec = HttpRouteSpec { parent_refs: Vec::new(), hostnames: hostnames.to_vec(), rules };
        Self(RouteTable::compile(&[Attached { name: "".into(), spec }]).unwrap_or_default())
    }

    fn holds(&self, request: &RequestFacts<'_>) -> bool {
        let RequestFacts { host, method, path, query, headers, .. } = *request;
        self.0.select(host, method, path, query, headers).is_some()
    }
}

/// The matches of a route in the order in which they are written, each with the name of its rule and its field. A rule that
/// has none, and a route without rules, matches everything.
pub(super) fn matches(route: &HttpRouteSpec) -> Vec<(String, String, HttpRouteMatch)> {
    let everything = [HttpRouteRule::default()];
    let rules = if route.rules.is_empty() { &everything[..] } else { &route.rules };
    let matches = rules.iter().enumerate().flat_map(|(number, rule)| {
        let name = rule.name.clone().unwrap_or_else(|| number.to_string());
        let whole =
            rule.matches.is_empty().then(|| (name.clone(), format!("rules[{number}]"), HttpRouteMatch::default()));
        let each = rule.matches.iter().enumerate();
        let each = each.map(move |(n, found)| (name.clone(), format!("rules[{number}].matches[{n}]"), found.clone()));
        whole.into_iter().chain(each)
    });
    matches.collect()
}

/// The conditions of a match found at `at`, with their fields.
fn conditions(found: &HttpRouteMatch, at: &str) -> Vec<(String, Alone)> {
    let any = HttpRouteMatch::default;
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
    let all = path.into_iter().chain(method).chain(headers).chain(queries);
    all.map(|(field, condition)| (format!("{at}.{field}"), Alone::of(&[], condition))).collect()
}
