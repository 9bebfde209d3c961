//! What is shown of the results: Markdown tables and a chart, made of medians over the rounds.

use crate::{
    load::Load,
    measure::{Results, Sample},
    peer::Name,
};

mod chart;
mod tables;

pub(crate) use chart::chart;
pub(crate) use tables::tables;

/// Least, median and greatest over the rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// Of these values; `None` when there is none.
    pub(crate) fn new(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Self { least: *values.first()?, median: *values.get(values.len() / 2)?, greatest: *values.last()? })
    }

    /// Of `value` over the samples of `peer` under `load`; `None` when there is none.
    fn of(results: &Results, peer: Name, load: Load, value: impl Fn(&Sample) -> Option<f64>) -> Option<Self> {
        let mine = results.samples.iter().filter(|sample| sample.peer == peer && sample.load == load);
        Self::new(mine.filter_map(value).collect())
    }

    /// CPU time per request; `None` where no proxy is.
    fn cpu(results: &Results, peer: Name, load: Load) -> Option<Self> {
        Self::of(results, peer, load, |sample| Some(sample.cpu_us_per_request).filter(|cpu| *cpu > 0.0))
    }
}

/// The peers that were measured, in the order of the tables.
fn present(results: &Results) -> impl Iterator<Item = Name> {
    Name::ALL.into_iter().filter(|name| results.samples.iter().any(|sample| sample.peer == *name))
}

/// Bytes in the unit of the tables.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
