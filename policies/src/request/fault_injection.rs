//! `FaultInjection`: calls of a service are delayed and fail on purpose, to see what their callers make of it.
//!
//! Guarantees:
//! - It ends by itself: from the moment it expires nothing happens any more, nor from when it is taken back. Who waits for
//!   it goes on then.
//! - Faults act at the callers' sidecars before the first try. Nothing is sent to the service for a call that fails so, no
//!   breaker counts it, and nothing repeats it.
//! - What is in doubt is spared: a condition that cannot be judged makes no fault.
//! - What is open stays open.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    advice::{Advice, Surroundings},
    context::{Context, Resumed},
    duration::Span,
    facts::{ConnectionFacts, Moment, RequestFacts},
    finding::Code,
    kind::{self, Attached, Kind, Problem},
    matching::{
        TargetRef,
        advise::of_rule,
        operation::{Effect, Operation, OperationMatcher},
        rule::{self, Rule, RuleMatcher, Source},
    },
    policy::{self, Before, Looked, Needs, Phase, Place, PolicyKind, Posture, RequestPolicy, Role},
    timestamp::unix_seconds,
    verdict::{Answer, Verdict},
};

mod abort;

use abort::Abort;

/// `spec` of a `FaultInjection`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "!has(self.targetRef.kind) || !(self.targetRef.kind in ['Workload', 'Mesh'])",
          "message": "a FaultInjection is about a Service or an ExternalService" },
        { "rule": "has(self.targetRef.name)",
          "message": "a Service and an ExternalService have a name" },
        { "rule": "!has(self.targetRef.port)",
          "message": "a FaultInjection is about all ports of its service: leave the port out" },
    ])
)]
pub struct FaultInjectionSpec {
    /// The service whose callers meet the faults.
    pub target_ref: TargetRef,
    /// When it is over, in RFC 3339.
    pub expires: String,
    /// Each decides by itself; delays add up, and the first that aborts a call says how.
    pub faults: Vec<Fault>,
}

/// What happens to the calls that one of `from` and one of `to` match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    /// Who calls; anyone when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Source>,
    /// What is called; anything when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Operation>,
    /// A share of them waits before it goes on, or fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// A share of them fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// A wait that a share of the calls meets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delay {
    /// How many of a hundred calls wait.
    #[schemars(range(min = 0, max = 100))]
    pub percentage: f64,
    /// How long each of them waits; more than 0, and 5 minutes at most.
    pub duration: Span,
}

/// What the kind `FaultInjection` says of itself to the registry.
pub const KIND: PolicyKind = PolicyKind {
    kind: Kind {
        name: "FaultInjection",
        api_version: kind::SELVEDGE,
        summary: "Delays and failures on purpose, for a share of the calls of a service and until a moment.",
        schema: || schemars::schema_for!(FaultInjectionSpec),
        check: |document| kind::check(document, check),
        close: |document| kind::close_with(close, document),
    },
    place: Place::Caller,
    role: Role::Decides(Phase::Fault, compile),
    bind: policy::bind_target,
    explain,
    shadows: policy::no_shadows,
    weigh: policy::no_weight,
    advise,
};

/// The longest that faults hold a call up: longer than any caller waits, and it is held here all the time.
const LONGEST: Span = Span::from_secs(300);

/// All faults of one service.
struct Faults(Vec<CompiledFault>);

struct CompiledFault {
    spec: Fault,
    rule: RuleMatcher,
    delay: Option<Chance<Duration>>,
    abort: Option<Chance<Answer>>,
}

/// Something that happens to so many of a hundred.
struct Chance<T> {
    percentage: f64,
    what: T,
}

impl RequestPolicy for Faults {
    fn on_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        self.verdict(context, |rule| rule.matches(request, Effect::Allow))
    }

    /// A connection is delayed, or closed, before anything is said on it, and each fault is drawn for it once.
    fn on_connection(&self, connection: &ConnectionFacts<'_>, context: &mut Context) -> Verdict {
        let is_news = |rule: &RuleMatcher, earlier| !rule.matches_connection(earlier, Effect::Allow);
        self.verdict(context, |rule| {
            rule.matches_connection(connection, Effect::Allow)
                && connection.earlier.is_none_or(|earlier| is_news(rule, earlier))
        })
    }

    fn on_open_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    fn on_open_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    fn needs(&self) -> Needs {
        let server_name = self.0.iter().flat_map(|fault| &fault.rule.to).any(OperationMatcher::is_about_hosts);
        Needs { requests: true, server_name, ..Needs::default() }
    }
}

impl Faults {
    /// First the delays, each until its fault is over at the latest, then whether it fails. Asked again, because the wait is
    /// over or other faults are in force, it draws the same: what is not in force any more is left out.
    fn verdict(&self, context: &mut Context, matches: impl Fn(&RuleMatcher) -> bool) -> Verdict {
        let (now, waited, resumed) = (context.now.unix, context.waited(), context.resumed());
        let mut chance = context.chance.clone();
        let met = || self.0.iter().filter(|fault| matches(&fault.rule));
        let mut delay = Duration::ZERO;
        for fault in met() {
            let drawn = drawn(fault.delay.as_ref(), &mut chance);
            if let Some((time, end)) = drawn.zip(fault.end(context)) {
                let left = LONGEST.0.min(waited + Duration::from_secs(end - now));
                delay = delay.max(left.min(delay + *time));
            }
        }
        let left = delay.saturating_sub(waited);
        if resumed != Some(Resumed::Waited) && !left.is_zero() {
            return Verdict::Wait(left);
        }
        let abort = met().find_map(|fault| {
            let drawn = drawn(fault.abort.as_ref(), &mut chance);
            drawn.filter(|_| fault.end(context).is_some())
        });
        context.chance = chance;
        abort.map_or(Verdict::Continue, |answer| Verdict::Answer(answer.clone()))
    }
}

impl CompiledFault {
    /// The second of Unix time in which it will be over, as it is in force now; `None` when it is over, or was taken back.
    fn end(&self, context: &Context) -> Option<u64> {
        let end = match context.replacement::<Faults>() {
            None => self.rule.expires,
            Some(others) => others?.0.iter().filter(|other| other.is(self)).map(|other| other.rule.expires).max()?,
        };
        (context.now.unix < end).then_some(end)
    }

    /// Whether it was made of the same fault of the same object.
    fn is(&self, other: &Self) -> bool {
        self.rule.policy == other.rule.policy && self.spec == other.spec
    }
}

impl Delay {
    fn problem(&self) -> Option<String> {
        match self.duration {
            none if none.0.is_zero() => Some("0s is no delay: expected one such as 2s".to_owned()),
            long if long > LONGEST => Some(format!("{long} is too long: expected {LONGEST} at most")),
            _ => None,
        }
    }
}

/// What is odd in the conditions of faults, and that none of them happens any more.
fn advise(document: &Attached<Value>, around: &Surroundings<'_>) -> Vec<Advice> {
    let Ok(policies) = kind::parse_all::<FaultInjectionSpec>(std::slice::from_ref(document), close) else {
        return Vec::new();
    };
    let mut advice = Vec::new();
    for policy in &policies {
        if unix_seconds(&policy.spec.expires).is_ok_and(|expires| expires <= around.now) {
            let message =
                "this has expired, so no fault happens any more: expected a later moment, or the object removed";
            advice.push(Advice::new(Code::Expired, "expires", message));
        }
        for (n, fault) in policy.spec.faults.iter().enumerate() {
            advice.extend(of_rule(&fault.rule(), &policy.name, &format!("faults[{n}]"), "nothing happens", around));
        }
    }
    advice
}

fn drawn<'a, T>(chance: Option<&'a Chance<T>>, random: &mut fastrand::Rng) -> Option<&'a T> {
    let chance = chance?;
    (random.f64() * 100.0 < chance.percentage).then_some(&chance.what)
}

impl Fault {
    fn rule(&self) -> Rule {
        Rule { from: self.from.clone(), to: self.to.clone() }
    }

    fn compile(&self, name: &Arc<str>, expires: u64, path: &str, problems: &mut Vec<Problem>) -> CompiledFault {
        if self.delay.is_none() && self.abort.is_none() {
            problems.push(Problem::new(path, "nothing happens: expected 'delay', 'abort' or both"));
        }
        if let Some(why) = self.delay.as_ref().and_then(|delay| delay.problem()) {
            problems.push(Problem::new(format!("{path}.delay.duration"), why));
        }
        let answer = |abort: &Abort| Some((abort.percentage, abort.answer(name, &format!("{path}.abort"), problems)?));
        let abort = self.abort.as_ref().and_then(answer);
        CompiledFault {
            spec: self.clone(),
            rule: RuleMatcher::new(&self.rule(), name, expires, path, problems),
            delay: self.delay.as_ref().map(|delay| Chance { percentage: delay.percentage, what: delay.duration.0 }),
            abort: abort.map(|(percentage, what)| Chance { percentage, what }),
        }
    }
}

fn compile(
    documents: &[Attached<Value>],
    _: Posture,
    _: Option<&Before>,
) -> Result<Option<Box<dyn RequestPolicy>>, Vec<Problem>> {
    let (mut faults, mut problems) = (Vec::new(), Vec::new());
    for policy in &kind::parse_all::<FaultInjectionSpec>(documents, close)? {
        let (compiled, found) = faults_of(&policy.spec, &policy.name);
        faults.extend(compiled);
        problems.extend(kind::of(policy, found));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(if faults.is_empty() { None } else { Some(Box::new(Faults(faults))) })
}

/// Compiles the faults of one object, and says what is wrong with them.
fn faults_of(spec: &FaultInjectionSpec, name: &Arc<str>) -> (Vec<CompiledFault>, Vec<Problem>) {
    let mut problems = Vec::new();
    let expires = unix_seconds(&spec.expires).unwrap_or_else(|why| {
        problems.push(Problem::new("expires", why));
        0
    });
    let faults = spec.faults.iter().enumerate();
    let faults = faults.map(|(n, fault)| fault.compile(name, expires, &format!("faults[{n}]"), &mut problems));
    (faults.collect(), problems)
}

/// A fault with what is written and empty happens to nobody.
fn close(document: &mut Value) -> Vec<Problem> {
    let Some(faults) = document.get_mut("faults").and_then(Value::as_array_mut) else { return Vec::new() };
    if faults.is_empty() {
        let why = "a FaultInjection without faults does nothing: write one, or remove the object";
        return vec![Problem::new("faults", why)];
    }
    let mut problems = Vec::new();
    let mut number = 0;
    faults.retain(|fault| {
        let found = kind::blanks(fault, &format!("faults[{number}]"), &["from", "to"]);
        let is_sound = found.is_empty();
        problems.extend(found);
        number += 1;
        is_sound
    });
    kind::until_mended(problems, "this fault happens to nobody")
}

/// Which faults may happen to a request, whatever chance says.
fn explain(document: &Attached<Value>, request: &RequestFacts<'_>, now: Moment) -> Vec<Looked> {
    let policies = kind::parse_all::<FaultInjectionSpec>(std::slice::from_ref(document), close).unwrap_or_default();
    let looked = policies.iter().flat_map(|policy| {
        let is_over = unix_seconds(&policy.spec.expires).is_ok_and(|expires| now.unix >= expires);
        policy.spec.faults.iter().enumerate().map(move |(n, fault)| {
            let at = format!("faults[{n}]");
            let fails = rule::failing(&fault.rule(), &policy.name, &at, request, Effect::Allow);
            Looked { at, fails: is_over.then(|| "expires".to_owned()).or(fails) }
        })
    });
    looked.collect()
}

/// Every semantic problem of a `FaultInjection`.
fn check(spec: &FaultInjectionSpec) -> Vec<Problem> {
    let mut problems = spec.target_ref.caller_problems(KIND.kind.name);
    problems.extend(faults_of(spec, &"default/unnamed".into()).1);
    problems
}
