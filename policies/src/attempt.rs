//! Decisions made once per try: what a `TrafficPolicy` says, and its parts as small state machines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    advice,
    balance::BalancerSpec,
    duration::Span,
    kind::{self, Kind, Problem},
    policy::{self, Place, PolicyKind, Role},
};

pub mod breaker;
pub mod retry;

/// `spec` of a `TrafficPolicy`: how callers of a service try, wait and choose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "!has(self.targetRef.kind) || !(self.targetRef.kind in ['Workload', 'Mesh'])",
          "message": "a TrafficPolicy is about a Service or an ExternalService" },
        { "rule": "has(self.targetRef.name)",
          "message": "a Service and an ExternalService have a name" },
        { "rule": "!has(self.targetRef.port)",
          "message": "a TrafficPolicy is about all ports of its service: leave the port out" },
    ])
)]
pub struct TrafficPolicySpec {
    /// The service this is about.
    pub target_ref: crate::matching::TargetRef,
    /// Retries; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<retry::RetrySpec>,
    /// Timeouts of requests and tries; none but the one for connecting when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutSpec>,
    /// Breaker of one endpoint after consecutive failures; off when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<breaker::BreakerSpec>,
    /// How an endpoint is chosen; peak EWMA when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancer: Option<BalancerSpec>,
}

/// Timeouts of a request (GEP-1742 words).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "!has(self.backendRequest) || !has(self.request) || duration(self.backendRequest) <= duration(self.request)",
          "message": "backendRequest is longer than the timeout of the whole request" },
    ])
)]
pub struct TimeoutSpec {
    /// From the first byte of the request to the response head, over all tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Span>,
    /// From the start of one try to its response head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Span>,
    /// Making a connection to an endpoint; 1s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Span>,
}

/// What the kind `TrafficPolicy` says of itself to the registry.
pub const KIND: PolicyKind = PolicyKind {
    kind: Kind {
        name: "TrafficPolicy",
        api_version: kind::SELVEDGE,
        summary: "How callers of a service retry, wait, break and balance.",
        schema: || schemars::schema_for!(TrafficPolicySpec),
        check: |document| kind::check(document, check),
        close: |document| kind::close_with(close, document),
    },
    place: Place::Caller,
    role: Role::Tries,
    bind: policy::bind_target,
    explain: policy::no_rules,
    shadows: policy::no_shadows,
    advise: advice::no_advice,
    weigh: policy::no_weight,
};

/// `on` has values when it is left out, so an empty one says something: that only `codes` are retried.
fn close(document: &mut Value) -> Vec<Problem> {
    let Some(retry) = document.get_mut("retry").and_then(Value::as_object_mut) else { return Vec::new() };
    let Some(codes) = retry.get("codes") else { return Vec::new() };
    let problems = kind::blanks(codes, "retry.codes", &[]);
    if !problems.is_empty() {
        retry.remove("codes");
    }
    kind::until_mended(problems, "no further status is retried")
}

/// Every semantic problem of a `TrafficPolicy`.
fn check(spec: &TrafficPolicySpec) -> Vec<Problem> {
    let mut problems = spec.target_ref.caller_problems("TrafficPolicy");
    problems.extend(spec.timeouts.iter().flat_map(check_timeouts));
    problems.extend(spec.retry.iter().flat_map(|retry| retry::check(retry, "retry")));
    problems.extend(spec.breaker.iter().flat_map(|breaker| breaker::check(breaker, "breaker")));
    problems
}

fn check_timeouts(spec: &TimeoutSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let given = [("request", spec.request), ("backendRequest", spec.backend_request), ("connect", spec.connect)];
    for (field, _) in given.iter().filter(|(_, span)| *span == Some(Span::default())) {
        let why = "0s would let nothing succeed: leave it out for no timeout";
        problems.push(Problem::new(format!("timeouts.{field}"), why));
    }
    if let Some((request, backend)) = spec.request.zip(spec.backend_request).filter(|(all, each)| each > all) {
        let why = format!("{backend} is longer than the timeout of the whole request, {request}");
        problems.push(Problem::new("timeouts.backendRequest", why));
    }
    problems
}
