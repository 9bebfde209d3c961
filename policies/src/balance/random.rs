//! By chance, by weight.

use std::cell::Cell;

use super::{Balancer, Candidates, by_weight};

/// Draws before every endpoint is looked at.
const DRAWS: u32 = 16;

/// An endpoint by chance, each with a probability proportional to its weight.
#[derive(Debug, Default)]
pub struct Random {
    /// The heaviest weight met so far.
    heaviest: Cell<u32>,
}

impl Balancer for Random {
    /// Draws an endpoint and keeps it with probability weight over heaviest weight, so that few loads are read.
    fn pick(&self, candidates: &dyn Candidates, chance: &mut fastrand::Rng) -> Option<usize> {
        let count = candidates.len();
        if count == 0 {
            return None;
        }
        for _ in 0..DRAWS {
            let index = chance.usize(..count);
            let load = candidates.load(index);
            let weight = load.weight.max(1);
            self.heaviest.set(self.heaviest.get().max(weight));
            if load.available && chance.u32(..self.heaviest.get()) < weight {
                return Some(index);
            }
        }
        by_weight(candidates, chance)
    }
}
