//! Which endpoint gets the try: the contract, and the list.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod least_request;
pub mod peak_ewma;
pub mod random;
pub mod round_robin;

/// What a balancer may know of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// False while its breaker is open or it is draining: it must not be picked.
    pub available: bool,
    /// Requests in flight from this worker.
    pub in_flight: u32,
    /// Peak-sensitive moving average of the response time in nanoseconds, decayed to now.
    pub ewma_nanos: f64,
    /// Relative weight, at least 1.
    pub weight: u32,
}

/// The endpoints to choose from. Reading one load must be cheap; a balancer looks at few of them.
pub trait Candidates {
    /// How many there are.
    fn len(&self) -> usize;
    /// True when there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The load of endpoint `index < len()`.
    fn load(&self, index: usize) -> Load;
}

/// Picks one endpoint. Lives on one worker, so state is plain cells.
pub trait Balancer {
    /// The index of an available endpoint, or `None` when no endpoint is available.
    fn pick(&self, candidates: &dyn Candidates, chance: &mut fastrand::Rng) -> Option<usize>;
}

/// The list: every balancer by the name users write in `balancer:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BalancerSpec {
    /// Power of two choices by peak-EWMA latency times load.
    #[default]
    PeakEwma,
    /// Power of two choices by requests in flight over weight.
    LeastRequest,
    /// One after the other, smooth by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
}

impl BalancerSpec {
    /// A fresh balancer.
    pub fn build(self) -> Box<dyn Balancer> {
        match self {
            Self::PeakEwma => Box::new(peak_ewma::PeakEwma),
            Self::LeastRequest => Box::new(least_request::LeastRequest),
            Self::RoundRobin => Box::new(round_robin::RoundRobin::default()),
            Self::Random => Box::new(random::Random::default()),
        }
    }
}

/// Draws before every endpoint is looked at.
const DRAWS: u32 = 8;

/// Of two different available endpoints by chance, the one with the lower score; looks at all of them only when hardly
/// any is available.
fn two_choices(candidates: &dyn Candidates, chance: &mut fastrand::Rng, score: fn(&Load) -> f64) -> Option<usize> {
    let count = candidates.len();
    let mut kept: Option<(usize, f64)> = None;
    for _ in 0..if count > 1 { DRAWS } else { 0 } {
        let index = chance.usize(..count);
        let load = candidates.load(index);
        match kept {
            _ if !load.available => {}
            None => kept = Some((index, score(&load))),
            Some((other, _)) if other == index => {}
            Some((other, lowest)) => return Some(if score(&load) < lowest { index } else { other }),
        }
    }
    two_of_all(candidates, chance, score)
}

/// The same, over every endpoint.
fn two_of_all(candidates: &dyn Candidates, chance: &mut fastrand::Rng, score: fn(&Load) -> f64) -> Option<usize> {
    let mut sample = [None; 2];
    let available = (0..candidates.len()).filter(|index| candidates.load(*index).available);
    for (seen, index) in available.enumerate() {
        let place = if seen < 2 { seen } else { chance.usize(..=seen) };
        if let Some(slot) = sample.get_mut(place) {
            *slot = Some((index, score(&candidates.load(index))));
        }
    }
    let best = sample.into_iter().flatten().reduce(|a, b| if b.1 < a.1 { b } else { a });
    best.map(|(index, _)| index)
}

/// One of all available endpoints by chance, by weight (a reservoir of one).
fn by_weight(candidates: &dyn Candidates, chance: &mut fastrand::Rng) -> Option<usize> {
    let mut total = 0u64;
    let mut kept = None;
    for index in 0..candidates.len() {
        let load = candidates.load(index);
        let weight = u64::from(load.weight.max(1));
        if load.available {
            total += weight;
            if chance.u64(..total) < weight {
                kept = Some(index);
            }
        }
    }
    kept
}
