//! Which endpoint gets the try: the contract, and the list.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod least_request;
pub mod peak_ewma;
pub mod random;
pub mod refusals;
pub mod round_robin;

/// What a balancer may know of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// False while its breaker is open or it is draining: it must not be picked.
    pub available: bool,
    /// Requests in flight from this worker.
    pub in_flight: u32,
    /// Peak-sensitive moving average of the response time in nanoseconds, decayed to now; 0 while it is not known.
    pub ewma_nanos: f64,
    /// What a response usually takes, in nanoseconds; a single slow one hardly changes it.
    pub usual_nanos: f64,
    /// How much it refuses of late: 0 for nothing, 1 for everything.
    pub refusing: f64,
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
///
/// ```
/// use selvedge_policies::balance::{BalancerSpec, Candidates, Load};
///
/// struct Endpoints(Vec<Load>);
///
/// impl Candidates for Endpoints {
///     fn len(&self) -> usize {
///         self.0.len()
///     }
///
///     fn load(&self, index: usize) -> Load {
///         self.0[index]
///     }
/// }
///
/// let load = |available, millis: f64| {
///     let nanos = millis * 1e6;
///     Load { available, in_flight: 0, ewma_nanos: nanos, usual_nanos: nanos, refusing: 0.0, weight: 1 }
/// };
/// let endpoints = Endpoints(vec![load(true, 90.0), load(true, 2.0), load(false, 1.0)]);
/// let picked = BalancerSpec::PeakEwma.build().pick(&endpoints, &mut fastrand::Rng::with_seed(7));
/// assert_eq!(picked, Some(1), "the faster of those that are available");
/// ```
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
    /// A balancer of this kind that has picked nothing yet, for one cluster on one worker.
    ///
    /// ```
    /// use selvedge_policies::balance::BalancerSpec;
    ///
    /// let _for_one_cluster = BalancerSpec::RoundRobin.build();
    /// assert_eq!(BalancerSpec::default(), BalancerSpec::PeakEwma);
    /// ```
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

/// Whether the first of two endpoints is to be preferred to the second. Of two neither of which is, chance decides.
type Prefers = fn(&Load, &Load) -> bool;

/// Of two different available endpoints by chance, the preferred one; looks at all of them only when hardly any is
/// available.
fn two_choices(candidates: &dyn Candidates, chance: &mut fastrand::Rng, prefers: Prefers) -> Option<usize> {
    let count = candidates.len();
    let mut kept: Option<(usize, Load)> = None;
    for _ in 0..if count > 1 { DRAWS } else { 0 } {
        let index = chance.usize(..count);
        let load = candidates.load(index);
        match kept {
            _ if !load.available => {}
            None => kept = Some((index, load)),
            Some((other, _)) if other == index => {}
            Some((other, first)) => return Some(if prefers(&load, &first) { index } else { other }),
        }
    }
    two_of_all(candidates, chance, prefers)
}

/// As [`two_choices`], but draws its two from a look at every endpoint (reservoir sampling).
fn two_of_all(candidates: &dyn Candidates, chance: &mut fastrand::Rng, prefers: Prefers) -> Option<usize> {
    let mut sample = [None; 2];
    let available = (0..candidates.len()).filter(|index| candidates.load(*index).available);
    for (seen, index) in available.enumerate() {
        let place = if seen < 2 { seen } else { chance.usize(..=seen) };
        if let Some(slot) = sample.get_mut(place) {
            *slot = Some((index, candidates.load(index)));
        }
    }
    if chance.bool() {
        sample.swap(0, 1); // the first of equals is taken, and endpoints stand in the sample in their order
    }
    let best = sample.into_iter().flatten().reduce(|a, b| if prefers(&b.1, &a.1) { b } else { a });
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{deviation, shares};

    const ALL: [BalancerSpec; 4] =
        [BalancerSpec::PeakEwma, BalancerSpec::LeastRequest, BalancerSpec::RoundRobin, BalancerSpec::Random];

    /// An idle endpoint that takes a millisecond.
    const IDLE: Load =
        Load { available: true, in_flight: 0, ewma_nanos: 1e6, usual_nanos: 1e6, refusing: 0.0, weight: 1 };

    /// Endpoints whose loads can be changed.
    struct Endpoints(RefCell<Vec<Load>>);

    impl Endpoints {
        fn of_weights(weights: &[u32]) -> Self {
            let load = |weight: &u32| Load { weight: *weight, ..IDLE };
            Self(RefCell::new(weights.iter().map(load).collect()))
        }
    }

    impl Candidates for Endpoints {
        fn len(&self) -> usize {
            self.0.borrow().len()
        }

        fn load(&self, index: usize) -> Load {
            self.0.borrow()[index]
        }
    }

    fn chance() -> fastrand::Rng {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        fastrand::Rng::with_seed(seed)
    }

    #[test]
    fn round_robin_and_random_keep_to_the_weights() {
        for (spec, tolerance) in [(BalancerSpec::RoundRobin, 0.002), (BalancerSpec::Random, 0.015)] {
            for weights in [vec![1], vec![1, 1, 1], vec![1, 2, 3, 4], vec![10, 1], vec![100, 1, 1, 50], vec![3; 20]] {
                let (endpoints, balancer, mut chance) = (Endpoints::of_weights(&weights), spec.build(), chance());
                let picks = (0..20_000).map(|_| balancer.pick(&endpoints, &mut chance).unwrap());
                let shares = shares(weights.len(), picks);
                assert!(deviation(&shares, &weights) < tolerance, "{spec:?} {weights:?} gives {shares:?}");
            }
        }
    }

    /// A closed loop in which every endpoint takes the same time: calls in flight come to stand as the weights do.
    #[test]
    fn two_choices_keep_to_the_weights_of_equal_endpoints() {
        for spec in [BalancerSpec::PeakEwma, BalancerSpec::LeastRequest] {
            for weights in [[1, 3], [3, 1], [1, 1], [9, 1]] {
                let (endpoints, balancer, mut chance) = (Endpoints::of_weights(&weights), spec.build(), chance());
                let mut in_flight = std::collections::VecDeque::new();
                let picks = (0..20_000).map(|_| {
                    if in_flight.len() == 40 {
                        let done: usize = in_flight.pop_front().unwrap();
                        endpoints.0.borrow_mut()[done].in_flight -= 1;
                    }
                    let index = balancer.pick(&endpoints, &mut chance).unwrap();
                    endpoints.0.borrow_mut()[index].in_flight += 1;
                    in_flight.push_back(index);
                    index
                });
                let shares = shares(2, picks);
                assert!(deviation(&shares, &weights) < 0.03, "{spec:?} {weights:?} gives {shares:?}");
            }
        }
    }

    #[test]
    fn round_robin_is_smooth() {
        let (endpoints, balancer, mut chance) =
            (Endpoints::of_weights(&[3, 1]), BalancerSpec::RoundRobin.build(), chance());
        let picks: Vec<usize> = (0..40).map(|_| balancer.pick(&endpoints, &mut chance).unwrap()).collect();
        assert!(picks.windows(5).skip(5).all(|five| five.contains(&1)), "{picks:?}");
    }

    #[test]
    fn two_choices_prefer_the_idle_and_the_fast() {
        for (spec, load) in [
            (BalancerSpec::LeastRequest, Load { in_flight: 50, ..IDLE }),
            (BalancerSpec::LeastRequest, Load { refusing: 0.9, ..IDLE }),
            (BalancerSpec::PeakEwma, Load { ewma_nanos: 50e6, in_flight: 1, ..IDLE }),
            (BalancerSpec::PeakEwma, Load { usual_nanos: 3e6, ewma_nanos: 3e6, ..IDLE }),
            (BalancerSpec::PeakEwma, Load { refusing: 0.9, ..IDLE }),
            (BalancerSpec::PeakEwma, Load { refusing: 0.9, ewma_nanos: 0.0, usual_nanos: 0.0, ..IDLE }),
        ] {
            let (endpoints, balancer, mut chance) = (Endpoints::of_weights(&[1, 1, 1, 1]), spec.build(), chance());
            endpoints.0.borrow_mut()[2] = load;
            let picks = shares(4, (0..10_000).map(|_| balancer.pick(&endpoints, &mut chance).unwrap()));
            assert_eq!(picks[2], 0.0, "{spec:?} picked the worst of four");
            assert!(deviation(&picks, &[1, 1, 0, 1]) < 0.02, "{spec:?}: {picks:?}");
        }
    }

    #[test]
    fn an_idle_endpoint_is_found_among_many_that_are_not_available() {
        let busy = Load { in_flight: 9, ..IDLE };
        let mut loads = vec![Load { available: false, ..IDLE }; 1000];
        loads.extend([busy, busy, busy, IDLE]);
        let (endpoints, balancer, mut chance) =
            (Endpoints(RefCell::new(loads)), BalancerSpec::LeastRequest.build(), chance());
        let picks = (0..10_000).filter(|_| balancer.pick(&endpoints, &mut chance) == Some(1003)).count();
        assert!((4_500..5_500).contains(&picks), "two of four hold it half of the time: {picks} of 10000");
    }

    /// Endpoints that nothing tells apart, of which hardly any is available: the heavy one is away, too.
    #[test]
    fn equals_are_picked_alike_where_every_endpoint_is_looked_at() {
        let away = Load { available: false, weight: 100, ..IDLE };
        for spec in ALL {
            for equals in [2, 3, 5] {
                let mut loads = vec![away; 200];
                loads.extend(vec![IDLE; equals]);
                let (endpoints, balancer, mut chance) = (Endpoints(RefCell::new(loads)), spec.build(), chance());
                let picks = (0..10_000).map(|_| balancer.pick(&endpoints, &mut chance).unwrap() - 200);
                let shares = shares(equals, picks);
                assert!(deviation(&shares, &vec![1; equals]) < 0.03, "{spec:?} gives {shares:?}");
            }
        }
    }

    /// A closed loop: each request stays in flight for the time its endpoint takes.
    #[test]
    fn a_slow_endpoint_gets_little() {
        for spec in [BalancerSpec::PeakEwma, BalancerSpec::LeastRequest] {
            let (endpoints, balancer, mut chance) = (Endpoints::of_weights(&[1, 1, 1]), spec.build(), chance());
            let durations = [1u64, 1, 40];
            let mut in_flight: Vec<(u64, usize)> = Vec::new();
            let mut picks = Vec::new();
            for tick in 0..20_000u64 {
                let mut loads = endpoints.0.borrow_mut();
                in_flight.retain(|(end, index)| {
                    let goes_on = *end > tick;
                    if !goes_on {
                        loads[*index].in_flight -= 1;
                        let nanos = durations[*index] as f64 * 1e6;
                        loads[*index] = Load { ewma_nanos: nanos, usual_nanos: nanos, ..loads[*index] };
                    }
                    goes_on
                });
                drop(loads);
                let index = balancer.pick(&endpoints, &mut chance).unwrap();
                endpoints.0.borrow_mut()[index].in_flight += 1;
                in_flight.push((tick + durations[index], index));
                picks.push(index);
            }
            let shares = shares(3, picks);
            assert!(shares[2] < 0.1, "{spec:?} gave the slow one {shares:?}");
        }
    }

    proptest! {
        #[test]
        fn only_available_endpoints_are_picked_and_always_one_if_any(
            loads in prop::collection::vec(
                (prop::bool::weighted(0.3), 0u32..9, 0.0f64..1e9, 0.0f64..1e9, 0.0f64..1.0, 0u32..1000), 0..40),
            seed in any::<u64>(),
        ) {
            let load = |(available, in_flight, ewma_nanos, usual_nanos, refusing, weight)| {
                Load { available, in_flight, ewma_nanos, usual_nanos, refusing, weight }
            };
            let endpoints = Endpoints(RefCell::new(loads.into_iter().map(load).collect()));
            let any = endpoints.0.borrow().iter().any(|load| load.available);
            let mut chance = fastrand::Rng::with_seed(seed);
            for spec in ALL {
                let balancer = spec.build();
                for _ in 0..20 {
                    let picked = balancer.pick(&endpoints, &mut chance);
                    prop_assert_eq!(picked.is_some(), any, "{:?}", spec);
                    prop_assert!(picked.is_none_or(|index| endpoints.load(index).available), "{:?}", spec);
                }
            }
        }
    }
}
