//! Who calls what: rules that several kinds share, and how doubt is decided.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    failing,
    operation::{Effect, Operation, OperationMatcher, each, matches_one},
    principal::{IdentityPattern, ServiceAccount},
};
use crate::{
    cidr::Cidr,
    facts::{ConnectionFacts, Identity, Peer, RequestFacts},
    kind::Problem,
    names,
};

/// Matches when one of `from` and one of `to` match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    /// Who calls; anyone when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Source>,
    /// What is called; anything when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Operation>,
}

/// Who calls. All given fields must match; a field matches when one of its values does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Source {
    /// SPIFFE IDs; a `*` at the end matches any ending, `*` alone any proven identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
    /// SPIFFE IDs that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_identities: Vec<String>,
    /// Service accounts: `name` in the namespace of the policy, or `namespace/name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<String>,
    /// Service accounts that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_service_accounts: Vec<String>,
    /// Namespaces of the caller's identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Namespaces that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<String>,
    /// Networks of the caller's address, in CIDR form.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_blocks: Vec<Cidr>,
    /// Networks that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ip_blocks: Vec<Cidr>,
}

/// A compiled [`Rule`] of one policy.
#[derive(Debug)]
pub(crate) struct RuleMatcher {
    /// `namespace/name` of the policy it is of.
    pub(crate) policy: Arc<str>,
    /// Which of the rules of its policy it is, from 0.
    pub(crate) number: u32,
    /// Unix second from which it no longer matches.
    pub(crate) expires: u64,
    /// Callers, of which one has to match; none stands for every caller.
    pub(crate) from: Vec<SourceMatcher>,
    /// Operations, of which one has to match; none stands for every operation.
    pub(crate) to: Vec<OperationMatcher>,
}

impl RuleMatcher {
    /// Compiles a rule found at `path`; what cannot be compiled is left out and reported.
    pub(crate) fn new(spec: &Rule, policy: &Arc<str>, expires: u64, path: &str, problems: &mut Vec<Problem>) -> Self {
        let home = home(policy);
        let from = spec.from.iter().enumerate();
        let from = from.map(|(n, source)| SourceMatcher::new(source, home, &format!("{path}.from[{n}]"), problems));
        let from = from.collect();
        let to = OperationMatcher::all(&spec.to, &format!("{path}.to"), problems);
        Self { policy: policy.clone(), number: 0, expires, from, to }
    }

    /// True when caller and operation of `request` match; doubt is decided against the caller, which `effect` says how.
    pub(crate) fn matches(&self, request: &RequestFacts<'_>, effect: Effect) -> bool {
        self.matches_peer(request.peer, effect) && self.matches_operation(request, effect)
    }

    /// True when the operation of `request` matches, whoever calls.
    pub(crate) fn matches_operation(&self, request: &RequestFacts<'_>, effect: Effect) -> bool {
        matches_one(&self.to, |operation| operation.matches(request, effect))
    }

    /// As `matches`, of a connection that is not HTTP: conditions on requests are in doubt, and doubt is decided
    /// against the caller.
    pub(crate) fn matches_connection(&self, connection: &ConnectionFacts<'_>, effect: Effect) -> bool {
        self.matches_peer(connection.peer, effect) && self.matches_bytes(connection, effect)
    }

    /// True when what `connection` is for matches, whoever calls.
    pub(crate) fn matches_bytes(&self, connection: &ConnectionFacts<'_>, effect: Effect) -> bool {
        matches_one(&self.to, |operation: &OperationMatcher| operation.matches_connection(connection, effect))
    }

    /// True when the caller matches, whatever is called.
    pub(crate) fn matches_peer(&self, peer: &Peer, effect: Effect) -> bool {
        matches_one(&self.from, |source| source.matches(peer, effect))
    }
}

/// The first condition of a rule of `policy`, found at `path`, that fails.
pub(crate) fn failing(
    rule: &Rule,
    policy: &str,
    path: &str,
    request: &RequestFacts<'_>,
    effect: Effect,
) -> Option<String> {
    let home = home(policy);
    let from = failing::failing(&rule.from, &format!("{path}.from"), |source| {
        SourceMatcher::new(source, home, "", &mut Vec::new()).matches(request.peer, effect)
    });
    from.or_else(|| OperationMatcher::failing(&rule.to, &format!("{path}.to"), request, effect))
}

/// The namespace of a policy, in which names of service accounts without one are meant.
pub(super) fn home(policy: &str) -> &str {
    names::parts(policy).map_or("default", |(namespace, _)| namespace)
}

/// A compiled [`Source`] of a rule: what it lists has to match, what it excludes must not.
#[derive(Debug)]
pub(crate) struct SourceMatcher {
    /// SPIFFE IDs or patterns of them; none stands for every caller.
    pub(crate) identities: Vec<IdentityPattern>,
    /// Service accounts, each in its namespace; none stands for every caller.
    pub(crate) accounts: Vec<ServiceAccount>,
    /// Namespaces of callers, in order of their text; none stands for every caller.
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
