//! Whether and when a failed try is repeated. Retries never amplify an outage: a budget bounds their share of the
//! traffic, and requests that may have had an effect are not repeated unless the user says so.
//!
//! Three questions are asked apart, and a retry needs a yes to each:
//!
//! - Is it safe? Idempotent methods (RFC 9110 section 9.2.2) are repeated, and so is what the peer provably never
//!   processed: no connection, GOAWAY or REFUSED_STREAM (RFC 9113 section 8.7). Others wait for `retryNonIdempotent`.
//! - Does the user want it? The outcome is named in `on` or `codes`, and tries are left
//!   ([`RetryPolicy::should_retry`]).
//! - Can the destination bear it? [`RetryBudget`] allows a share of the requests of the last ten seconds, and a few a
//!   second beside that. A limit on tries alone would multiply the load of a service that fails because of its load.
//!
//! Between two tries lies a time by chance between nothing and a bound that doubles ("full jitter"), so that callers
//! who failed together do not come back together. Whether the body can be sent again is not known here.

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
    /// The outcomes of a try after which there is another.
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
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "!has(self.base) || !has(self.max) || duration(self.base) <= duration(self.max)",
          "message": "base is longer than max" },
    ])
)]
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
    /// As [`TryOutcome::Reset`], of the whole connection to another sidecar: that sidecar ended, or the network did.
    Lost,
    /// The peer proved that it did not process the stream (GOAWAY or REFUSED_STREAM, RFC 9113 section 8.7).
    Refused,
    /// The per-try timeout passed.
    Timeout,
    /// A response head with this status.
    Status(u16),
}

/// The compiled `retry:`.
///
/// ```
/// use selvedge_policies::attempt::retry::{RetryPolicy, RetrySpec, TryOutcome};
///
/// let retry = RetryPolicy::new(&RetrySpec::default());
/// assert!(retry.should_retry(0, &TryOutcome::Status(503), true));
/// assert!(!retry.should_retry(0, &TryOutcome::Status(503), false), "a POST may have had an effect");
/// assert!(retry.should_retry(0, &TryOutcome::ConnectFailed, false), "nothing was sent");
/// assert!(!retry.should_retry(2, &TryOutcome::Status(503), true), "two retries by default");
/// assert!(retry.names(&TryOutcome::Status(503)) && !retry.names(&TryOutcome::Status(404)));
/// assert!(retry.backoff(0, &mut fastrand::Rng::with_seed(7)) <= retry.spec().backoff.base.0);
/// ```
///
/// What was provably not processed is repeated without one too, by whoever asks it, and so is what was [`lost`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    spec: RetrySpec,
}

impl RetryPolicy {
    /// The policy of a spec that its check found sound.
    pub fn new(spec: &RetrySpec) -> Self {
        Self { spec: spec.clone() }
    }

    /// What it was compiled from, defaults included.
    pub const fn spec(&self) -> &RetrySpec {
        &self.spec
    }

    /// Whether the try `attempt_no` (0 is the first) that ended so is followed by another. The budget is asked apart.
    pub fn should_retry(&self, attempt_no: u32, outcome: &TryOutcome, idempotent: bool) -> bool {
        let untouched = matches!(outcome, TryOutcome::Refused | TryOutcome::ConnectFailed);
        let repeatable = idempotent || self.spec.retry_non_idempotent || untouched;
        attempt_no < self.spec.attempts && repeatable && self.names(outcome)
    }

    /// Whether the spec has a try that ended so repeated, were any number of tries left and the body and the method no
    /// hindrance.
    pub fn names(&self, outcome: &TryOutcome) -> bool {
        let on = |cause| self.spec.on.contains(&cause);
        match *outcome {
            TryOutcome::Refused => true,
            TryOutcome::ConnectFailed => on(RetryOn::ConnectFailure),
            TryOutcome::Reset | TryOutcome::Lost => on(RetryOn::Reset),
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

/// Whether a try that ended so is followed by another where no policy says anything of retries: with another sidecar ends what
/// is in flight there, which is nobody's choice, and a request whose method is idempotent may be sent twice (RFC 9110 section
/// 9.2.2). How often, and whether there is another endpoint, is asked apart.
///
/// ```
/// use selvedge_policies::attempt::retry::{TryOutcome, lost};
///
/// assert!(lost(&TryOutcome::Lost, true));
/// assert!(!lost(&TryOutcome::Lost, false) && !lost(&TryOutcome::Reset, true));
/// ```
pub fn lost(outcome: &TryOutcome, idempotent: bool) -> bool {
    idempotent && *outcome == TryOutcome::Lost
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
///
/// ```
/// use selvedge_policies::{
///     attempt::retry::{BudgetSpec, RetryBudget},
///     testing::Clock,
/// };
///
/// let now = Clock::default().now();
/// let budget = RetryBudget::new(&BudgetSpec { percent: 20, min_per_second: 0 });
/// for _ in 0..10 {
///     budget.deposit(now);
/// }
/// assert!(budget.withdraw(now) && budget.left(now) == 1 && budget.withdraw(now), "a fifth of ten requests");
/// assert!(!budget.withdraw(now) && budget.left(now) == 0);
/// ```
#[derive(Debug)]
pub struct RetryBudget {
    spec: BudgetSpec,
    seconds: [Cell<Second>; WINDOW as usize],
}

impl RetryBudget {
    /// A budget that has seen no requests, so it allows `min_per_second` only.
    pub fn new(spec: &BudgetSpec) -> Self {
        Self { spec: spec.clone(), seconds: Default::default() }
    }

    /// Counts one request (not its retries).
    pub fn deposit(&self, now: Moment) {
        let (cell, mut second) = self.second(now);
        second.requests = second.requests.saturating_add(1);
        cell.set(second);
    }

    /// How many retries it would allow now.
    pub fn left(&self, now: Moment) -> u64 {
        let (requests, retries) = self.window(now);
        let earned = requests * u64::from(self.spec.percent) / 100;
        (earned + u64::from(self.spec.min_per_second) * WINDOW).saturating_sub(retries)
    }

    /// Takes one retry from the budget; false when it is used up.
    pub fn withdraw(&self, now: Moment) -> bool {
        if self.left(now) == 0 {
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

/// Every problem of `retry:` that the schema does not show.
pub(crate) fn check(spec: &RetrySpec, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
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
    problems
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Clock;

    #[test]
    fn only_what_is_named_and_repeatable_is_retried() {
        use TryOutcome::{ConnectFailed, Lost, Refused, Reset, Status, Timeout};
        let policy = RetryPolicy::new(&RetrySpec { codes: vec![429], ..RetrySpec::default() });
        for (outcome, idempotent, others) in [
            (ConnectFailed, true, true),
            (Reset, true, false),
            (Lost, true, false),
            (Refused, true, true),
            (Timeout, false, false),
            (Status(502), true, false),
            (Status(503), true, false),
            (Status(504), true, false),
            (Status(501), false, false),
            (Status(505), false, false),
            (Status(500), false, false),
            (Status(429), true, false),
            (Status(200), false, false),
        ] {
            assert_eq!(policy.should_retry(0, &outcome, true), idempotent, "{outcome:?}, idempotent");
            assert_eq!(policy.should_retry(0, &outcome, false), others, "{outcome:?}, not idempotent");
            assert!(!policy.should_retry(2, &outcome, true), "{outcome:?}, third try");
        }
        let all = RetrySpec {
            retry_non_idempotent: true,
            on: vec![RetryOn::ServerErrors, RetryOn::Timeout],
            ..RetrySpec::default()
        };
        let all = RetryPolicy::new(&all);
        assert!(all.should_retry(1, &Status(500), false) && all.should_retry(1, &Timeout, false));
        assert!(!all.should_retry(0, &Reset, true));
    }

    #[test]
    fn backoff_has_full_jitter_below_a_bound_that_doubles() {
        let policy = RetryPolicy::new(&RetrySpec::default());
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut chance = fastrand::Rng::with_seed(seed);
        for (attempt_no, bound) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (40, 250)] {
            let bound = Duration::from_millis(bound);
            let waits: Vec<Duration> = (0..1000).map(|_| policy.backoff(attempt_no, &mut chance)).collect();
            assert!(waits.iter().all(|wait| *wait <= bound), "try {attempt_no}");
            let mean = waits.iter().sum::<Duration>() / 1000;
            assert!(mean > bound.mul_f64(0.4) && mean < bound.mul_f64(0.6), "try {attempt_no}: {mean:?} of {bound:?}");
        }
    }

    #[test]
    fn with_everything_failing_the_load_grows_by_the_percentage() {
        let budget = RetryBudget::new(&BudgetSpec { percent: 20, min_per_second: 0 });
        let mut clock = Clock::default();
        let mut retries = 0;
        for _ in 0..60_000 {
            let now = clock.advance(Duration::from_millis(1));
            budget.deposit(now);
            retries += u32::from(budget.withdraw(now));
        }
        assert!((11_000..=12_000).contains(&retries), "{retries} retries of 60000 requests");
    }

    #[test]
    fn little_traffic_may_be_retried_too() {
        let budget = RetryBudget::new(&BudgetSpec { percent: 0, min_per_second: 2 });
        let mut clock = Clock::default();
        let taken = (0..100).filter(|_| budget.withdraw(clock.now())).count();
        assert_eq!(taken, 20);
        clock.advance(Duration::from_secs(10));
        assert!(budget.withdraw(clock.now()));
    }

    proptest! {
        #[test]
        fn the_budget_is_never_exceeded(
            percent in 0u32..=100,
            min_per_second in 0u32..4,
            steps in prop::collection::vec((0u64..900, any::<bool>()), 1..400),
        ) {
            let budget = RetryBudget::new(&BudgetSpec { percent, min_per_second });
            let mut clock = Clock::default();
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            for (gap, is_request) in steps {
                let now = clock.advance(Duration::from_millis(gap));
                let second = now.nanos / 1_000_000_000;
                if is_request {
                    budget.deposit(now);
                    requests.push(second);
                } else if budget.withdraw(now) {
                    retries.push(second);
                    let in_window = |seconds: &[u64]| seconds.iter().filter(|s| **s + WINDOW > second).count() as u64;
                    let most = in_window(&requests) * u64::from(percent) / 100 + u64::from(min_per_second) * WINDOW;
                    prop_assert!(in_window(&retries) <= most);
                }
            }
        }
    }
}
