//! A breaker per endpoint: after consecutive failures nothing is sent for a while, then one probe decides.

use std::{cell::Cell, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::Span, facts::Moment, kind::Problem};

/// `breaker:` of a `TrafficPolicy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BreakerSpec {
    /// Failures in a row that open it.
    #[schemars(range(min = 1))]
    pub consecutive_failures: u32,
    /// How long it stays open the first time; doubles each time the probe fails.
    pub open_for: Span,
    /// The longest it stays open.
    pub max_open: Span,
    /// Which statuses are failures, besides tries without an answer.
    pub count_status: CountStatus,
}

impl Default for BreakerSpec {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            open_for: Span::from_secs(5),
            max_open: Span::from_secs(60),
            count_status: CountStatus::default(),
        }
    }
}

/// Which statuses count as failures of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CountStatus {
    /// 500 to 599.
    #[default]
    #[serde(rename = "5xx")]
    ServerErrors,
    /// 502, 503 and 504.
    #[serde(rename = "gatewayErrors")]
    GatewayErrors,
    /// No status: only tries without an answer count.
    #[serde(rename = "none")]
    None,
}

/// What a breaker does with the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets everything pass.
    Closed,
    /// Lets nothing pass.
    Open,
    /// Lets one probe pass, whose outcome decides.
    HalfOpen,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        failures: u32,
    },
    /// `round` counts how often in a row it opened; once `until` has passed it is half open.
    Open {
        until: u64,
        round: u32,
    },
    Probing {
        round: u32,
    },
}

/// The breaker of one endpoint on one worker.
#[derive(Debug)]
pub struct Breaker {
    failures_to_open: u32,
    open_for: Duration,
    max_open: Duration,
    count_status: CountStatus,
    state: Cell<State>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(spec: &BreakerSpec) -> Self {
        Self {
            failures_to_open: spec.consecutive_failures.max(1),
            open_for: spec.open_for.0,
            max_open: spec.max_open.0,
            count_status: spec.count_status,
            state: Cell::new(State::Closed { failures: 0 }),
        }
    }

    /// The state at `now`.
    pub fn state(&self, now: Moment) -> BreakerState {
        match self.state.get() {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until, .. } if now.nanos < until => BreakerState::Open,
            State::Open { .. } | State::Probing { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether [`Breaker::admit`] would let a try pass.
    pub fn peek(&self, now: Moment) -> bool {
        match self.state.get() {
            State::Closed { .. } => true,
            State::Open { until, .. } => now.nanos >= until,
            State::Probing { .. } => false,
        }
    }

    /// Lets a try pass or not; while half open exactly one. Whoever is let pass must [`Breaker::record`] the outcome
    /// or [`Breaker::abandon`] the try.
    pub fn admit(&self, now: Moment) -> bool {
        let passes = self.peek(now);
        if let (true, State::Open { round, .. }) = (passes, self.state.get()) {
            self.state.set(State::Probing { round });
        }
        passes
    }

    /// Whether an answer with this status is a failure of the endpoint.
    pub fn is_failure(&self, status: u16) -> bool {
        match self.count_status {
            CountStatus::ServerErrors => (500..=599).contains(&status),
            CountStatus::GatewayErrors => (502..=504).contains(&status),
            CountStatus::None => false,
        }
    }

    /// Counts the outcome of a try that was let pass. Late outcomes of tries from before it opened change nothing.
    pub fn record(&self, ok: bool, now: Moment, chance: &mut fastrand::Rng) {
        let next = match (self.state.get(), ok) {
            (State::Open { .. }, _) => return,
            (State::Closed { .. } | State::Probing { .. }, true) => State::Closed { failures: 0 },
            (State::Closed { failures }, false) if failures + 1 < self.failures_to_open => {
                State::Closed { failures: failures + 1 }
            }
            (State::Closed { .. }, false) => self.opened(0, now, chance),
            (State::Probing { round }, false) => self.opened(round.saturating_add(1), now, chance),
        };
        self.state.set(next);
    }

    /// A try that was let pass ended without an outcome (its caller went away): another probe may go.
    pub fn abandon(&self) {
        if let State::Probing { round } = self.state.get() {
            self.state.set(State::Open { until: 0, round });
        }
    }

    /// Open, for a time that doubles with each round, with up to a tenth of jitter so that workers do not probe together.
    fn opened(&self, round: u32, now: Moment, chance: &mut fastrand::Rng) -> State {
        let full = self.open_for.saturating_mul(2u32.saturating_pow(round)).min(self.max_open);
        let jittered = full.mul_f64(0.9 + 0.1 * chance.f64());
        let nanos = u64::try_from(jittered.as_nanos()).unwrap_or(u64::MAX);
        State::Open { until: now.nanos.saturating_add(nanos), round }
    }
}

/// Every semantic problem of `breaker:`.
pub(crate) fn check(spec: &BreakerSpec, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if spec.consecutive_failures == 0 {
        let why = "0 failures would open it at once: expected at least 1";
        problems.push(Problem::new(format!("{path}.consecutiveFailures"), why));
    }
    if spec.open_for.0.is_zero() {
        problems.push(Problem::new(format!("{path}.openFor"), "0s never opens it: expected a time such as 5s"));
    }
    if spec.open_for > spec.max_open {
        let why = format!("{} is longer than maxOpen, {}", spec.open_for, spec.max_open);
        problems.push(Problem::new(format!("{path}.openFor"), why));
    }
    problems
}
