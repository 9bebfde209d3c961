//! One after the other, smooth by weight.

use std::cell::Cell;

use super::{Balancer, Candidates, by_weight};

/// Goes round the endpoints; one with half the heaviest weight is taken every other round, and so on (static stride
/// scheduling), so that few loads are read and no endpoint gets its share in a burst.
#[derive(Debug, Default)]
pub struct RoundRobin {
    turn: Cell<u64>,
    /// The heaviest weight met so far.
    heaviest: Cell<u32>,
}

impl Balancer for RoundRobin {
    fn pick(&self, candidates: &dyn Candidates, chance: &mut fastrand::Rng) -> Option<usize> {
        let count = candidates.len();
        for _ in 0..count.saturating_mul(2) {
            let (index, round) = self.next(count);
            let load = candidates.load(index);
            let weight = load.weight.max(1);
            self.heaviest.set(self.heaviest.get().max(weight));
            if load.available && self.is_due(weight, index, round) {
                return Some(index);
            }
        }
        // Hardly any is available, and what is has little weight. Each such look ends where it began, so the first in turn
        // would always be the same.
        by_weight(candidates, chance)
    }
}

impl RoundRobin {
    /// Whose turn it is, and in which round.
    fn next(&self, count: usize) -> (usize, u64) {
        let (turn, count) = (self.turn.get(), count as u64);
        self.turn.set(turn.wrapping_add(1));
        ((turn % count) as usize, turn / count)
    }

    /// True in `weight` of `heaviest` rounds, evenly spread and not in the same rounds for every endpoint.
    fn is_due(&self, weight: u32, index: usize, round: u64) -> bool {
        let (weight, heaviest) = (u64::from(weight), u64::from(self.heaviest.get()));
        let offset = (index as u64).wrapping_mul(heaviest / 2);
        round.wrapping_mul(weight).wrapping_add(offset) % heaviest >= heaviest - weight
    }
}
