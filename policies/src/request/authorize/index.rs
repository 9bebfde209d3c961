//! Finds the few rules, among thousands, that may match a request: by the caller's service account or namespace, then
//! by path. Every rule found is judged in full, so the index may only find too many, never too few.

use std::collections::HashMap;

use crate::{
    facts::{ConnectionFacts, Identity, Moment, Peer, RequestFacts},
    matching::{
        glob::{Glob, GlobIndex},
        operation::{Effect, OperationMatcher},
        principal::IdentityPattern,
        rule::{RuleMatcher, SourceMatcher},
    },
};

/// A rule with more combinations of caller and path than this is found by its callers alone, so that memory stays
/// proportional to what was written.
const MOST_COMBINATIONS: usize = 256;

/// Rules of one effect, by who calls and for which path.
#[derive(Debug)]
pub(super) struct RuleIndex {
    effect: Effect,
    rules: Vec<RuleMatcher>,
    anyone: GlobIndex<u32>,
    namespaces: HashMap<Box<str>, Callers>,
}

/// Rules about one namespace's callers.
#[derive(Debug, Default)]
struct Callers {
    all: GlobIndex<u32>,
    accounts: HashMap<Box<str>, GlobIndex<u32>>,
}

/// Who a rule is filed under.
enum Caller<'a> {
    Anyone,
    Namespace(&'a str),
    Account(&'a str, &'a str),
}

impl RuleIndex {
    pub(super) fn new(effect: Effect) -> Self {
        Self { effect, rules: Vec::new(), anyone: GlobIndex::default(), namespaces: HashMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// All rules, in the order in which they were added.
    pub(super) fn rules(&self) -> &[RuleMatcher] {
        &self.rules
    }

    /// The first rule of which the path is a condition.
    pub(super) fn about_paths(&self) -> Option<&RuleMatcher> {
        let is_about_paths = |rule: &&RuleMatcher| rule.to.iter().any(OperationMatcher::is_about_paths);
        self.rules.iter().find(is_about_paths)
    }

    /// Whether anything is a condition of a rule that only a request has.
    pub(super) fn is_about_requests(&self) -> bool {
        self.rules.iter().flat_map(|rule| &rule.to).any(OperationMatcher::is_about_requests)
    }

    /// True when the host is a condition of a rule.
    pub(super) fn is_about_hosts(&self) -> bool {
        self.rules.iter().flat_map(|rule| &rule.to).any(OperationMatcher::is_about_hosts)
    }

    /// When rules cease to match, in order.
    pub(super) fn expiries(&self) -> Vec<u64> {
        let mut expiries: Vec<u64> =
            self.rules.iter().map(|rule| rule.expires).filter(|expires| *expires < u64::MAX).collect();
        expiries.sort_unstable();
        expiries.dedup();
        expiries
    }

    /// Adds a rule after all others.
    pub(super) fn insert(&mut self, rule: RuleMatcher) {
        let Ok(number) = u32::try_from(self.rules.len()) else { return };
        let callers = callers(&rule.from);
        let mut paths = paths(&rule.to, self.effect);
        if callers.len().saturating_mul(paths.len()) > MOST_COMBINATIONS {
            paths = vec![Glob::Any];
        }
        for caller in callers {
            let by_path = match caller {
                Caller::Anyone => &mut self.anyone,
                Caller::Namespace(namespace) => &mut self.namespaces.entry(namespace.into()).or_default().all,
                Caller::Account(namespace, name) => {
                    let callers = self.namespaces.entry(namespace.into()).or_default();
                    callers.accounts.entry(name.into()).or_default()
                }
            };
            paths.iter().for_each(|path| by_path.insert(path, number));
        }
        self.rules.push(rule);
    }

    /// The first rule, in the order they were added, that matches.
    pub(super) fn first_match(&self, request: &RequestFacts<'_>, now: Moment) -> Option<&RuleMatcher> {
        if self.is_empty() {
            return None;
        }
        let path = self.effect.path(request.path);
        let found = self.by_caller(request.peer).flat_map(|by_path| by_path.matching(&path));
        self.first(found, now, |rule| rule.matches(request, self.effect))
    }

    /// Whether any rule matches.
    pub(super) fn any_match(&self, request: &RequestFacts<'_>, now: Moment) -> bool {
        let path = self.effect.path(request.path);
        let mut found = self.by_caller(request.peer).flat_map(|by_path| by_path.matching(&path));
        found.any(|number| {
            let rule = &self.rules[number as usize];
            now.unix < rule.expires && rule.matches(request, self.effect)
        })
    }

    /// As [`Self::first_match`], for an opaque connection.
    pub(super) fn first_connection_match(&self, connection: &ConnectionFacts<'_>, now: Moment) -> Option<&RuleMatcher> {
        let found = self.by_caller(connection.peer).flat_map(GlobIndex::values);
        self.first(found, now, |rule| rule.matches_connection(connection, self.effect))
    }

    fn first(
        &self,
        found: impl Iterator<Item = u32>,
        now: Moment,
        matches: impl Fn(&RuleMatcher) -> bool,
    ) -> Option<&RuleMatcher> {
        let mut first: Option<u32> = None;
        for number in found {
            let rule = &self.rules[number as usize];
            if first.is_none_or(|first| number < first) && now.unix < rule.expires && matches(rule) {
                first = Some(number);
            }
        }
        first.map(|number| &self.rules[number as usize])
    }

    fn by_caller<'a>(&'a self, peer: &'a Peer) -> impl Iterator<Item = &'a GlobIndex<u32>> + 'a {
        let identity: Option<&Identity> = peer.identity.as_deref();
        let callers = identity.and_then(|identity| self.namespaces.get(&identity.namespace));
        let account = callers.and_then(|callers| callers.accounts.get(&identity?.service_account));
        [account, callers.map(|callers| &callers.all), Some(&self.anyone)].into_iter().flatten()
    }
}

/// Everyone who may match one of `from`, filed under as few callers as possible.
fn callers(from: &[SourceMatcher]) -> Vec<Caller<'_>> {
    let each: Option<Vec<Vec<Caller<'_>>>> = from.iter().map(callers_of).collect();
    match each {
        Some(each) if !from.is_empty() => each.into_iter().flatten().collect(),
        _ => vec![Caller::Anyone],
    }
}

/// The callers that one source names, `None` when it does not name them.
fn callers_of(source: &SourceMatcher) -> Option<Vec<Caller<'_>>> {
    if !source.accounts.is_empty() {
        let accounts = source.accounts.iter();
        return Some(accounts.map(|account| Caller::Account(&account.namespace, &account.name)).collect());
    }
    let identities: Option<Vec<_>> = source.identities.iter().map(exact).collect();
    if let Some(identities) = identities.filter(|identities| !identities.is_empty()) {
        return Some(identities);
    }
    if source.namespaces.is_empty() {
        return None;
    }
    Some(source.namespaces.iter().map(|namespace| Caller::Namespace(namespace)).collect())
}

fn exact(pattern: &IdentityPattern) -> Option<Caller<'_>> {
    match pattern {
        IdentityPattern::Exact(identity) => Some(Caller::Account(&identity.namespace, &identity.service_account)),
        IdentityPattern::Any | IdentityPattern::Prefix(_) => None,
    }
}

/// The paths that one of `to` may match.
fn paths(to: &[OperationMatcher], effect: Effect) -> Vec<Glob> {
    if to.is_empty() || to.iter().any(|operation| operation.paths(effect).is_empty()) {
        return vec![Glob::Any];
    }
    to.iter().flat_map(|operation| operation.paths(effect).list()).cloned().collect()
}
