//! Decisions made once per try: what a `TrafficPolicy` says, and its parts as small state machines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{balance::BalancerSpec, duration::Span};

pub mod breaker;
pub mod retry;

/// `spec` of a `TrafficPolicy`: how callers of a service try, wait and choose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficPolicySpec {
    /// The service this is about.
    pub target_ref: crate::matching::TargetRef,
    /// Retries; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<retry::RetrySpec>,
    /// Timeouts.
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
pub struct TimeoutSpec {
    /// From the first byte of the request to the response head, over all tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Span>,
    /// The same for each try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Span>,
    /// Making a connection to an endpoint; 1s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Span>,
}
