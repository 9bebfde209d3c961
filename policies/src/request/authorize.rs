//! `AuthorizationPolicy`: who may call what.
//!
//! DENY rules decide first. Then, where an ALLOW policy covers the target or the default posture is deny, one ALLOW
//! rule must match. AUDIT rules match as DENY rules do, and only note what those would have refused. What is in doubt is
//! decided against the caller: a condition that cannot be judged never makes an ALLOW rule match and never keeps a DENY
//! rule from matching.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    context::Context,
    facts::{ConnectionFacts, Moment, Peer, RequestFacts},
    kind::{self, Attached, Kind, Problem},
    matching::{
        TargetRef,
        operation::Effect,
        rule::{self, Rule, RuleMatcher},
    },
    policy::{self, Before, Looked, Needs, OnUnsupported, Phase, Place, PolicyKind, Posture, RequestPolicy, Role},
    reason::Reason,
    timestamp::unix_seconds,
    verdict::{Answer, Verdict},
};

mod advise;
mod index;
mod nearest;
mod shadows;
mod weigh;

use index::RuleIndex;

/// `spec` of an `AuthorizationPolicy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "!has(self.targetRef) || !has(self.targetRef.kind) || self.targetRef.kind != 'ExternalService'",
          "message": "this policy is enforced at the called workload: expected Service or Workload" },
        { "rule": "!has(self.targetRef) || (has(self.targetRef.kind) && self.targetRef.kind == 'Mesh') != has(self.targetRef.name)",
          "message": "a Service and a Workload have a name, and the mesh has none" },
    ])
)]
pub struct AuthorizationPolicySpec {
    /// The called service or workload, or the mesh; every workload of the namespace when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// What happens to what the rules match.
    pub action: Action,
    /// The policy matches what one of them matches. Without rules it matches nothing: an ALLOW policy without rules
    /// refuses everything.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// When the rules cease to match, in RFC 3339; never when absent. A target keeps being closed by an expired ALLOW
    /// policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What holds at sidecars that are too old to enforce this. When absent, a DENY refuses all that it is attached to
    /// there, an ALLOW matches nobody, and an AUDIT is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unsupported: Option<OnUnsupported>,
}

/// What happens to a request that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// It may pass, unless a DENY rule matches too.
    Allow,
    /// A request that matches is refused, whatever an ALLOW says.
    Deny,
    /// It is noted that a DENY with the same rules would have refused it; it is not refused.
    Audit,
}

/// What the kind `AuthorizationPolicy` says of itself to the registry.
pub const KIND: PolicyKind = PolicyKind {
    kind: Kind {
        name: "AuthorizationPolicy",
        api_version: kind::SELVEDGE,
        summary: "Who may call what: ALLOW, DENY or AUDIT by identity, path, method, header and port.",
        schema: || schemars::schema_for!(AuthorizationPolicySpec),
        check: |document| kind::check(document, check),
        close,
    },
    place: Place::Called,
    role: Role::Decides(Phase::Authorize, compile),
    bind: policy::bind_target,
    explain,
    shadows: shadows::shadows,
    advise: advise::advise,
    weigh: weigh::weigh,
};

/// What stands in place of a policy where the default posture would have refused.
const AUDITED: &str = "defaultPosture";

/// All authorization policies of one target.
struct Authorize {
    deny: RuleIndex,
    allow: RuleIndex,
    audit: RuleIndex,
    /// Whether a request needs an ALLOW rule to pass.
    closed: bool,
    /// The first ALLOW policy, if there is one.
    covering: Option<Arc<str>>,
    /// What is noted of what passes and a default posture of deny would have refused.
    rehearsed: Option<Arc<str>>,
    /// When ALLOW rules expire, in order.
    expiries: Vec<u64>,
    /// Whether the host is a condition of a rule.
    hosts: bool,
    /// Whether the path is one of a rule that refuses: an AUDIT refuses no path for being ambiguous either.
    paths: bool,
    /// Whether anything is that only a request has.
    requests: bool,
}

impl RequestPolicy for Authorize {
    fn on_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        self.refuses_request(request, context).map_or(Verdict::Continue, Verdict::Answer)
    }

    fn on_connection(&self, connection: &ConnectionFacts<'_>, context: &mut Context) -> Verdict {
        self.refuses_connection(connection, context).map_or(Verdict::Continue, Verdict::Answer)
    }

    fn on_open_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Option<Answer> {
        self.refuses_request(request, context)
    }

    fn on_open_connection(&self, connection: &ConnectionFacts<'_>, context: &mut Context) -> Option<Answer> {
        self.refuses_connection(connection, context)
    }

    fn needs(&self) -> Needs {
        Needs { requests: self.requests, paths: self.paths, server_name: self.hosts, ..Needs::default() }
    }

    fn next_expiry(&self, now: Moment) -> Option<u64> {
        self.expiries.get(self.expiries.partition_point(|expiry| *expiry <= now.unix)).copied()
    }
}

impl Authorize {
    fn refuses_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Option<Answer> {
        let now = context.now;
        if let Some(rule) = self.deny.first_match(request, now) {
            return Some(denied(rule));
        }
        if self.closed && !self.allow.any_match(request, now) {
            let is_operation = |rule: &RuleMatcher| rule.matches_operation(request, Effect::Allow);
            return Some(self.default_denied(now, request.peer, is_operation));
        }
        if !self.audit.is_empty() {
            if request.ambiguous {
                self.audit
                    .about_paths()
                    .inspect(|rule| context.audit(&rule.policy, Some(rule.number), Reason::MalformedPath));
            }
            note(self.audit.first_match(request, now), context);
        }
        self.rehearse(context);
        None
    }

    fn refuses_connection(&self, connection: &ConnectionFacts<'_>, context: &mut Context) -> Option<Answer> {
        let now = context.now;
        if let Some(rule) = self.deny.first_connection_match(connection, now) {
            return Some(denied(rule));
        }
        if self.closed && self.allow.first_connection_match(connection, now).is_none() {
            let is_operation = |rule: &RuleMatcher| rule.matches_bytes(connection, Effect::Allow);
            return Some(self.default_denied(now, connection.peer, is_operation));
        }
        if !self.audit.is_empty() {
            note(self.audit.first_connection_match(connection, now), context);
        }
        self.rehearse(context);
        None
    }
}

impl Authorize {
    fn rehearse(&self, context: &mut Context) {
        if let Some(posture) = &self.rehearsed {
            context.audit(posture, None, Reason::PolicyDefaultDeny);
        }
    }

    fn default_denied(&self, now: Moment, peer: &Peer, is_operation: impl Fn(&RuleMatcher) -> bool) -> Answer {
        let is_caller = |rule: &RuleMatcher| rule.matches_peer(peer, Effect::Allow);
        let why = nearest::why(&self.allow, self.covering.as_deref(), now, is_caller, is_operation);
        Answer::refuse(Reason::PolicyDefaultDeny, Arc::default()).because(why)
    }
}

/// An AUDIT policy is one that would have denied.
fn note(rule: Option<&RuleMatcher>, context: &mut Context) {
    if let Some(rule) = rule {
        context.audit(&rule.policy, Some(rule.number), Reason::PolicyDenied);
    }
}

fn denied(rule: &RuleMatcher) -> Answer {
    Answer::refuse(Reason::PolicyDenied, rule.policy.clone()).by_rule(rule.number)
}

fn compile(
    documents: &[Attached<Value>],
    posture: Posture,
    _: Option<&Before>,
) -> Result<Option<Box<dyn RequestPolicy>>, Vec<Problem>> {
    let policies = kind::parse_all::<AuthorizationPolicySpec>(documents, close)?;
    let mut problems = Vec::new();
    let (mut deny, mut allow) = (RuleIndex::new(Effect::Deny), RuleIndex::new(Effect::Allow));
    let mut audit = RuleIndex::new(Effect::Deny);
    for policy in &policies {
        let index = match policy.spec.action {
            Action::Deny => &mut deny,
            Action::Allow => &mut allow,
            Action::Audit => &mut audit,
        };
        let (rules, found) = rules_of(&policy.spec, &policy.name);
        rules.into_iter().for_each(|rule| index.insert(rule));
        problems.extend(kind::of(policy, found));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let covering = policies.iter().find(|policy| policy.spec.action == Action::Allow).map(|policy| policy.name.clone());
    let closed = posture == Posture::Deny || covering.is_some();
    let rehearsed = (posture == Posture::Audit && !closed).then(|| AUDITED.into());
    if !closed && rehearsed.is_none() && deny.is_empty() && audit.is_empty() {
        return Ok(None);
    }
    let expiries = allow.expiries();
    let [hosts, requests] = [RuleIndex::is_about_hosts, RuleIndex::is_about_requests]
        .map(|is_about| [&deny, &allow, &audit].into_iter().any(is_about));
    let paths = [&deny, &allow].into_iter().any(|rules| rules.about_paths().is_some());
    Ok(Some(Box::new(Authorize { deny, allow, audit, closed, covering, rehearsed, expiries, hosts, paths, requests })))
}

/// Compiles the rules of one policy, and says what is wrong with them.
fn rules_of(spec: &AuthorizationPolicySpec, name: &Arc<str>) -> (Vec<RuleMatcher>, Vec<Problem>) {
    let mut problems = Vec::new();
    let expires = spec.expires.as_deref().map_or(u64::MAX, |text| {
        unix_seconds(text).unwrap_or_else(|why| {
            problems.push(Problem::new("expires", why));
            0
        })
    });
    let rules = (0..).zip(&spec.rules).map(|(number, rule)| {
        let rule = RuleMatcher::new(rule, name, expires, &format!("rules[{number}]"), &mut problems);
        RuleMatcher { number, ..rule }
    });
    (rules.collect(), problems)
}

/// A rule with what is written and empty cannot be judged, so it is decided against the caller: of an ALLOW policy it
/// matches nobody, of a DENY or AUDIT policy everybody. Of an ALLOW policy that says not where or until when it holds, no
/// rule matches.
fn close(document: &mut Value) -> Vec<Problem> {
    let allows = document.get("action").is_some_and(|action| action == "ALLOW");
    let mut problems = close_rules(document, allows);
    let lost = kind::take_nulls(document);
    if let (true, false, Some(fields)) = (allows, lost.is_empty(), document.as_object_mut()) {
        fields.insert("rules".to_owned(), Value::Array(Vec::new()));
    }
    let meaning = if allows { "the policy matches nobody" } else { "it is taken as if it were left out" };
    problems.extend(kind::until_mended(lost, meaning));
    problems
}

fn close_rules(document: &mut Value, allows: bool) -> Vec<Problem> {
    let Some(rules) = document.get_mut("rules").and_then(Value::as_array_mut) else { return Vec::new() };
    let found = rules.iter().enumerate().map(|(n, rule)| kind::blanks(rule, &format!("rules[{n}]"), &["from", "to"]));
    let found: Vec<Vec<Problem>> = found.collect();
    let mut unsound = found.iter().map(|problems| !problems.is_empty());
    rules.retain_mut(|rule| {
        let is_unsound = unsound.next() == Some(true);
        if is_unsound {
            *rule = Value::Object(Map::new());
        }
        !(is_unsound && allows)
    });
    let whom = if allows { "nobody" } else { "everybody" };
    kind::until_mended(found.concat(), &format!("this rule matches {whom}"))
}

/// Which rules apply, whatever the action is, and what fails of the others.
fn explain(document: &Attached<Value>, request: &RequestFacts<'_>, now: Moment) -> Vec<Looked> {
    let Ok(policies) = kind::parse_all::<AuthorizationPolicySpec>(std::slice::from_ref(document), close) else {
        return Vec::new();
    };
    let looked = policies.iter().flat_map(|policy| {
        let effect = if policy.spec.action == Action::Allow { Effect::Allow } else { Effect::Deny };
        let expires = policy.spec.expires.as_deref().and_then(|text| unix_seconds(text).ok());
        let expired = expires.filter(|expires| now.unix >= *expires).map(|_| "expires".to_owned());
        policy.spec.rules.iter().enumerate().map(move |(n, rule)| {
            let at = format!("rules[{n}]");
            let fails = rule::failing(rule, &policy.name, &at, request, effect);
            Looked { at, fails: expired.clone().or(fails) }
        })
    });
    looked.collect()
}

/// Every semantic problem of an `AuthorizationPolicy`.
fn check(spec: &AuthorizationPolicySpec) -> Vec<Problem> {
    let mut problems = TargetRef::called_problems(spec.target_ref.as_ref());
    problems.extend(rules_of(spec, &"default/unnamed".into()).1);
    problems
}
