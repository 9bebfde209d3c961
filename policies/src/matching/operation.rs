//! What is called: conditions on requests and connections that several kinds share, and how doubt is decided.
//!
//! What only some services take for one, such as `/admin` and `/ADMIN`, `GET` and `get`, is one for what refuses, and two
//! for what lets pass.

use std::borrow::Cow;

use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    canonical::{fold, with_whole_escapes},
    failing::failing,
    glob::{Glob, Globs},
    header::{HeaderMatch, HeaderMatcher, field_name, is_alias},
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
    /// Methods that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_methods: Vec<String>,
    /// Paths that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_paths: Vec<String>,
    /// Hosts that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_hosts: Vec<String>,
    /// Ports that do not match, as in `ports`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<u16>,
    /// Names of headers of which none may be there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent_headers: Vec<String>,
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
    /// How what a rule leaves out is compared: what lets pass leaves out in doubt, and what refuses only what is certain.
    const fn of_exceptions(self) -> Self {
        match self {
            Self::Allow => Self::Deny,
            Self::Deny => Self::Allow,
        }
    }

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

/// A compiled [`Operation`] of a rule: every list that is not empty has to match, and none that leaves out.
#[derive(Debug)]
pub(crate) struct OperationMatcher {
    is: Lists,
    /// What is left out; few rules leave anything out.
    is_not: Option<Box<Lists>>,
    headers: Vec<HeaderMatcher>,
    absent: Vec<HeaderName>,
}

/// Compiled lists, each of alternatives.
#[derive(Debug)]
struct Lists {
    paths: Globs,
    /// The paths as what refuses compares them, where that is another way.
    folded: Option<Globs>,
    methods: Vec<Method>,
    hosts: Globs,
    ports: Vec<u16>,
}

/// Lists as they are written, each with the name of its field.
type Written<'a> = [(&'static str, &'a [String]); 3];

impl Lists {
    fn new(
        [methods, paths, hosts]: Written<'_>,
        (field, ports): (&str, &[u16]),
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> Self {
        if let Some(n) = ports.iter().position(|port| *port == 0) {
            problems.push(Problem::new(format!("{path}.{field}[{n}]"), "0 is not a port: expected 1 to 65535"));
        }
        let paths = each(paths.1, path, paths.0, problems, path_glob);
        let [paths, folded] = [Effect::Allow, Effect::Deny].map(|effect| {
            let compared = paths.iter().map(|glob| glob.in_form(|text| effect.path(text)));
            compared.collect::<Vec<Glob>>()
        });
        Self {
            methods: each(methods.1, path, methods.0, problems, method::parse),
            folded: (folded != paths).then(|| Globs::new(folded)),
            paths: Globs::new(paths),
            hosts: Globs::new(each(hosts.1, path, hosts.0, problems, host_glob)),
            ports: ports.to_vec(),
        }
    }

    fn paths(&self, effect: Effect) -> &Globs {
        self.folded.as_ref().filter(|_| effect == Effect::Deny).unwrap_or(&self.paths)
    }

    fn has_method(&self, request: &RequestFacts<'_>, effect: Effect) -> bool {
        self.methods.iter().any(|method| effect.is_same_method(method, request.method))
    }

    fn has_path(&self, request: &RequestFacts<'_>, effect: Effect) -> bool {
        !self.paths.is_empty() && self.paths(effect).matches(&effect.path(request.path))
    }

    fn has_host(&self, host: &str) -> bool {
        !self.hosts.is_empty() && self.hosts.matches(host)
    }

    /// True when what only HTTP has is listed, beside hosts.
    fn is_about_requests(&self) -> bool {
        !(self.methods.is_empty() && self.paths.is_empty())
    }
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
        let is: Written<'_> = [("methods", &spec.methods), ("paths", &spec.paths), ("hosts", &spec.hosts)];
        let is_not: Written<'_> =
            [("notMethods", &spec.not_methods), ("notPaths", &spec.not_paths), ("notHosts", &spec.not_hosts)];
        let has_exceptions = is_not.iter().any(|(_, texts)| !texts.is_empty());
        Self {
            is: Lists::new(is, ("ports", &spec.ports), path, problems),
            is_not: (has_exceptions || !spec.not_ports.is_empty())
                .then(|| Box::new(Lists::new(is_not, ("notPorts", &spec.not_ports), path, problems))),
            headers,
            absent: each(&spec.absent_headers, path, "absentHeaders", problems, field_name),
        }
    }

    /// Paths, as requests are [compared](Effect::path) by them, without a query; none stands for every path.
    pub(crate) fn paths(&self, effect: Effect) -> &Globs {
        self.is.paths(effect)
    }

    /// True when `request` is such an operation. Of a header that stands several times, or under names that a service may take
    /// for one, every line has to match under [`Effect::Allow`], any under [`Effect::Deny`]; one that is to be absent is there
    /// under such a name too for what lets pass, and only under its own for what refuses.
    pub(crate) fn matches(&self, request: &RequestFacts<'_>, effect: Effect) -> bool {
        let header_matches = |header: &HeaderMatcher| match effect {
            Effect::Allow => header.matches_every_alias(request.headers),
            Effect::Deny => header.matches_any(request.headers),
        };
        let is_absent = |name: &HeaderName| match effect {
            Effect::Allow => !request.headers.keys().any(|other| is_alias(name.as_str(), other.as_str())),
            Effect::Deny => !request.headers.contains_key(name),
        };
        (self.is.methods.is_empty() || self.is.has_method(request, effect))
            && (self.is.ports.is_empty() || self.is.ports.contains(&request.port))
            && (self.is.paths.is_empty() || self.is.has_path(request, effect))
            && (self.is.hosts.is_empty() || self.is.has_host(request.host))
            && !self.excepts(request, effect.of_exceptions())
            && self.headers.iter().all(header_matches)
            && self.absent.iter().all(is_absent)
    }

    fn excepts(&self, request: &RequestFacts<'_>, effect: Effect) -> bool {
        self.is_not.as_ref().is_some_and(|left_out| {
            left_out.ports.contains(&request.port)
                || left_out.has_method(request, effect)
                || left_out.has_path(request, effect)
                || left_out.has_host(request.host)
        })
    }

    /// Whether what is left out is such; true when nothing is.
    fn all_left_out(&self, such: impl Fn(&Lists) -> bool) -> bool {
        self.is_not.as_ref().is_none_or(|left_out| such(left_out))
    }

    /// On a connection that is not HTTP the conditions on requests are in doubt, and the one on hosts where there is no
    /// server name.
    pub(crate) fn matches_connection(&self, connection: &ConnectionFacts<'_>, effect: Effect) -> bool {
        let in_doubt = effect == Effect::Deny;
        let is_host = |matches: &dyn Fn(&str) -> bool| connection.server_name.map_or(in_doubt, matches);
        (self.is.ports.is_empty() || self.is.ports.contains(&connection.port))
            && self.all_left_out(|left_out| !left_out.ports.contains(&connection.port))
            && (self.is.hosts.is_empty() || is_host(&|name| self.is.has_host(name)))
            && self.all_left_out(|left_out| left_out.hosts.is_empty() || is_host(&|name| !left_out.has_host(name)))
            && (in_doubt || !self.is_about_http())
    }

    /// True when the path decides.
    pub(crate) fn is_about_paths(&self) -> bool {
        !self.is.paths.is_empty() || !self.all_left_out(|left_out| left_out.paths.is_empty())
    }

    /// True when it is about what only a request has.
    pub(crate) fn is_about_requests(&self) -> bool {
        self.is_about_hosts() || self.is_about_http()
    }

    fn is_about_http(&self) -> bool {
        let is_about_headers = !(self.headers.is_empty() && self.absent.is_empty());
        is_about_headers || self.is.is_about_requests() || !self.all_left_out(|left_out| !left_out.is_about_requests())
    }

    /// True when the host decides, which a connection that is not HTTP may say as its server name.
    pub(crate) fn is_about_hosts(&self) -> bool {
        !self.is.hosts.is_empty() || !self.all_left_out(|left_out| left_out.hosts.is_empty())
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
