//! `RateLimit`: how many requests a caller may make. GCRA with governor, in memory that hostile callers cannot grow.
//!
//! A limit without key counts all requests together. A keyed limit keeps one bucket for each key in a table of fixed
//! size; when it is full of active keys, further keys share one bucket, so a flood of invented keys is limited like one
//! caller and nobody else loses a bucket.
//!
//! A limit keeps its buckets for as long as it stands in its object as it is, whatever changes around it.

use std::{any::Any, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{Quota, RateLimiter, middleware::NoOpMiddleware, nanos::Nanos};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    advice::{Advice, Surroundings},
    context::Context,
    duration::Span,
    facts::{ConnectionFacts, Moment, RequestFacts},
    kind::{self, Attached, Kind, Problem},
    matching::{
        TargetRef,
        advise::of_operations,
        operation::{Effect, Operation, OperationMatcher, matches_one},
    },
    policy::{self, Before, Looked, Needs, OnUnsupported, Phase, Place, PolicyKind, Posture, RequestPolicy, Role},
    reason::Reason,
    verdict::{Answer, Verdict},
};

mod key;
mod table;

use key::KeyReader;
use table::{KeyTable, ToldClock};

/// `spec` of a `RateLimit`.
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
pub struct RateLimitSpec {
    /// The called service or workload, or the mesh; every workload of the namespace when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// A request must be within each of them.
    pub limits: Vec<Limit>,
    /// What holds at sidecars that are too old to enforce this; it is left out there when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unsupported: Option<OnUnsupported>,
}

/// One token bucket, or one for each key: `requests` in each `per`, and `burst` at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// Requests allowed in each `per`.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// The time in which `requests` are allowed.
    pub per: Span,
    /// How many may come at once after a pause; `requests` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// What is counted apart; all requests are counted together when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<Key>,
    /// Only requests that match one of these; all when empty.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Operation>,
}

/// What tells the buckets of a limit apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Key {
    /// The caller's identity; callers without one share a bucket.
    Identity,
    /// The route rule of the request.
    Route,
    /// The caller's network address.
    Address,
    /// The value of the header of this name; requests without it share a bucket.
    Header(String),
}

/// What the kind `RateLimit` says of itself to the registry.
pub const KIND: PolicyKind = PolicyKind {
    kind: Kind {
        name: "RateLimit",
        api_version: kind::SELVEDGE,
        summary: "How many requests may be made, for each identity, route, address or header value.",
        schema: || schemars::schema_for!(RateLimitSpec),
        check: |document| kind::check(document, check),
        close: |document| kind::close_with(close, document),
    },
    place: Place::Called,
    role: Role::Decides(Phase::Limit, compile),
    bind: policy::bind_target,
    explain,
    shadows: policy::no_shadows,
    weigh: policy::no_weight,
    advise,
};

/// All rate limits of one target.
struct RateLimits {
    limits: Vec<Arc<CompiledLimit>>,
}

struct CompiledLimit {
    policy: Arc<str>,
    spec: Limit,
    matches: Vec<OperationMatcher>,
    key: KeyReader,
    clock: ToldClock,
    limiter: RateLimiter<u64, KeyTable, ToldClock, NoOpMiddleware<Nanos>>,
}

impl RequestPolicy for RateLimits {
    fn on_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        self.verdict(|limit| {
            let counts = matches_one(&limit.matches, |operation| operation.matches(request, Effect::Deny));
            if counts { limit.take(limit.key.of_request(request), context.now) } else { Ok(()) }
        })
    }

    /// One connection counts as one request, in each bucket once; limits on what it does not say let it pass.
    fn on_connection(&self, connection: &ConnectionFacts<'_>, context: &mut Context) -> Verdict {
        self.verdict(|limit| match limit.bucket(connection) {
            Some(key) if connection.earlier.and_then(|earlier| limit.bucket(earlier)) != Some(key) => {
                limit.take(key, context.now)
            }
            _ => Ok(()),
        })
    }

    /// A tunnel was counted when it was asked for, whatever the limits are by now.
    fn on_open_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    /// It was counted when it came.
    fn on_open_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    fn needs(&self) -> Needs {
        let is = |about: fn(&OperationMatcher) -> bool| self.limits.iter().flat_map(|limit| &limit.matches).any(about);
        let (paths, server_name) = (is(OperationMatcher::is_about_paths), is(OperationMatcher::is_about_hosts));
        Needs { requests: true, paths, server_name, ..Needs::default() }
    }

    fn afresh(&self) -> Option<Arc<dyn RequestPolicy>> {
        let anew = |limit: &Arc<CompiledLimit>| CompiledLimit::new(&limit.spec, &limit.policy, "", &mut Vec::new());
        Some(Arc::new(Self { limits: self.limits.iter().filter_map(anew).map(Arc::new).collect() }))
    }
}

impl RateLimits {
    /// The first limit that is exceeded decides.
    fn verdict(&self, take: impl Fn(&CompiledLimit) -> Result<(), Duration>) -> Verdict {
        for limit in &self.limits {
            if let Err(wait) = take(limit) {
                let answer = Answer::refuse(Reason::RateLimited, limit.policy.clone());
                return Verdict::Answer(answer.retry_after(whole_seconds(wait)));
            }
        }
        Verdict::Continue
    }
}

impl CompiledLimit {
    fn new(spec: &Limit, policy: &Arc<str>, path: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let matches = OperationMatcher::all(&spec.matches, &format!("{path}.match"), problems);
        let key = KeyReader::new(&spec.key, &format!("{path}.key"), problems);
        let quota = quota(spec, path, problems)?;
        let clock = ToldClock::default();
        let table = if spec.key.is_empty() { KeyTable::single(&clock) } else { KeyTable::keyed(&clock) };
        let limiter = RateLimiter::new(quota, table, clock.clone());
        Some(Self { policy: policy.clone(), spec: spec.clone(), matches, key, clock, limiter })
    }

    /// Whether it was made of `spec` in the object `policy`.
    fn is(&self, spec: &Limit, policy: &Arc<str>) -> bool {
        self.policy == *policy && self.spec == *spec
    }

    /// The key of the bucket that counts a connection, if one does.
    fn bucket(&self, connection: &ConnectionFacts<'_>) -> Option<u64> {
        let counts = matches_one(&self.matches, |operation| operation.matches_connection(connection, Effect::Allow));
        counts.then(|| self.key.of_connection(connection))
    }

    /// Takes one request from the bucket of `key`, or says how long to wait for one.
    fn take(&self, key: u64, now: Moment) -> Result<(), Duration> {
        let now = self.clock.tell(now);
        self.limiter.check_key(&key).map_err(|until| until.wait_time_from(now))
    }
}

/// The longest time a bucket may need to fill, which bounds `requests`, `per` and `burst` against each other.
const LONGEST_FILL: Duration = Duration::from_secs(366 * 86_400);

fn quota(spec: &Limit, path: &str, problems: &mut Vec<Problem>) -> Option<Quota> {
    let mut wrong = |field: &str, why: String| problems.push(Problem::new(format!("{path}.{field}"), why));
    let requests = NonZeroU32::new(spec.requests);
    let burst = NonZeroU32::new(spec.burst.unwrap_or(spec.requests.max(1)));
    if requests.is_none() {
        wrong("requests", "0 requests would refuse everything: use an AuthorizationPolicy for that".into());
    }
    if burst.is_none() {
        wrong("burst", "a burst of 0 would refuse everything: expected at least 1".into());
    }
    if spec.per.0.is_zero() {
        wrong("per", "0s is no time to count in: expected a duration such as 1s".into());
        return None;
    }
    let (requests, burst) = (requests?, burst?);
    let each = spec.per.0 / requests.get();
    if each.is_zero() {
        wrong("requests", format!("more than a request each nanosecond is no limit: {requests} in {}", spec.per));
    } else if each.checked_mul(burst.get()).is_none_or(|fill| fill > LONGEST_FILL) {
        wrong("per", format!("a burst of {burst} would take more than a year to refill"));
        return None;
    }
    Quota::with_period(each).map(|quota| quota.allow_burst(burst))
}

/// Rounds up, because `Retry-After` has whole seconds (RFC 9110 section 10.2.3).
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(Duration::from_secs(1))
}

fn compile(
    documents: &[Attached<Value>],
    _: Posture,
    before: Option<&Before>,
) -> Result<Option<Box<dyn RequestPolicy>>, Vec<Problem>> {
    let policies = kind::parse_all::<RateLimitSpec>(documents, close)?;
    let (mut limits, mut problems) = (Vec::new(), Vec::new());
    let before = before.and_then(|before| (before as &dyn Any).downcast_ref::<RateLimits>());
    let mut before = before.map(|before| before.limits.clone()).unwrap_or_default();
    for policy in &policies {
        let (compiled, found) = limits_of(&policy.spec, &policy.name, &mut before);
        limits.extend(compiled);
        problems.extend(kind::of(policy, found));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(if limits.is_empty() { None } else { Some(Box::new(RateLimits { limits })) })
}

/// The limits of one object: each is taken from those `before` where it is among them.
fn limits_of(
    spec: &RateLimitSpec,
    name: &Arc<str>,
    before: &mut Vec<Arc<CompiledLimit>>,
) -> (Vec<Arc<CompiledLimit>>, Vec<Problem>) {
    let mut problems = Vec::new();
    let limits = spec.limits.iter().enumerate();
    let limits = limits.filter_map(|(n, limit)| match before.iter().position(|old| old.is(limit, name)) {
        Some(at) => Some(before.remove(at)),
        None => CompiledLimit::new(limit, name, &format!("limits[{n}]"), &mut problems).map(Arc::new),
    });
    (limits.collect(), problems)
}

/// Which limits count a request, whether or not it is within them.
fn explain(document: &Attached<Value>, request: &RequestFacts<'_>, _: Moment) -> Vec<Looked> {
    let Ok(policies) = kind::parse_all::<RateLimitSpec>(std::slice::from_ref(document), close) else {
        return Vec::new();
    };
    let limits = policies.iter().flat_map(|policy| policy.spec.limits.iter().enumerate());
    let looked = limits.map(|(n, limit)| {
        let at = format!("limits[{n}]");
        let fails = OperationMatcher::failing(&limit.matches, &format!("{at}.match"), request, Effect::Deny);
        Looked { at, fails }
    });
    looked.collect()
}

/// What is odd in the conditions of limits.
fn advise(document: &Attached<Value>, around: &Surroundings<'_>) -> Vec<Advice> {
    let policies = kind::parse_all::<RateLimitSpec>(std::slice::from_ref(document), close);
    let limits = policies.into_iter().flatten().flat_map(|policy| policy.spec.limits).enumerate();
    let odd = limits.flat_map(|(n, limit)| {
        of_operations(&limit.matches, &format!("limits[{n}].match"), "this counts nothing", around)
    });
    odd.collect()
}

/// A limit with what is written and empty counts every request, all of them together where it is the key.
fn close(document: &mut Value) -> Vec<Problem> {
    let Some(limits) = document.get_mut("limits").and_then(Value::as_array_mut) else { return Vec::new() };
    if limits.is_empty() {
        let why = "a RateLimit without limits limits nothing: write one, or remove the object";
        return vec![Problem::new("limits", why)];
    }
    let mut problems = Vec::new();
    for (n, limit) in limits.iter_mut().enumerate() {
        for field in ["key", "match"] {
            let Some(written) = limit.get(field) else { continue };
            let found = kind::blanks(written, &format!("limits[{n}].{field}"), &["match"]);
            if let (false, Some(limit)) = (found.is_empty(), limit.as_object_mut()) {
                limit.remove(field);
            }
            problems.extend(found);
        }
    }
    kind::until_mended(problems, "this limit counts every request")
}

/// Every semantic problem of a `RateLimit`.
fn check(spec: &RateLimitSpec) -> Vec<Problem> {
    let mut problems = TargetRef::called_problems(spec.target_ref.as_ref());
    problems.extend(limits_of(spec, &"default/unnamed".into(), &mut Vec::new()).1);
    problems
}
