//! What a worker hands over when somebody looks.

use std::time::Duration;

use super::{
    WorkerSeen,
    cardinality::Labels,
    cells::{Histogram, RequestCell},
    metrics::Metric,
};

/// Series that changed, with what was counted.
pub(super) type Series<V> = Vec<(Labels, V)>;

/// What a worker counted since it was last asked; open connections and what else it has as it is now.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// By [`super::metrics::REQUEST`].
    pub(super) requests: Series<RequestCell>,
    /// By [`super::metrics::CONNECTION`].
    pub(super) connections: Series<u64>,
    /// Bytes received and sent, by [`super::metrics::FLOW`].
    pub(super) flows: Series<(u64, u64)>,
    /// What was counted for one metric, by its own labels.
    pub(super) counted: Vec<(&'static Metric, Series<u64>)>,
    /// What was timed for one metric, by its own labels.
    pub(super) timed: Vec<(&'static Metric, Series<Histogram>)>,
    /// By [`super::Direction`].
    pub(super) open: [u64; 2],
    /// What the worker has now.
    pub(super) seen: WorkerSeen,
    /// How long the worker was busy with something else before it answered.
    pub(super) lag: Duration,
    pub(super) log_lines_lost: u64,
    pub(super) log_lines_suppressed: u64,
}
