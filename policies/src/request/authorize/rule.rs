//! One compiled rule: its conditions, and how doubt is decided.

use std::sync::Arc;

use http::Method;

use super::{Operation, Rule, Source};
use crate::{
    facts::{ConnectionFacts, Identity, Peer, RequestFacts},
    kind::Problem,
    matching::{
        cidr::Cidr,
        glob::{Glob, Globs},
        header::HeaderMatcher,
        host::host_glob,
        method,
        path::path_glob_problem,
        principal::{IdentityPattern, ServiceAccount},
    },
};

/// What a matching rule does for the caller; doubt is decided against the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Lets it pass.
    Allow,
    /// Refuses or limits it.
    Deny,
}

/// A compiled [`Rule`] of one policy.
#[derive(Debug)]
pub(crate) struct RuleMatcher {
    /// The policy, `namespace/name`.
    pub(crate) policy: Arc<str>,
    /// Unix second from which it no longer matches.
    pub(crate) expires: u64,
    pub(crate) from: Vec<SourceMatcher>,
    pub(crate) to: Vec<OperationMatcher>,
}

impl RuleMatcher {
    /// Compiles a rule found at `path`; what cannot be compiled is left out and reported.
    pub(crate) fn new(spec: &Rule, policy: &Arc<str>, expires: u64, path: &str, problems: &mut Vec<Problem>) -> Self {
        let home = policy.split_once('/').map_or("default", |(namespace, _)| namespace);
        let from = spec.from.iter().enumerate();
        let from = from.map(|(n, source)| SourceMatcher::new(source, home, &format!("{path}.from[{n}]"), problems));
        let from = from.collect();
        let to = OperationMatcher::all(&spec.to, &format!("{path}.to"), problems);
        Self { policy: policy.clone(), expires, from, to }
    }

    pub(crate) fn matches(&self, request: &RequestFacts<'_>, effect: Effect) -> bool {
        self.matches_peer(request.peer, effect) && matches_one(&self.to, |operation| operation.matches(request, effect))
    }

    pub(crate) fn matches_connection(&self, connection: &ConnectionFacts<'_>, effect: Effect) -> bool {
        let matches = |operation: &OperationMatcher| operation.matches_connection(connection, effect);
        self.matches_peer(connection.peer, effect) && matches_one(&self.to, matches)
    }

    fn matches_peer(&self, peer: &Peer, effect: Effect) -> bool {
        matches_one(&self.from, |source| source.matches(peer, effect))
    }
}

/// An empty list of alternatives excludes nothing.
pub(crate) fn matches_one<T>(alternatives: &[T], matches: impl Fn(&T) -> bool) -> bool {
    alternatives.is_empty() || alternatives.iter().any(matches)
}

/// A compiled [`Source`].
#[derive(Debug)]
pub(crate) struct SourceMatcher {
    pub(crate) identities: Vec<IdentityPattern>,
    pub(crate) accounts: Vec<ServiceAccount>,
    pub(crate) namespaces: Vec<Box<str>>,
    not_identities: Vec<IdentityPattern>,
    not_accounts: Vec<ServiceAccount>,
    not_namespaces: Vec<Box<str>>,
    networks: Vec<Cidr>,
    not_networks: Vec<Cidr>,
}

impl SourceMatcher {
    fn new(spec: &Source, home: &str, path: &str, problems: &mut Vec<Problem>) -> Self {
        let mut identities = |texts, field| each(texts, path, field, problems, IdentityPattern::new);
        let (is, is_not) =
            (identities(&spec.identities, "identities"), identities(&spec.not_identities, "notIdentities"));
        let mut accounts = |texts, field| each(texts, path, field, problems, |text| ServiceAccount::new(text, home));
        let account = accounts(&spec.service_accounts, "serviceAccounts");
        let not_account = accounts(&spec.not_service_accounts, "notServiceAccounts");
        let mut namespaces = |texts, field| each(texts, path, field, problems, namespace);
        let namespace = namespaces(&spec.namespaces, "namespaces");
        let not_namespace = namespaces(&spec.not_namespaces, "notNamespaces");
        Self {
            identities: sorted(is),
            accounts: sorted(account),
            namespaces: sorted(namespace),
            not_identities: sorted(is_not),
            not_accounts: sorted(not_account),
            not_namespaces: sorted(not_namespace),
            networks: spec.ip_blocks.clone(),
            not_networks: spec.not_ip_blocks.clone(),
        }
    }

    /// A caller without identity matches no condition on identities, not even a negated one where that would let it
    /// pass.
    fn matches(&self, peer: &Peer, effect: Effect) -> bool {
        let identity = peer.identity.as_deref();
        let is = |list_is_empty, found: &dyn Fn(&Identity) -> bool| list_is_empty || identity.is_some_and(found);
        let is_not = |list_is_empty, found: &dyn Fn(&Identity) -> bool| {
            list_is_empty || identity.map_or(effect == Effect::Deny, |identity| !found(identity))
        };
        let within = |networks: &[Cidr]| networks.iter().any(|network| network.contains(peer.address));
        is(self.identities.is_empty(), &|id| IdentityPattern::any_matches(&self.identities, id))
            && is(self.accounts.is_empty(), &|id| ServiceAccount::any_matches(&self.accounts, id))
            && is(self.namespaces.is_empty(), &|id| self.namespaces.binary_search(&id.namespace).is_ok())
            && is_not(self.not_identities.is_empty(), &|id| IdentityPattern::any_matches(&self.not_identities, id))
            && is_not(self.not_accounts.is_empty(), &|id| ServiceAccount::any_matches(&self.not_accounts, id))
            && is_not(self.not_namespaces.is_empty(), &|id| self.not_namespaces.binary_search(&id.namespace).is_ok())
            && (self.networks.is_empty() || within(&self.networks))
            && !within(&self.not_networks)
    }
}

/// A compiled [`Operation`].
#[derive(Debug)]
pub(crate) struct OperationMatcher {
    pub(crate) paths: Globs,
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
        Self {
            methods: each(&spec.methods, path, "methods", problems, method::parse),
            paths: Globs::new(each(&spec.paths, path, "paths", problems, path_glob)),
            hosts: Globs::new(each(&spec.hosts, path, "hosts", problems, host_glob)),
            ports: spec.ports.clone(),
            headers,
        }
    }

    pub(crate) fn matches(&self, request: &RequestFacts<'_>, effect: Effect) -> bool {
        let header_matches = |header: &HeaderMatcher| match effect {
            Effect::Allow => header.matches_every(request.headers),
            Effect::Deny => header.matches_any(request.headers),
        };
        (self.methods.is_empty() || self.methods.contains(request.method))
            && (self.ports.is_empty() || self.ports.contains(&request.port))
            && self.paths.matches(request.path)
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

    /// True when the host decides, which a connection that is not HTTP may say as its server name.
    pub(crate) fn is_about_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }
}

/// Compiles each text of a field; the ones that cannot be are left out and reported.
fn each<T>(
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

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values
}

fn namespace(text: &str) -> Result<Box<str>, String> {
    match Identity::new("any", text, "any") {
        Ok(_) => Ok(text.into()),
        Err(_) => Err(format!("'{text}' is not a namespace: expected its plain name")),
    }
}

fn path_glob(pattern: &str) -> Result<Glob, String> {
    let glob = Glob::new(pattern)?;
    path_glob_problem(&glob).map_or(Ok(glob), Err)
}
