//! What a change of an `AuthorizationPolicy` opens and closes, rule by rule. What is not certain counts as both.

use serde_json::{Map, Value};

use super::{Action, AuthorizationPolicySpec};
use crate::{policy::Weighed, timestamp::unix_seconds};

/// Fields whose values are alternatives; those that begin with `not` leave them out.
const ALTERNATIVES: [&str; 8] =
    ["identities", "serviceAccounts", "namespaces", "ipBlocks", "methods", "paths", "hosts", "ports"];

/// Whether what matched goes on matching more, and whether less: at most one of them when it is certain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Growth {
    more: bool,
    less: bool,
}

impl Growth {
    const UNCERTAIN: Self = Self { more: true, less: true };

    const fn and(self, other: Self) -> Self {
        Self { more: self.more || other.more, less: self.less || other.less }
    }

    const fn reversed(self) -> Self {
        Self { more: self.less, less: self.more }
    }
}

pub(super) fn weigh(before: Option<&Value>, after: Option<&Value>) -> Weighed {
    let read = |document: Option<&Value>| {
        document.and_then(|document| serde_json::from_value::<AuthorizationPolicySpec>(document.clone()).ok())
    };
    let mut weighed = Weighed::default();
    match (read(before), read(after)) {
        (Some(before), Some(after)) if before.action == after.action && before.target_ref == after.target_ref => {
            changed(&before, &after, &mut weighed);
        }
        (before, after) => {
            before.iter().for_each(|spec| goes(spec, &mut weighed));
            after.iter().for_each(|spec| comes(spec, &mut weighed));
        }
    }
    weighed
}

fn comes(spec: &AuthorizationPolicySpec, weighed: &mut Weighed) {
    match spec.action {
        Action::Allow => {
            weighed.closes.push("what no ALLOW rule matches".to_owned());
            let rules = (0..spec.rules.len()).map(|n| format!("what ALLOW rules[{n}] matches"));
            weighed.opens.extend(rules);
        }
        Action::Deny => weighed.closes.extend((0..spec.rules.len()).map(|n| format!("what DENY rules[{n}] matches"))),
        Action::Audit => {}
    }
}

fn goes(spec: &AuthorizationPolicySpec, weighed: &mut Weighed) {
    match spec.action {
        Action::Allow => {
            let rules = (0..spec.rules.len()).map(|n| format!("what ALLOW rules[{n}] matched"));
            weighed.closes.extend(rules);
            weighed.opens.push(
                "what this ALLOW policy kept out, unless another covers the target or the posture is deny".to_owned(),
            );
        }
        Action::Deny => weighed.opens.extend((0..spec.rules.len()).map(|n| format!("what DENY rules[{n}] matched"))),
        Action::Audit => {}
    }
}

/// Of two versions with one action and one target.
fn changed(before: &AuthorizationPolicySpec, after: &AuthorizationPolicySpec, weighed: &mut Weighed) {
    let (word, opens_with_more) = match after.action {
        Action::Allow => ("ALLOW", true),
        Action::Deny => ("DENY", false),
        Action::Audit => return,
    };
    let mut say = |growth: Growth, what: String| {
        let Growth { more, less } = if opens_with_more { growth } else { growth.reversed() };
        if more {
            weighed.opens.push(what.clone());
        }
        if less {
            weighed.closes.push(what);
        }
    };
    for n in 0..before.rules.len().max(after.rules.len()) {
        let [old, new] = [before, after].map(|spec| spec.rules.get(n).and_then(|rule| serde_json::to_value(rule).ok()));
        match (old, new) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => say(of_rule(&old, &new), format!("{word} rules[{n}] is another")),
            (None, Some(_)) => say(Growth { more: true, less: false }, format!("{word} rules[{n}] is new")),
            (Some(_), None) => say(Growth { more: false, less: true }, format!("{word} rules[{n}] is gone")),
            (None, None) => {}
        }
    }
    let end = |spec: &AuthorizationPolicySpec| {
        spec.expires.as_deref().map_or(u64::MAX, |text| unix_seconds(text).unwrap_or_default())
    };
    let (old, new) = (end(before), end(after));
    if old != new {
        say(Growth { more: new > old, less: new < old }, format!("{word} rules match until another moment"));
    }
}

/// A rule matches when one of `from` and one of `to` do; without any, everything does.
fn of_rule(old: &Value, new: &Value) -> Growth {
    ["from", "to"]
        .map(|part| alternatives(&old[part], &new[part], of_part))
        .into_iter()
        .fold(Growth::default(), Growth::and)
}

/// Lists of alternatives, where none stands for all: what is not in both is more or less, unless two in one place compare.
fn alternatives(old: &Value, new: &Value, compare: fn(&Value, &Value) -> Growth) -> Growth {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (old, new) = (list(old), list(new));
    match (old.is_empty(), new.is_empty()) {
        (true, true) => return Growth::default(),
        (true, false) => return Growth { more: false, less: true },
        (false, true) => return Growth { more: true, less: false },
        (false, false) => {}
    }
    if old.len() == new.len() {
        return old.iter().zip(&new).map(|(old, new)| compare(old, new)).fold(Growth::default(), Growth::and);
    }
    Growth { more: new.iter().any(|one| !old.contains(one)), less: old.iter().any(|one| !new.contains(one)) }
}

/// One of `from` or `to`: all of its fields have to match.
fn of_part(old: &Value, new: &Value) -> Growth {
    let none = Map::new();
    let [old, new] = [old, new].map(|part| part.as_object().unwrap_or(&none));
    let fields = old.keys().chain(new.keys());
    fields.map(|field| of_field(field, old.get(field), new.get(field))).fold(Growth::default(), Growth::and)
}

fn of_field(field: &str, old: Option<&Value>, new: Option<&Value>) -> Growth {
    if old == new {
        return Growth::default();
    }
    let (old, new) = (old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null));
    if ALTERNATIVES.contains(&field) {
        return of_values(old, new, true);
    }
    let left_out = field.strip_prefix("not");
    if left_out.is_some_and(|field| ALTERNATIVES.iter().any(|known| known.eq_ignore_ascii_case(field))) {
        return of_values(old, new, false).reversed();
    }
    Growth::UNCERTAIN
}

/// Values of which one has to match; none stands for all where `none_is_all`, else for none.
fn of_values(old: &Value, new: &Value, none_is_all: bool) -> Growth {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (old, new) = (list(old), list(new));
    if none_is_all && (old.is_empty() || new.is_empty()) {
        return Growth { more: new.is_empty() && !old.is_empty(), less: old.is_empty() && !new.is_empty() };
    }
    Growth { more: new.iter().any(|one| !old.contains(one)), less: old.iter().any(|one| !new.contains(one)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn weighed(before: Option<Value>, after: Option<Value>) -> (Vec<String>, Vec<String>) {
        let Weighed { opens, closes } = weigh(before.as_ref(), after.as_ref());
        (opens, closes)
    }

    fn rules(action: &str, rules: Value) -> Option<Value> {
        Some(json!({ "targetRef": { "name": "api" }, "action": action, "rules": rules }))
    }

    #[test]
    fn a_policy_that_comes_or_goes_opens_and_closes_what_its_rules_match() {
        let one = |action: &str| rules(action, json!([{ "from": [{ "namespaces": ["a"] }] }]));
        let (opens, closes) = weighed(None, one("ALLOW"));
        assert_eq!(
            (opens, closes),
            (vec!["what ALLOW rules[0] matches".into()], vec!["what no ALLOW rule matches".into()])
        );
        assert_eq!(weighed(None, one("DENY")), (vec![], vec!["what DENY rules[0] matches".into()]));
        assert_eq!(weighed(one("DENY"), None), (vec!["what DENY rules[0] matched".into()], vec![]));
        assert_eq!(weighed(one("AUDIT"), None), (vec![], vec![]));
        let (opens, closes) = weighed(one("DENY"), one("ALLOW"));
        assert_eq!((opens.len(), closes.len()), (2, 1), "another action is another policy: {opens:?} {closes:?}");
    }

    #[test]
    fn a_rule_that_matches_more_opens_where_it_allows_and_closes_where_it_denies() {
        let from = |names: Value| json!([{ "from": [{ "serviceAccounts": names }] }]);
        let to = |field: &str, values: Value| json!([{ "to": [{ (field): values }] }]);
        let cases = [
            (from(json!(["web"])), from(json!(["web", "cart"])), true, false),
            (from(json!(["web", "cart"])), from(json!(["web"])), false, true),
            (from(json!(["web"])), from(json!(["cart"])), true, true),
            (from(json!(["web"])), json!([{}]), true, false),
            (to("paths", json!(["/a"])), json!([{}]), true, false),
            (json!([{}]), to("notPaths", json!(["/a"])), false, true),
            (to("notPaths", json!(["/a"])), to("notPaths", json!(["/a", "/b"])), false, true),
            (to("ports", json!([80])), to("ports", json!([80, 81])), true, false),
            (
                to("headers", json!([{ "name": "a", "value": "1" }])),
                to("headers", json!([{ "name": "b", "value": "1" }])),
                true,
                true,
            ),
            (json!([{}]), json!([{}, {}]), true, false),
            (json!([{}, {}]), json!([{}]), false, true),
            (
                json!([{ "from": [{ "namespaces": ["a"] }] }]),
                json!([{ "from": [{ "namespaces": ["a"] }, { "namespaces": ["b"] }] }]),
                true,
                false,
            ),
            (json!([{}]), json!([{}]), false, false),
        ];
        for (before, after, more, less) in cases {
            let (opens, closes) = weighed(rules("ALLOW", before.clone()), rules("ALLOW", after.clone()));
            assert_eq!((!opens.is_empty(), !closes.is_empty()), (more, less), "ALLOW {before} {after}");
            let (opens, closes) = weighed(rules("DENY", before.clone()), rules("DENY", after.clone()));
            assert_eq!((!opens.is_empty(), !closes.is_empty()), (less, more), "DENY {before} {after}");
            assert_eq!(weighed(rules("AUDIT", before), rules("AUDIT", after)), (vec![], vec![]));
        }
    }

    #[test]
    fn a_later_end_opens_where_it_allows() {
        let until = |year: u16| {
            let mut document = rules("ALLOW", json!([{}])).unwrap();
            document["expires"] = format!("{year}-01-01T00:00:00Z").into();
            Some(document)
        };
        assert_eq!(weighed(until(2030), until(2031)), (vec!["ALLOW rules match until another moment".into()], vec![]));
        assert_eq!(weighed(rules("ALLOW", json!([{}])), until(2030)).1.len(), 1);
    }
}
