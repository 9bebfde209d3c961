//! Rules that make no difference: another one matches all that they match, for as long, and decides in their place.

use serde_json::Value;

use super::{Action, AuthorizationPolicySpec, close};
use crate::{
    kind::{self, Attached},
    matching::{covers::covers, rule::Rule},
    names,
    policy::Shadowed,
    timestamp::unix_seconds,
};

/// One rule among all that hold for a target.
struct Ruling<'a> {
    policy: &'a Attached<AuthorizationPolicySpec>,
    rule: &'a Rule,
    /// Which of its policy it is.
    number: usize,
    /// Its place among all rules, in the order in which they are asked.
    place: usize,
    /// Unix second from which it no longer matches.
    expires: u64,
}

/// Every rule that makes no difference, with one that leaves nothing to it.
pub(super) fn shadows(documents: &[Attached<Value>]) -> Vec<Shadowed> {
    let Ok(mut policies) = kind::parse_all::<AuthorizationPolicySpec>(documents, close) else { return Vec::new() };
    policies.sort_by(|a, b| names::parts(&a.name).cmp(&names::parts(&b.name)));
    let mut rules: Vec<Ruling<'_>> = policies.iter().flat_map(rules_of).collect();
    rules.iter_mut().enumerate().for_each(|(place, ruling)| ruling.place = place);
    let shadowed = rules.iter().filter_map(|narrow| {
        let (broad, how) = rules.iter().find_map(|broad| Some((broad, broad.leaves_nothing_to(narrow)?)))?;
        Some(Shadowed {
            object: narrow.policy.name.clone(),
            at: narrow.at(),
            by: broad.policy.name.clone(),
            by_at: broad.at(),
            how,
        })
    });
    shadowed.collect()
}

fn rules_of(policy: &Attached<AuthorizationPolicySpec>) -> impl Iterator<Item = Ruling<'_>> {
    let expires = policy.spec.expires.as_deref().map_or(Some(u64::MAX), |text| unix_seconds(text).ok());
    let rules = policy.spec.rules.iter().enumerate();
    rules.filter_map(move |(number, rule)| Some(Ruling { policy, rule, number, place: 0, expires: expires? }))
}

impl Ruling<'_> {
    fn at(&self) -> String {
        format!("rules[{}]", self.number)
    }

    fn action(&self) -> Action {
        self.policy.spec.action
    }

    /// What this rule does that leaves nothing to `narrow`, if it does.
    fn leaves_nothing_to(&self, narrow: &Self) -> Option<&'static str> {
        let how = match (self.action(), narrow.action()) {
            (Action::Deny, Action::Allow) => "refuses all that this would let pass",
            (Action::Deny, Action::Audit) => "refuses all that this would note",
            (one, other) if one == other => "matches all that this matches",
            _ => return None,
        };
        let decides = || self.action() != narrow.action() || self.decides_before(narrow);
        (self.covers(narrow) && decides()).then_some(how)
    }

    /// Whether it matches whatever `narrow` matches, for at least as long.
    fn covers(&self, narrow: &Self) -> bool {
        self.expires >= narrow.expires && covers((self.rule, &self.policy.name), (narrow.rule, &narrow.policy.name))
    }

    /// Whether it, of two rules of one action, is the one that counts where both match. A refusal names the policy of the
    /// first rule that matches; which rule lets pass nobody can tell. Of two equal ones the later does not count.
    fn decides_before(&self, narrow: &Self) -> bool {
        let is_alike = self.action() == Action::Allow || self.policy.name == narrow.policy.name;
        self.place < narrow.place || (is_alike && !narrow.covers(self))
    }
}
