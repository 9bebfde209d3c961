//! All routes of one service, compiled for selection.
//!
//! Precedence is the Gateway API's: the most specific host, then Exact path, then RegularExpression (where the Gateway
//! API leaves the order open), then the longest PathPrefix, then a method match, then the most header matches, then the
//! most query matches, then the first route by name, and in it the first rule.
//!
//! Matches are sorted by precedence once, when the routes are compiled. A selection then finds the hosts that match,
//! most specific first, and within each the entries by an index of paths, and then of header and query values. Its cost
//! follows the length of host and path and hardly the number of rules; only regular expressions are tried one after the
//! other.

use std::cmp::Reverse;

use http::{HeaderMap, Method};
use regex::bytes::Regex;

use super::{
    Backend, HttpRouteMatch, HttpRouteRule, HttpRouteSpec, RouteRule,
    entry::{Asked, Entry},
    index::PathIndex,
};
use crate::{
    kind::{self, Attached, Problem},
    matching::{
        header::HeaderMatcher,
        host::HostIndex,
        method,
        path::{PathMatch, PathMatchType, element_prefix},
        query::QueryMatcher,
        text::full_regex,
    },
    reason::Reason,
};

/// The routes of one service.
///
/// ```
/// use http::{HeaderMap, Method};
/// use selvedge_policies::{
///     kind::{self, Attached},
///     route::RouteTable,
/// };
/// use serde_json::json;
///
/// let spec = json!({
///     "parentRefs": [{ "kind": "Service", "name": "web" }],
///     "rules": [
///         { "backendRefs": [{ "name": "web", "port": 80 }] },
///         {
///             "matches": [{ "path": { "type": "PathPrefix", "value": "/cart" } }],
///             "backendRefs": [{ "name": "cart", "port": 80 }],
///         },
///     ],
/// });
/// let route = Attached { name: "shop/web".into(), spec: kind::parse(&spec).unwrap() };
/// let mut table = RouteTable::compile(&[route]).unwrap();
/// assert!(!table.is_empty() && table.rules().count() == 2 && table.backends().count() == 2);
/// table.stands_in("shop/web");
/// let rule = table.select("web.shop", &Method::GET, "/cart/7", None, &HeaderMap::new()).unwrap();
/// assert_eq!(&*rule.name, "shop/web/1");
/// assert_eq!(rule.backends[0].service.to_string(), "shop/cart");
/// assert_eq!(rule.nowhere, selvedge_policies::reason::Reason::PolicyUnenforceable);
/// ```
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    rules: Vec<RouteRule>,
    /// How many backends the rules have.
    backends: usize,
    /// In order of precedence within a host and path.
    entries: Vec<Entry>,
    hosts: HostIndex<PathIndex>,
}

impl RouteTable {
    /// Compiles the routes attached to one service, in any order.
    pub fn compile(routes: &[Attached<HttpRouteSpec>]) -> Result<Self, Vec<Problem>> {
        let mut sorted: Vec<&Attached<HttpRouteSpec>> = routes.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let (mut table, mut drafts, mut problems) = (Self::default(), Vec::new(), Vec::new());
        for route in sorted {
            let mut found = Vec::new();
            table.add_rules(route, &mut drafts, &mut found);
            problems.extend(kind::of(route, found));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        drafts.sort_by_key(Draft::precedence);
        drafts.into_iter().for_each(|draft| table.file(draft));
        Ok(table)
    }

    /// Says that the route `namespace/name` stands for one that cannot be enforced here: its rules without a backend to go
    /// to answer so.
    pub fn stands_in(&mut self, route: &str) {
        let is_of = |rule: &&mut RouteRule| rule.name.strip_prefix(route).is_some_and(|rest| rest.starts_with('/'));
        self.rules.iter_mut().filter(is_of).for_each(|rule| rule.nowhere = Reason::PolicyUnenforceable);
    }

    /// What of one route cannot be compiled.
    pub(super) fn problems(route: &Attached<HttpRouteSpec>) -> Vec<Problem> {
        let mut problems = Vec::new();
        Self::default().add_rules(route, &mut Vec::new(), &mut problems);
        problems
    }

    /// All rules, in the order of their routes.
    pub fn rules(&self) -> impl Iterator<Item = &RouteRule> {
        self.rules.iter()
    }

    /// All backends of all rules, in the order of their numbers.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.rules.iter().flat_map(|rule| &rule.backends)
    }

    /// True when there are no rules: requests go to the service they were sent to.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule of a request, or `None` when no rule matches. `host` is lower case and without port, `path` canonical,
    /// `query` as sent and without `?`.
    pub fn select(
        &self,
        host: &str,
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Option<&RouteRule> {
        let asked = Asked { method, path, query, headers };
        let number = self.hosts.matching(host).find_map(|paths| paths.first(asked, &self.entries))?;
        let entry = &self.entries[number as usize];
        Some(&self.rules[entry.rule as usize])
    }

    fn add_rules<'a>(
        &mut self,
        route: &'a Attached<HttpRouteSpec>,
        drafts: &mut Vec<Draft<'a>>,
        problems: &mut Vec<Problem>,
    ) {
        let everything = [HttpRouteRule::default()];
        let specs = if route.spec.rules.is_empty() { &everything[..] } else { &route.spec.rules };
        for (number, spec) in specs.iter().enumerate() {
            let path = format!("rules[{number}]");
            let rule = self.rules.len();
            let mut compiled = RouteRule::new(spec, &route.name, number, &path, problems);
            for backend in &mut compiled.backends {
                backend.number = self.backends;
                self.backends += 1;
            }
            self.rules.push(compiled);
            let everything = [HttpRouteMatch::default()];
            let matches = if spec.matches.is_empty() { &everything[..] } else { &spec.matches };
            for (n, condition) in matches.iter().enumerate() {
                let path = format!("{path}.matches[{n}]");
                drafts.extend(Draft::new(condition, rule, &route.spec.hostnames, &path, problems));
            }
        }
    }

    fn file(&mut self, draft: Draft<'_>) {
        let Ok(number) = u32::try_from(self.entries.len()) else { return };
        let every_host = draft.hostnames.is_empty().then_some(None);
        for host in draft.hostnames.iter().map(|host| Some(host.as_str())).chain(every_host) {
            self.hosts.entry(host).insert(&draft.path, draft.regex.clone(), number, &draft.entry);
        }
        self.entries.push(draft.entry);
    }
}

/// An entry with what decides its place in the table.
pub(super) struct Draft<'a> {
    hostnames: &'a [String],
    path: PathMatch,
    regex: Option<Regex>,
    entry: Entry,
}

impl<'a> Draft<'a> {
    /// Compiles one match found at `at`, or reports what is wrong with it.
    pub(super) fn new(
        spec: &HttpRouteMatch,
        rule: usize,
        hostnames: &'a [String],
        at: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        let path = spec.path.clone().unwrap_or_default();
        problems.extend(path.problem().map(|why| Problem::new(format!("{at}.path.value"), why)));
        let regex = (path.kind == PathMatchType::RegularExpression).then(|| full_regex(&path.value).ok()).flatten();
        let method = spec.method.as_deref().map(method::parse).transpose();
        problems.extend(method.as_ref().err().map(|why| Problem::new(format!("{at}.method"), why)));
        let mut report = |list: &str, n: usize, (field, why): (&str, String)| {
            problems.push(Problem::new(format!("{at}.{list}[{n}].{field}"), why));
        };
        let headers = spec.headers.iter().enumerate();
        let headers =
            headers.filter_map(|(n, header)| HeaderMatcher::new(header).map_err(|e| report("headers", n, e)).ok());
        let headers = headers.collect();
        let queries = spec.query_params.iter().enumerate();
        let queries =
            queries.filter_map(|(n, query)| QueryMatcher::new(query).map_err(|e| report("queryParams", n, e)).ok());
        let queries = queries.collect();
        let entry = Entry { rule: u32::try_from(rule).ok()?, method: method.ok()?, headers, queries };
        if problems.len() > before { None } else { Some(Self { hostnames, path, regex, entry }) }
    }

    /// Smaller comes first; equal ones stay in the order of route name, rule and match.
    pub(super) fn precedence(&self) -> impl Ord + use<> {
        let (class, length) = match self.path.kind {
            PathMatchType::Exact => (0, 0),
            PathMatchType::RegularExpression => (1, self.path.value.len()),
            PathMatchType::PathPrefix => (2, element_prefix(&self.path.value).len()),
        };
        let conditions = (self.entry.method.is_some(), self.entry.headers.len(), self.entry.queries.len());
        (class, Reverse(length), Reverse(conditions))
    }
}
