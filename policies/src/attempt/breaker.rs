//! A breaker per endpoint: after consecutive failures nothing is sent for a while, then one probe decides.
//!
//! This is a circuit breaker in the sense of Nygard's "Release It!", and what Envoy calls outlier ejection by
//! consecutive errors; it is not Envoy's circuit breaker, which bounds how much is in flight.
//!
//! - Closed: every try passes, and failures in a row are counted. One success forgets them.
//! - Open: nothing passes. The time doubles with each probe that fails, up to `maxOpen`, less up to a tenth by chance,
//!   so that the workers of a fleet do not probe together.
//! - Half open: one try passes, and its outcome alone decides. A probe that hangs does not keep the endpoint away for
//!   ever: when it had as long as the breaker was open, another may go.
//!
//! What ends while it is open changes nothing, since it began before. There is a breaker for each worker: it learns of
//! a failing endpoint from its own tries, and shares no memory for that. Its state outlives a change of its rules.

use std::{cell::Cell, rc::Rc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::Span, facts::Moment, kind::Problem};

/// `breaker:` of a `TrafficPolicy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "!has(self.openFor) || !has(self.maxOpen) || duration(self.openFor) <= duration(self.maxOpen)",
          "message": "openFor is longer than maxOpen" },
    ])
)]
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
    /// Any status from 500 to 599.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// Every try passes; failures in a row are counted.
    #[default]
    Closed,
    /// No try passes until its time is over.
    Open,
    /// Lets one probe pass at a time; the first outcome decides.
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
    /// A probe is out; once `until` has passed nobody waits for its outcome any longer.
    Probing {
        until: u64,
        round: u32,
    },
}

/// The breaker of one endpoint on one worker.
///
/// ```
/// use selvedge_policies::{
///     attempt::breaker::{Breaker, BreakerSpec, BreakerState},
///     testing::Clock,
/// };
///
/// let spec = BreakerSpec { consecutive_failures: 2, ..BreakerSpec::default() };
/// let (breaker, mut clock, mut chance) = (Breaker::new(&spec), Clock::default(), fastrand::Rng::with_seed(7));
/// for _ in 0..2 {
///     assert!(breaker.admit(clock.now()));
///     breaker.record(false, clock.now(), &mut chance);
/// }
/// assert_eq!(breaker.state(clock.now()), BreakerState::Open);
/// let now = clock.advance(spec.open_for.0);
/// assert!(breaker.admit(now) && !breaker.admit(now), "one probe, and no second beside it");
/// breaker.abandon();
/// assert!(breaker.peek(now) && breaker.admit(now), "a probe without an outcome makes place for another");
/// let breaker = breaker.carried(&spec);
/// breaker.record(!breaker.is_failure(200), now, &mut chance);
/// assert_eq!(breaker.state(now), BreakerState::Closed);
/// ```
#[derive(Debug)]
pub struct Breaker {
    failures_to_open: u32,
    open_for: Duration,
    max_open: Duration,
    count_status: CountStatus,
    /// Shared with the breakers that come after this one.
    state: Rc<Cell<State>>,
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    pub fn new(spec: &BreakerSpec) -> Self {
        Self::with(spec, Rc::new(Cell::new(State::Closed { failures: 0 })))
    }

    /// The breaker under new rules: what this one has seen counts, and so do the tries that it has let pass.
    #[must_use]
    pub fn carried(&self, spec: &BreakerSpec) -> Self {
        Self::with(spec, self.state.clone())
    }

    fn with(spec: &BreakerSpec, state: Rc<Cell<State>>) -> Self {
        Self {
            failures_to_open: spec.consecutive_failures.max(1),
            open_for: spec.open_for.0,
            max_open: spec.max_open.0,
            count_status: spec.count_status,
            state,
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
            State::Open { until, .. } | State::Probing { until, .. } => now.nanos >= until,
        }
    }

    /// Lets a try pass or not; while half open one, and another each time that one had as long as the breaker was open and
    /// has no outcome yet: it may hang, or be meant to last. Whoever is let pass must [`Breaker::record`] the outcome or
    /// [`Breaker::abandon`] the try.
    pub fn admit(&self, now: Moment) -> bool {
        let passes = self.peek(now);
        if let (true, State::Open { round, .. } | State::Probing { round, .. }) = (passes, self.state.get()) {
            self.state.set(State::Probing { until: after(now, self.full(round)), round });
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
            (State::Probing { round, .. }, false) => self.opened(round.saturating_add(1), now, chance),
        };
        self.state.set(next);
    }

    /// A try that was let pass ended without an outcome (its caller went away): another probe may go.
    pub fn abandon(&self) {
        if let State::Probing { round, .. } = self.state.get() {
            self.state.set(State::Open { until: 0, round });
        }
    }

    /// Open, for a time that doubles with each round, with up to a tenth of jitter so that workers do not probe together.
    fn opened(&self, round: u32, now: Moment, chance: &mut fastrand::Rng) -> State {
        State::Open { until: after(now, self.full(round).mul_f64(0.9 + 0.1 * chance.f64())), round }
    }

    fn full(&self, round: u32) -> Duration {
        self.open_for.saturating_mul(2u32.saturating_pow(round)).min(self.max_open)
    }
}

fn after(now: Moment, span: Duration) -> u64 {
    now.nanos.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// Every problem of `breaker:` that the schema does not show.
pub(crate) fn check(spec: &BreakerSpec, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if spec.open_for.0.is_zero() {
        problems.push(Problem::new(format!("{path}.openFor"), "0s never opens it: expected a time such as 5s"));
    }
    if spec.open_for > spec.max_open {
        let why = format!("{} is longer than maxOpen, {}", spec.open_for, spec.max_open);
        problems.push(Problem::new(format!("{path}.openFor"), why));
    }
    problems
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Clock;

    fn fail(breaker: &Breaker, times: u32, clock: &Clock) {
        let mut chance = fastrand::Rng::with_seed(1);
        for _ in 0..times {
            breaker.record(false, clock.now(), &mut chance);
        }
    }

    #[test]
    fn new_rules_do_not_close_it() {
        let (breaker, mut clock) = (Breaker::new(&BreakerSpec::default()), Clock::default());
        fail(&breaker, 5, &clock);
        let carried = breaker.carried(&BreakerSpec { open_for: Span::from_secs(1), ..BreakerSpec::default() });
        assert_eq!(carried.state(clock.now()), BreakerState::Open);
        let now = clock.advance(Duration::from_secs(5));
        assert!(breaker.admit(now), "the probe goes while the old rules are in force");
        assert!(!carried.admit(now));
        breaker.record(true, now, &mut fastrand::Rng::with_seed(1));
        assert_eq!(carried.state(now), BreakerState::Closed);
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let (breaker, clock) = (Breaker::new(&BreakerSpec::default()), Clock::default());
        fail(&breaker, 4, &clock);
        breaker.record(true, clock.now(), &mut fastrand::Rng::with_seed(1));
        fail(&breaker, 4, &clock);
        assert_eq!(breaker.state(clock.now()), BreakerState::Closed);
        fail(&breaker, 1, &clock);
        assert_eq!(breaker.state(clock.now()), BreakerState::Open);
        assert!(!breaker.admit(clock.now()) && !breaker.peek(clock.now()));
    }

    #[test]
    fn one_probe_decides() {
        let (breaker, mut clock) = (Breaker::new(&BreakerSpec::default()), Clock::default());
        let mut chance = fastrand::Rng::with_seed(1);
        fail(&breaker, 5, &clock);
        clock.advance(Duration::from_secs(5));
        assert_eq!(breaker.state(clock.now()), BreakerState::HalfOpen);
        assert!(breaker.peek(clock.now()) && breaker.admit(clock.now()));
        assert!(!breaker.peek(clock.now()) && !breaker.admit(clock.now()));
        breaker.abandon();
        assert!(breaker.admit(clock.now()) && !breaker.admit(clock.now()));
        breaker.record(true, clock.now(), &mut chance);
        assert_eq!(breaker.state(clock.now()), BreakerState::Closed);
        breaker.abandon();
        assert!(breaker.admit(clock.now()) && breaker.admit(clock.now()));
    }

    #[test]
    fn a_probe_that_hangs_is_followed_by_another() {
        let spec = BreakerSpec { max_open: Span::from_secs(15), ..BreakerSpec::default() };
        let (breaker, mut clock) = (Breaker::new(&spec), Clock::default());
        fail(&breaker, 5, &clock);
        for secs in [5, 10, 15, 15] {
            clock.advance(Duration::from_secs(secs));
            assert!(breaker.admit(clock.now()), "the first probe, after {secs} s");
            for _ in 0..3 {
                clock.advance(Duration::from_millis(secs * 1000 - 1));
                assert!(!breaker.peek(clock.now()) && !breaker.admit(clock.now()), "before {secs} s are over");
                clock.advance(Duration::from_millis(1));
                assert!(breaker.peek(clock.now()) && breaker.admit(clock.now()), "after {secs} s without an outcome");
                assert_eq!(breaker.state(clock.now()), BreakerState::HalfOpen);
            }
            fail(&breaker, 1, &clock);
            assert_eq!(breaker.state(clock.now()), BreakerState::Open, "the outcome of one of them decides");
        }
        clock.advance(Duration::from_secs(15));
        assert!(breaker.admit(clock.now()));
        breaker.record(true, clock.now(), &mut fastrand::Rng::with_seed(1));
        assert_eq!(breaker.state(clock.now()), BreakerState::Closed);
    }

    #[test]
    fn failed_probes_double_the_time_up_to_the_longest() {
        let (breaker, mut clock) = (Breaker::new(&BreakerSpec::default()), Clock::default());
        fail(&breaker, 5, &clock);
        for secs in [5, 10, 20, 40, 60, 60] {
            let full = Duration::from_secs(secs);
            clock.advance(full.mul_f64(0.89));
            assert_eq!(breaker.state(clock.now()), BreakerState::Open, "{secs} s are not over");
            clock.advance(full.mul_f64(0.11));
            assert!(breaker.admit(clock.now()), "{secs} s are over");
            fail(&breaker, 1, &clock);
        }
    }

    #[test]
    fn late_failures_do_not_keep_it_open() {
        let (breaker, mut clock) = (Breaker::new(&BreakerSpec::default()), Clock::default());
        fail(&breaker, 5, &clock);
        clock.advance(Duration::from_secs(4));
        fail(&breaker, 5, &clock);
        clock.advance(Duration::from_secs(1));
        assert!(breaker.admit(clock.now()));
    }

    #[test]
    fn statuses_count_as_the_spec_says() {
        for (count_status, failures) in [
            (CountStatus::ServerErrors, vec![500, 502, 503, 504, 599]),
            (CountStatus::GatewayErrors, vec![502, 503, 504]),
            (CountStatus::None, vec![]),
        ] {
            let breaker = Breaker::new(&BreakerSpec { count_status, ..BreakerSpec::default() });
            let found: Vec<u16> =
                [200, 404, 499, 500, 502, 503, 504, 599].into_iter().filter(|code| breaker.is_failure(*code)).collect();
            assert_eq!(found, failures, "{count_status:?}");
        }
    }

    proptest! {
        /// Random walks: never two probes within the time it was open, always one after the longest, and whatever happened
        /// it closes again after successes.
        #[test]
        fn one_probe_passes_at_a_time(steps in prop::collection::vec((0u64..4_000, 0u8..4), 1..200), seed in any::<u64>()) {
            let (breaker, mut clock) = (Breaker::new(&BreakerSpec { consecutive_failures: 2, ..BreakerSpec::default() }), Clock::default());
            let mut chance = fastrand::Rng::with_seed(seed);
            let mut probing = None;
            for (gap, step) in steps {
                let now = clock.advance(Duration::from_millis(gap));
                let before = breaker.state(now);
                match step {
                    0 => {
                        let passed = breaker.admit(now);
                        match before {
                            BreakerState::Closed => prop_assert!(passed),
                            BreakerState::Open => prop_assert!(!passed),
                            BreakerState::HalfOpen => {
                                let out = probing.map(|since: u64| Duration::from_nanos(now.nanos - since));
                                prop_assert!(passed || out.is_some_and(|out| out < Duration::from_secs(60)));
                                prop_assert!(!passed || out.is_none_or(|out| out >= Duration::from_secs(5)));
                                probing = if passed { Some(now.nanos) } else { probing };
                            }
                        }
                    }
                    1 if before == BreakerState::Closed || probing.is_some() => {
                        breaker.record(false, now, &mut chance);
                        probing = None;
                    }
                    2 if before == BreakerState::Closed || probing.is_some() => {
                        breaker.record(true, now, &mut chance);
                        probing = None;
                    }
                    3 => {
                        breaker.abandon();
                        probing = None;
                    }
                    _ => {}
                }
            }
            if probing.is_none() {
                let now = clock.advance(Duration::from_secs(61));
                prop_assert!(breaker.admit(now));
            }
            breaker.record(true, clock.now(), &mut chance);
            prop_assert_eq!(breaker.state(clock.now()), BreakerState::Closed);
        }
    }
}
