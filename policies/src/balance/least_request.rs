//! Power of two choices by requests in flight over weight. Whoever refuses is soon done with what it has in flight, which
//! makes it no less busy.

use super::{Balancer, Candidates, Load, refusals, two_choices};

/// Of two endpoints by chance, the one with fewer requests in flight for its weight.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastRequest;

impl Balancer for LeastRequest {
    fn pick(&self, candidates: &dyn Candidates, chance: &mut fastrand::Rng) -> Option<usize> {
        two_choices(candidates, chance, |a, b| requests(a) < requests(b))
    }
}

fn requests(load: &Load) -> f64 {
    refusals::weigh(load.refusing) * (f64::from(load.in_flight) + 1.0) / f64::from(load.weight.max(1))
}
