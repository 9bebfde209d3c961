//! What is shown of the results: Markdown tables and a chart, made of medians over the rounds.

use selvedge_benches::{placement::Placement, spread::Spread};

use crate::{
    load::Load,
    measure::{Results, Sample},
    peer::Name,
};

mod chart;
mod tables;

pub(crate) use chart::chart;
pub(crate) use tables::tables;

/// The samples of one load in one placement.
#[derive(Clone, Copy)]
struct Cut<'a> {
    results: &'a Results,
    placement: Placement,
    load: Load,
}

impl<'a> Cut<'a> {
    fn samples(self, peer: Name) -> impl Iterator<Item = &'a Sample> {
        let of = move |sample: &&Sample| {
            sample.peer == peer && sample.placement == self.placement && sample.load == self.load
        };
        self.results.samples.iter().filter(of)
    }

    /// Of `value` over the samples of `peer`; `None` when there is none.
    fn spread(self, peer: Name, value: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::new(self.samples(peer).filter_map(value).collect())
    }

    /// CPU time per request; `None` where no proxy is.
    fn cpu(self, peer: Name) -> Option<Spread> {
        self.spread(peer, cpu)
    }

    /// What `of` makes of the `value` of `peer` and that of `base` in the same round; `None` when either is missing.
    fn beside(
        self,
        peer: Name,
        base: Name,
        value: impl Fn(&Sample) -> Option<f64>,
        of: impl Fn(f64, f64) -> f64,
    ) -> Option<Spread> {
        let in_round = |sample: &Sample| {
            let base = self.samples(base).find(|base| base.round == sample.round)?;
            Some(of(value(sample)?, value(base)?))
        };
        self.spread(peer, in_round)
    }

    /// CPU time per request, of that of `base`.
    fn ratio(self, peer: Name, base: Name) -> Option<Spread> {
        self.beside(peer, base, cpu, |cpu, base| cpu / base)
    }
}

fn cpu(sample: &Sample) -> Option<f64> {
    Some(sample.cpu_us_per_request).filter(|cpu| *cpu > 0.0)
}

fn p50(sample: &Sample) -> Option<f64> {
    sample.p50_us.map(|us| us as f64 / 1e3)
}

fn p99(sample: &Sample) -> Option<f64> {
    sample.p99_us.map(|us| us as f64 / 1e3)
}

/// The peers that were measured, in the order of the tables.
fn present(results: &Results) -> impl Iterator<Item = Name> {
    Name::ALL.into_iter().filter(|name| results.samples.iter().any(|sample| sample.peer == *name))
}

/// Bytes in the unit of the tables.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
