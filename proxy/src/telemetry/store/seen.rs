//! What workers have now, as gauges. They are made anew for each look, so that what is gone is shown no more.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use selvedge_policies::attempt::breaker::BreakerState;
use tokio::time::Instant;

use super::family::Family;
use crate::telemetry::{
    Direction, EndpointSeen, SERIES_LIMIT, WorkerSeen,
    metrics::{self, Metric},
    origin::Origin,
};

/// The label `state` of an endpoint, the worst last.
const STATES: [&str; 3] = ["available", "left_alone", "breaker_open"];

/// What all workers have of one service.
#[derive(Default)]
struct Service {
    in_flight: u64,
    connections: [u64; 2],
    streams: u64,
    budget: Option<u64>,
    /// The place in [`STATES`] of each endpoint, as the worker that is worst off sees it.
    endpoints: HashMap<SocketAddr, usize>,
    /// The breakers of those that have one.
    breakers: HashMap<SocketAddr, u8>,
}

/// One family for each gauge of what workers have.
pub(super) fn families<'a>(
    workers: impl Iterator<Item = (&'a WorkerSeen, Duration)>,
    now: Instant,
) -> impl Iterator<Item = Family> {
    let mut services: BTreeMap<&str, Service> = BTreeMap::new();
    let (mut elsewhere, mut limit, mut slowest) = ([0; 2], 0, Duration::ZERO);
    for (seen, lag) in workers {
        seen.endpoints.iter().for_each(|endpoint| services.entry(&endpoint.service).or_default().add(endpoint));
        for (service, left) in &seen.budgets {
            *services.entry(service).or_default().budget.get_or_insert_default() += left;
        }
        elsewhere = [elsewhere[0] + seen.elsewhere[0], elsewhere[1] + seen.elsewhere[1]];
        limit += seen.max_connections;
        slowest = slowest.max(lag);
    }
    let mut shown = Shown::new(now);
    shown.services(&services);
    for direction in [Direction::Inbound, Direction::Outbound] {
        let whom = if direction == Direction::Inbound { "" } else { "passthrough" };
        shown.set(&metrics::IN_FLIGHT, &[direction.as_str(), whom], elsewhere[direction as usize] as f64);
        shown.set(&metrics::TCP_LIMIT, &[direction.as_str()], limit as f64);
    }
    shown.set(&metrics::WORKER_LAG, &[], slowest.as_secs_f64());
    shown.breakers(&services);
    shown.families.into_iter()
}

impl Service {
    fn add(&mut self, endpoint: &EndpointSeen) {
        self.in_flight += endpoint.in_flight;
        self.streams += endpoint.streams;
        for (sum, more) in self.connections.iter_mut().zip(endpoint.connections) {
            *sum += more;
        }
        let state = match endpoint.breaker {
            Some(BreakerState::Open) => 2,
            _ => usize::from(endpoint.left_alone),
        };
        let worst = self.endpoints.entry(endpoint.endpoint).or_default();
        *worst = (*worst).max(state);
        if let Some(state) = endpoint.breaker {
            let worst = self.breakers.entry(endpoint.endpoint).or_default();
            *worst = (*worst).max(breaker_level(state));
        }
    }
}

struct Shown {
    families: Vec<Family>,
    now: Instant,
}

/// Those that are shown here, also when there is none, in the place of what was.
static GAUGES: [&Metric; 8] = [
    &metrics::IN_FLIGHT,
    &metrics::TCP_LIMIT,
    &metrics::WORKER_LAG,
    &metrics::ENDPOINTS,
    &metrics::UPSTREAM_CONNECTIONS,
    &metrics::UPSTREAM_STREAMS,
    &metrics::RETRY_BUDGET,
    &metrics::BREAKER_STATE,
];

impl Shown {
    fn new(now: Instant) -> Self {
        Self { families: GAUGES.iter().map(|metric| Family::new(metric, SERIES_LIMIT)).collect(), now }
    }

    fn set(&mut self, metric: &'static Metric, values: &[&str], value: f64) {
        let values: Vec<Box<str>> = values.iter().map(|value| Box::from(*value)).collect();
        let from = Origin { names: metric.labels, values: &values, now: self.now, records: 1 };
        let known = self.families.iter_mut().find(|family| family.metric.name == metric.name);
        known.into_iter().for_each(|family| family.set(&from, value));
    }

    fn services(&mut self, services: &BTreeMap<&str, Service>) {
        for (name, service) in services {
            let outbound = Direction::Outbound.as_str();
            self.set(&metrics::IN_FLIGHT, &[outbound, name], service.in_flight as f64);
            for (at, state) in STATES.iter().enumerate() {
                let count = service.endpoints.values().filter(|worst| **worst == at).count();
                self.set(&metrics::ENDPOINTS, &[name, state], count as f64);
            }
            for (state, count) in ["shared", "idle"].iter().zip(service.connections) {
                self.set(&metrics::UPSTREAM_CONNECTIONS, &[name, state], count as f64);
            }
            self.set(&metrics::UPSTREAM_STREAMS, &[name], service.streams as f64);
            if let Some(left) = service.budget {
                self.set(&metrics::RETRY_BUDGET, &[name], left as f64);
            }
        }
    }

    /// Shows each breaker as the worker that is worst off sees it. When there are too many the closed ones go first, and the
    /// worst of those left out stands for them.
    fn breakers(&mut self, services: &BTreeMap<&str, Service>) {
        let mut all: Vec<(Reverse<u8>, &str, SocketAddr)> = Vec::new();
        for (name, service) in services {
            all.extend(service.breakers.iter().map(|(endpoint, level)| (Reverse(*level), *name, *endpoint)));
        }
        all.sort_unstable();
        for (Reverse(level), name, endpoint) in all.into_iter().take(SERIES_LIMIT + 1) {
            self.set(&metrics::BREAKER_STATE, &[name, &endpoint.to_string()], f64::from(level));
        }
    }
}

/// A breaker's state as a number.
const fn breaker_level(state: BreakerState) -> u8 {
    match state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    }
}
