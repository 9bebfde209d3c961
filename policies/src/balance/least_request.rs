//! Power of two choices by requests in flight over weight.

use super::{Balancer, Candidates, Load, two_choices};

/// Of two endpoints by chance, the one with fewer requests in flight for its weight.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastRequest;

impl Balancer for LeastRequest {
    fn pick(&self, candidates: &dyn Candidates, chance: &mut fastrand::Rng) -> Option<usize> {
        two_choices(candidates, chance, requests)
    }
}

fn requests(load: &Load) -> f64 {
    (f64::from(load.in_flight) + 1.0) / f64::from(load.weight.max(1))
}
