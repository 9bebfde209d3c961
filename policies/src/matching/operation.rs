//! What is called: conditions on requests and connections that several kinds share, and how doubt is decided.
//!
//! What only some services take for one, such as `/admin` and `/ADMIN`, `GET` and `get`, is one for what refuses, and two
//! for what lets pass.

use std::borrow::Cow;

use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    canonical::{fold, with_whole_escapes},
    failing::failing,
    glob::{Glob, Globs},
    header::{HeaderMatch, HeaderMatcher},
    host::host_glob,
    method,
    path::path_glob_problem,
};
use crate::{
    facts::{ConnectionFacts, RequestFacts},
    kind::Problem,
};

/// What is called. All given fields must match; a field matches when one of its values does (for `headers`: all).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Operation {
    /// HTTP methods such as `GET`, of which one must match; any when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Paths: `/x` is that path, `/x/*` all paths that begin with `/x/`, `*/x` all that end with `/x`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Host names without port, or server names of TLS that the application speaks itself; `*` at the start or the end
    /// matches any characters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Ports of the workload; in a policy of a service also those of the service, where the workload has none of that number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Headers that must all match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
}

/// What a matching rule does for the caller; doubt is decided against the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// What it names passes, so a condition in doubt does not match.
    Allow,
    /// Refuses or limits it.
    Deny,
}

impl Effect {
    /// The path of a request as conditions on it are compared: never by a part of an escape.
    pub(crate) fn path(self, canonical: &str) -> Cow<'_, str> {
        match self {
            Self::Allow => with_whole_escapes(canonical),
            Self::Deny => fold(canonical),
        }
    }

    /// Methods are case-sensitive (RFC 9110 section 9.1), and there are frameworks that know better.
    fn is_same_method(self, one: &Method, other: &Method) -> bool {
        match self {
            Self::Allow => one == other,
            Self::Deny => one.as_str().eq_ignore_ascii_case(other.as_str()),
        }
    }
}

/// An empty list of alternatives excludes nothing.
pub(crate) fn matches_one<T>(alternatives: &[T], matches: impl Fn(&T) -> bool) -> bool {
    alternatives.is_empty() || alternatives.iter().any(matches)
}

/// A compiled [`Operation`] of a rule: every list that is not empty has to match.
#[derive(Debug)]
pub(crate) struct OperationMatcher {
    paths: Globs,
    /// The paths as what refuses compares them, where that is another way.
    folded: Option<Globs>,
    methods: Vec<Method>,
    hosts: Globs,
    ports: Vec<u16>,
    headers: Vec<HeaderMatcher>,
}

impl OperationMatcher {
    /// Compiles the operations found at `path`; what cannot be compiled is left out and reported.
    pub(crate) fn all(specs: &[Operation], path: &str, problems: &mut Vec<Problem>) -> Vec<Self> {
        specs.iter().enumerate().map(|(n, spec)| Self::new(spec, &format!("{path}[{n}]"), problems)).collect()
    }

    /// What fails of the operations found at `path`, of which one has to match.
    pub(crate) fn failing(
        specs: &[Operation],
        path: &str,
        request: &RequestFacts<'_>,
        effect: Effect,
    ) -> Option<String> {
        failing(specs, path, |spec| Self::new(spec, "", &mut Vec::new()).matches(request, effect))
    }

    fn new(spec: &Operation, path: &str, problems: &mut Vec<Problem>) -> Self {
        let headers = spec.headers.iter().enumerate().filter_map(|(n, header)| {
            let compiled = HeaderMatcher::new(header);
            compiled
                .map_err(|(field, why)| problems.push(Problem::new(format!("{path}.headers[{n}].{field}"), why)))
                .ok()
        });
        let headers = headers.collect();
        if let Some(n) = spec.ports.iter().position(|port| *port == 0) {
            problems.push(Problem::new(format!("{path}.ports[{n}]"), "0 is not a port: expected 1 to 65535"));
        }
        let paths = each(&spec.paths, path, "paths", problems, path_glob);
        let [paths, folded] = [Effect::Allow, Effect::Deny].map(|effect| {
            let compared = paths.iter().map(|glob| glob.in_form(|text| effect.path(text)));
            compared.collect::<Vec<Glob>>()
        });
        Self {
            methods: each(&spec.methods, path, "methods", problems, method::parse),
            folded: (folded != paths).then(|| Globs::new(folded)),
            paths: Globs::new(paths),
            hosts: Globs::new(each(&spec.hosts, path, "hosts", problems, host_glob)),
            ports: spec.ports.clone(),
            headers,
        }
    }

    /// Paths, as requests are [compared](Effect::path) by them, without a query; none stands for every path.
    pub(crate) fn paths(&self, effect: Effect) -> &Globs {
        self.folded.as_ref().filter(|_| effect == Effect::Deny).unwrap_or(&self.paths)
    }

    /// True when `request` is such an operation. Of a header that stands several times, or under names that a service may take
    /// for one, every line has to match under [`Effect::Allow`], any under [`Effect::Deny`].
    pub(crate) fn matches(&self, request: &RequestFacts<'_>, effect: Effect) -> bool {
        let header_matches = |header: &HeaderMatcher| match effect {
            Effect::Allow => header.matches_every_alias(request.headers),
            Effect::Deny => header.matches_any(request.headers),
        };
        (self.methods.is_empty() || self.methods.iter().any(|method| effect.is_same_method(method, request.method)))
            && (self.ports.is_empty() || self.ports.contains(&request.port))
            && (self.paths.is_empty() || self.paths(effect).matches(&effect.path(request.path)))
            && self.hosts.matches(request.host)
            && self.headers.iter().all(header_matches)
    }

    /// On a connection that is not HTTP the conditions on requests are in doubt, and the one on hosts where there is no
    /// server name.
    pub(crate) fn matches_connection(&self, connection: &ConnectionFacts<'_>, effect: Effect) -> bool {
        let in_doubt = effect == Effect::Deny;
        let is_host = connection.server_name.map_or(in_doubt, |name| self.hosts.matches(name));
        (self.ports.is_empty() || self.ports.contains(&connection.port))
            && (self.hosts.is_empty() || is_host)
            && (in_doubt || (self.methods.is_empty() && self.paths.is_empty() && self.headers.is_empty()))
    }

    /// True when the path decides.
    pub(crate) fn is_about_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// True when it is about what only a request has.
    pub(crate) fn is_about_requests(&self) -> bool {
        self.is_about_hosts() || !(self.methods.is_empty() && self.paths.is_empty() && self.headers.is_empty())
    }

    /// True when the host decides, which a connection that is not HTTP may say as its server name.
    pub(crate) fn is_about_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }
}

/// Compiles each text of a field; the ones that cannot be are left out and reported.
pub(crate) fn each<T>(
    texts: &[String],
    path: &str,
    field: &str,
    problems: &mut Vec<Problem>,
    compile: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let compiled = texts.iter().enumerate().filter_map(|(n, text)| {
        compile(text).map_err(|why| problems.push(Problem::new(format!("{path}.{field}[{n}]"), why))).ok()
    });
    compiled.collect()
}

fn path_glob(pattern: &str) -> Result<Glob, String> {
    let glob = Glob::new(pattern)?;
    path_glob_problem(&glob).map_or(Ok(glob), Err)
}
