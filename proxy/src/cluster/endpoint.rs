//! One endpoint (upstream host) as one worker sees it: its load, its breaker and its connections.
//!
//! Outlier ejection happens here, in two strengths. The breaker is the user's: it opens by the rules of a
//! `TrafficPolicy` and is asked before every try. Without any policy an endpoint that takes no connection, or only
//! fails, is left alone for a second, and only as long as there are others: guessing must not turn a service away that
//! has nowhere else to go.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use selvedge_policies::{
    attempt::breaker::{Breaker, BreakerState},
    balance::{Load, peak_ewma::Ewma, refusals::Refusals},
    facts::Moment,
};

use crate::{cluster::pool::Pool, config::EndpointConfig, telemetry::EndpointSeen};

/// An endpoint with its live state.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// What the control plane said of it.
    pub config: Arc<EndpointConfig>,
    /// This worker's connections to it.
    pub pool: Rc<Pool>,
    breaker: Option<Breaker>,
    books: Rc<Books>,
}

/// What was seen of an endpoint, whatever is said of it.
#[derive(Debug, Default)]
struct Books {
    in_flight: Cell<u32>,
    latency: Ewma,
    refusals: Refusals,
    failed_in_a_row: Cell<u32>,
    /// Monotonic nanoseconds until which it is thought unreachable.
    unreachable_until: Cell<u64>,
    /// Tries since somebody looked: well, and not.
    tries: [Cell<u64>; 2],
    /// How often the breaker has opened and closed since somebody looked.
    switched: [Cell<u64>; 2],
}

/// How long an endpoint that took no connection, closed it, or only fails is left alone where there are others.
const UNREACHABLE: Duration = Duration::from_secs(1);
/// So many failures in a row are no chance any more.
const ONLY_FAILS: u32 = 5;

impl Endpoint {
    /// An endpoint of which nothing was seen yet.
    pub(crate) fn new(config: Arc<EndpointConfig>) -> Self {
        let breaker = config.traffic.breaker.as_ref().map(Breaker::new);
        Self { config, pool: Rc::default(), breaker, books: Rc::default() }
    }

    /// This endpoint under another `config`: load, latency and breaker stay, and connections where the same is on the
    /// wire.
    #[must_use]
    pub(crate) fn carried(&self, config: Arc<EndpointConfig>) -> Self {
        let pool = if config.transport == self.config.transport { self.pool.clone() } else { Rc::default() };
        let breaker = config.traffic.breaker.as_ref().map(|spec| match &self.breaker {
            Some(breaker) => breaker.carried(spec),
            None => Breaker::new(spec),
        });
        Self { config, pool, breaker, books: self.books.clone() }
    }

    /// What a balancer may know of it at `now`.
    pub(crate) fn load(&self, now: Moment) -> Load {
        Load {
            available: self.breaker.as_ref().is_none_or(|breaker| breaker.peek(now)),
            in_flight: self.books.in_flight.get(),
            ewma_nanos: self.books.latency.value(now),
            usual_nanos: self.books.latency.usual(),
            refusing: self.books.refusals.share(now),
            weight: self.config.weight,
        }
    }

    /// False for a while after it was to be left alone.
    pub(crate) fn reachable(&self, now: Moment) -> bool {
        now.nanos >= self.books.unreachable_until.get()
    }

    /// Notes that it took no connection, closed the one it had, or only fails.
    pub(crate) fn leave_alone(&self, now: Moment) {
        self.books.unreachable_until.set(now.nanos + u64::try_from(UNREACHABLE.as_nanos()).unwrap_or(u64::MAX));
    }

    /// A try begins; true when it is the breaker's probe.
    pub(crate) fn begin(&self, now: Moment) -> bool {
        self.books.in_flight.update(|tries| tries + 1);
        let Some(breaker) = &self.breaker else { return false };
        let half_open = breaker.state(now) == BreakerState::HalfOpen;
        breaker.admit(now) && half_open
    }

    /// Whether an answer with this status is a failure of the endpoint.
    pub(crate) fn is_failure(&self, status: u16) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| breaker.is_failure(status))
    }

    /// A try is over.
    pub(crate) fn end(&self) {
        self.books.in_flight.update(|tries| tries.saturating_sub(1));
    }

    /// A try had no answer in this time.
    pub(crate) fn hung(&self, elapsed: Duration, now: Moment) {
        if self.books.latency.value(now) == 0.0 {
            self.books.latency.assume(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), now);
        } else {
            self.took(elapsed, false, now);
        }
    }

    /// A try took so long. Unless it was `served`, that makes no endpoint look faster, or the load would go to one that fails
    /// or refuses at once.
    pub(crate) fn took(&self, elapsed: Duration, served: bool, now: Moment) {
        let elapsed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let known = self.books.latency.value(now);
        if served || (known > 0.0 && elapsed as f64 > known) {
            self.books.latency.observe(elapsed, now);
        }
    }

    /// A try is over, well or not: one that only fails is left alone, without a breaker too.
    pub(crate) fn fared(&self, well: bool, now: Moment) {
        self.books.tries[usize::from(!well)].update(|tries| tries + 1);
        self.books.failed_in_a_row.update(|failed| if well { 0 } else { failed.saturating_add(1) });
        if self.books.failed_in_a_row.get() >= ONLY_FAILS {
            self.leave_alone(now);
        }
    }

    /// It answered, and whether that was a refusal; for how long it then wants to be left alone.
    pub(crate) fn answered(&self, refused: bool, retry_after: Option<Duration>, now: Moment) {
        self.books.refusals.observe(refused, retry_after, now);
    }

    /// While the breaker is half open only its probe decides, not tries from before it opened.
    pub(crate) fn record(&self, ok: bool, probe: bool, now: Moment, chance: &mut fastrand::Rng) {
        let Some(breaker) = &self.breaker else { return };
        let before = breaker.state(now);
        if probe || before != BreakerState::HalfOpen {
            breaker.record(ok, now, chance);
            match breaker.state(now) {
                after if after == before => {}
                BreakerState::Open => self.books.switched[0].update(|times| times + 1),
                BreakerState::Closed => self.books.switched[1].update(|times| times + 1),
                BreakerState::HalfOpen => {}
            }
        }
    }

    /// A probe ended without a word on how: the breaker lets another one through.
    pub(crate) fn abandon(&self) {
        if let Some(breaker) = &self.breaker {
            breaker.abandon();
        }
    }

    /// The state of its breaker; `None` when it has none.
    pub(crate) fn breaker_state(&self, now: Moment) -> Option<BreakerState> {
        Some(self.breaker.as_ref()?.state(now))
    }

    /// Calls under way to it.
    pub(crate) fn in_flight(&self) -> u64 {
        self.books.in_flight.get().into()
    }

    /// Whether it is the same endpoint, whatever is said of it.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.books, &other.books)
    }

    /// Whether somebody else has it, by whatever was said of it, and may try it yet.
    pub(crate) fn is_in_use(&self) -> bool {
        Rc::strong_count(&self.books) > 1
    }

    /// What metrics say of it. What has added up since the last look is taken: it is told once.
    pub(crate) fn look(&self, now: Moment) -> EndpointSeen {
        let (shared, streams) = self.pool.shared.open();
        EndpointSeen {
            service: self.config.service().into(),
            endpoint: self.config.address,
            breaker: self.breaker_state(now),
            left_alone: !self.reachable(now),
            in_flight: self.in_flight(),
            connections: [shared, self.pool.idle()],
            streams,
            tries: self.books.tries.each_ref().map(Cell::take),
            switched: self.books.switched.each_ref().map(Cell::take),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use selvedge_policies::{
        attempt::breaker::{BreakerSpec, CountStatus},
        testing::Clock,
    };

    use super::*;
    use crate::config::{Traffic, Transport};

    fn endpoint(breaker: BreakerSpec) -> Endpoint {
        let config = EndpointConfig {
            cluster: "shop/web:80".parse().ok(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            transport: Transport::Plain,
            workload: None,
            identity: String::new(),
            weight: 1,
            http2: false,
            traffic: Arc::new(Traffic { breaker: Some(breaker), ..Traffic::default() }),
        };
        Endpoint::new(Arc::new(config))
    }

    /// The endpoint with another weight, limit and breaker said of it.
    fn edited(endpoint: &Endpoint, breaker: Option<BreakerSpec>) -> Endpoint {
        let old = &endpoint.config;
        endpoint.carried(Arc::new(EndpointConfig {
            cluster: old.cluster.clone(),
            transport: old.transport.clone(),
            workload: old.workload.clone(),
            identity: old.identity.clone(),
            weight: 3,
            traffic: Arc::new(Traffic { connect_timeout: Some(Duration::from_secs(9)), breaker, ..Traffic::default() }),
            ..**old
        }))
    }

    #[test]
    fn an_edit_keeps_load_latency_and_breaker() {
        let spec = BreakerSpec { consecutive_failures: 1, ..BreakerSpec::default() };
        let before = endpoint(spec.clone());
        let (clock, mut chance) = (Clock::default(), fastrand::Rng::with_seed(1));
        before.begin(clock.now());
        before.took(Duration::from_millis(900), true, clock.now());
        (0..4).for_each(|_| before.took(Duration::from_millis(7), true, clock.now()));
        before.answered(true, None, clock.now());
        let after = edited(&before, Some(BreakerSpec { consecutive_failures: 4, ..spec }));
        // The try ends at the endpoint that it began with.
        before.record(false, false, clock.now(), &mut chance);
        assert_eq!(after.breaker_state(clock.now()), Some(BreakerState::Open));
        let load = after.load(clock.now());
        assert!(!load.available && load.in_flight == 1 && load.weight == 3, "{load:?}");
        assert!(load.ewma_nanos > 1e6 && load.refusing > 0.0, "{load:?}");
        assert!(Rc::ptr_eq(&before.pool, &after.pool));
        before.end();
        assert_eq!(after.load(clock.now()).in_flight, 0);
        assert_eq!(edited(&after, None).breaker_state(clock.now()), None, "no metric is left of it");
    }

    #[test]
    fn one_that_never_answered_is_not_the_fastest() {
        let (endpoint, clock) = (Endpoint::new(endpoint(BreakerSpec::default()).config), Clock::default());
        assert_eq!(endpoint.load(clock.now()).ewma_nanos, 0.0, "what is new is tried");
        endpoint.hung(Duration::from_secs(15), clock.now());
        assert!(endpoint.load(clock.now()).ewma_nanos >= 15e9, "and not again where it hangs");
    }

    #[test]
    fn failing_at_once_is_not_fast_and_failing_always_is_left_alone() {
        let endpoint = Endpoint::new(endpoint(BreakerSpec::default()).config);
        let mut clock = Clock::default();
        (0..5).for_each(|_| endpoint.took(Duration::from_millis(20), true, clock.now()));
        let before = endpoint.load(clock.now()).ewma_nanos;
        for _ in 1..ONLY_FAILS {
            endpoint.took(Duration::from_micros(500), false, clock.now());
            endpoint.fared(false, clock.now());
        }
        assert!(endpoint.load(clock.now()).ewma_nanos >= before && endpoint.reachable(clock.now()));
        endpoint.fared(false, clock.now());
        assert!(!endpoint.reachable(clock.now()));
        clock.advance(UNREACHABLE);
        assert!(endpoint.reachable(clock.now()), "one is tried again");
        endpoint.fared(true, clock.now());
        endpoint.fared(false, clock.now());
        assert!(endpoint.reachable(clock.now()), "it does not only fail");
    }

    #[test]
    fn only_the_probe_decides_a_half_open_breaker() {
        let endpoint = endpoint(BreakerSpec { consecutive_failures: 1, ..BreakerSpec::default() });
        let (mut clock, mut chance) = (Clock::default(), fastrand::Rng::with_seed(1));
        assert!(!endpoint.begin(clock.now()), "closed: no probe");
        endpoint.record(false, false, clock.now(), &mut chance);
        assert!(!endpoint.load(clock.now()).available);
        clock.advance(Duration::from_secs(5));
        assert!(endpoint.begin(clock.now()), "the probe");
        endpoint.record(true, false, clock.now(), &mut chance);
        assert!(!endpoint.load(clock.now()).available, "a late success does not close it");
        endpoint.record(true, true, clock.now(), &mut chance);
        assert!(endpoint.load(clock.now()).available, "the probe's success does");
    }

    #[test]
    fn the_policy_names_the_statuses_that_are_failures() {
        let endpoint = endpoint(BreakerSpec { count_status: CountStatus::GatewayErrors, ..BreakerSpec::default() });
        assert_eq!((endpoint.is_failure(500), endpoint.is_failure(503)), (false, true));
    }
}
