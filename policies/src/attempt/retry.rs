//! Whether and when a failed try is repeated. Retries never amplify an outage: a budget bounds their share of the
//! traffic, and requests that may have had an effect are not repeated unless the user says so.

use std::{cell::Cell, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::Span, facts::Moment, kind::Problem};

/// `retry:` of a `TrafficPolicy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetrySpec {
    /// Tries after the first one.
    #[schemars(range(max = 10))]
    pub attempts: u32,
    /// What is retried.
    pub on: Vec<RetryOn>,
    /// Further statuses that are retried.
    pub codes: Vec<u16>,
    /// How long to wait before a retry.
    pub backoff: BackoffSpec,
    /// How many retries there may be in all.
    pub budget: BudgetSpec,
    /// Also retry requests whose method is not idempotent (RFC 9110 section 9.2.2), such as POST.
    pub retry_non_idempotent: bool,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: vec![RetryOn::ConnectFailure, RetryOn::Reset, RetryOn::GatewayErrors],
            codes: Vec::new(),
            backoff: BackoffSpec::default(),
            budget: BudgetSpec::default(),
            retry_non_idempotent: false,
        }
    }
}

/// An outcome that is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RetryOn {
    /// No connection could be made; nothing was sent, so any method is retried.
    #[serde(rename = "connectFailure")]
    ConnectFailure,
    /// The connection ended before a response head.
    #[serde(rename = "reset")]
    Reset,
    /// The per-try timeout passed.
    #[serde(rename = "timeout")]
    Timeout,
    /// Status 502, 503 or 504.
    #[serde(rename = "gatewayErrors")]
    GatewayErrors,
    /// Any status from 500 to 599.
    #[serde(rename = "5xx")]
    ServerErrors,
}

/// `backoff:` of a [`RetrySpec`]: exponential with full jitter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BackoffSpec {
    /// The most to wait before the first retry; doubles with each retry.
    pub base: Span,
    /// The most to wait before any retry.
    pub max: Span,
}

impl Default for BackoffSpec {
    fn default() -> Self {
        Self { base: Span::from_millis(25), max: Span::from_millis(250) }
    }
}

/// `budget:` of a [`RetrySpec`]: how many retries a destination may get, over the last ten seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BudgetSpec {
    /// Retries for each hundred requests.
    #[schemars(range(max = 100))]
    pub percent: u32,
    /// Retries a second that are always allowed, so that little traffic can be retried too.
    pub min_per_second: u32,
}

impl Default for BudgetSpec {
    fn default() -> Self {
        Self { percent: 20, min_per_second: 10 }
    }
}

/// How a try ended that did not succeed, or its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryOutcome {
    /// No connection; nothing was sent.
    ConnectFailed,
    /// The connection or stream ended before a response head.
    Reset,
    /// The peer proved that it did not process the stream (GOAWAY or REFUSED_STREAM, RFC 9113 section 8.7).
    Refused,
    /// The per-try timeout passed.
    Timeout,
    /// A response head with this status.
    Status(u16),
}

/// Retries of streams that were provably not processed, when there is no [`RetrySpec`] or it allows fewer.
const REFUSED_RETRIES: u32 = 2;

/// The compiled `retry:`; the default one retries only what was provably not processed.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    spec: RetrySpec,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { spec: RetrySpec { attempts: 0, ..RetrySpec::default() } }
    }
}

impl RetryPolicy {
    /// Compiles a spec.
    pub fn new(spec: &RetrySpec) -> Self {
        Self { spec: spec.clone() }
    }

    /// Whether the try `attempt_no` (0 is the first) that ended so is followed by another. The budget is asked apart.
    pub fn should_retry(&self, attempt_no: u32, outcome: &TryOutcome, idempotent: bool) -> bool {
        if *outcome == TryOutcome::Refused {
            return attempt_no < self.spec.attempts.max(REFUSED_RETRIES);
        }
        let repeatable = idempotent || self.spec.retry_non_idempotent || *outcome == TryOutcome::ConnectFailed;
        attempt_no < self.spec.attempts && repeatable && self.names(*outcome)
    }

    fn names(&self, outcome: TryOutcome) -> bool {
        let on = |cause| self.spec.on.contains(&cause);
        match outcome {
            TryOutcome::Refused => true,
            TryOutcome::ConnectFailed => on(RetryOn::ConnectFailure),
            TryOutcome::Reset => on(RetryOn::Reset),
            TryOutcome::Timeout => on(RetryOn::Timeout),
            TryOutcome::Status(status) => {
                (matches!(status, 502..=504) && on(RetryOn::GatewayErrors))
                    || (matches!(status, 500..=599) && on(RetryOn::ServerErrors))
                    || self.spec.codes.contains(&status)
            }
        }
    }

    /// How long to wait after the try `attempt_no` (0 is the first): by chance between nothing and a bound that
    /// doubles with each try (full jitter), so that callers do not come back together.
    pub fn backoff(&self, attempt_no: u32, chance: &mut fastrand::Rng) -> Duration {
        let factor = 2u32.saturating_pow(attempt_no);
        let bound = self.spec.backoff.base.0.saturating_mul(factor).min(self.spec.backoff.max.0);
        bound.mul_f64(chance.f64())
    }
}

/// One second of the budget's window.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    requests: u32,
    retries: u32,
}

/// Seconds of the budget's window.
const WINDOW: u64 = 10;

/// How many retries a destination may still get from this worker: at most `percent` of the requests of the last ten
/// seconds, and `min_per_second`.
#[derive(Debug)]
pub struct RetryBudget {
    spec: BudgetSpec,
    seconds: [Cell<Second>; WINDOW as usize],
}

impl RetryBudget {
    /// A fresh budget.
    pub fn new(spec: &BudgetSpec) -> Self {
        Self { spec: spec.clone(), seconds: Default::default() }
    }

    /// Counts one request (not its retries).
    pub fn deposit(&self, now: Moment) {
        let (cell, mut second) = self.second(now);
        second.requests = second.requests.saturating_add(1);
        cell.set(second);
    }

    /// Takes one retry from the budget; false when it is used up.
    pub fn withdraw(&self, now: Moment) -> bool {
        let (requests, retries) = self.window(now);
        let earned = requests * u64::from(self.spec.percent) / 100;
        if retries >= earned + u64::from(self.spec.min_per_second) * WINDOW {
            return false;
        }
        let (cell, mut second) = self.second(now);
        second.retries = second.retries.saturating_add(1);
        cell.set(second);
        true
    }

    /// The cell of the current second and its value, emptied when it is of an older one.
    fn second(&self, now: Moment) -> (&Cell<Second>, Second) {
        let number = now.nanos / 1_000_000_000;
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is below WINDOW")]
        let cell = &self.seconds[(number % WINDOW) as usize];
        let kept = cell.get();
        (cell, if kept.number == number { kept } else { Second { number, ..Second::default() } })
    }

    /// Requests and retries of the window that ends now.
    fn window(&self, now: Moment) -> (u64, u64) {
        let number = now.nanos / 1_000_000_000;
        let current = self.seconds.iter().map(Cell::get).filter(|second| second.number + WINDOW > number);
        current.fold((0, 0), |(requests, retries), second| {
            (requests + u64::from(second.requests), retries + u64::from(second.retries))
        })
    }
}

/// Every semantic problem of `retry:`.
pub(crate) fn check(spec: &RetrySpec, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if spec.attempts > 10 {
        let why = format!("{} retries are too many: at most 10", spec.attempts);
        problems.push(Problem::new(format!("{path}.attempts"), why));
    }
    for (index, code) in spec.codes.iter().enumerate() {
        if !(400..=599).contains(code) {
            let why = format!("{code} is not a status that is retried: expected 400 to 599");
            problems.push(Problem::new(format!("{path}.codes[{index}]"), why));
        }
    }
    if spec.backoff.base > spec.backoff.max {
        let why = format!("{} is longer than max, {}", spec.backoff.base, spec.backoff.max);
        problems.push(Problem::new(format!("{path}.backoff.base"), why));
    }
    if spec.budget.percent > 100 {
        let why = format!("{} is not a percentage: expected 0 to 100", spec.budget.percent);
        problems.push(Problem::new(format!("{path}.budget.percent"), why));
    }
    problems
}
