//! What a worker hands over when somebody looks.

use super::{
    BreakerSeen, Protocol,
    cardinality::Labels,
    metrics::{self, Histogram},
};

/// What is counted of the requests that share all labels.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RequestCell {
    pub(super) count: u64,
    pub(super) duration: Histogram,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
}

/// What a worker counted since it was last asked; open connections and breakers as they are now.
#[derive(Debug, Default)]
pub(super) struct Delta {
    pub(super) requests: Vec<(Labels<{ metrics::REQUEST.len() }>, RequestCell)>,
    pub(super) connections: Vec<(Labels<{ metrics::CONNECTION.len() }>, u64)>,
    /// Bytes received and sent.
    pub(super) flows: Vec<(Labels<{ metrics::FLOW.len() }>, (u64, u64))>,
    pub(super) audited: Vec<(Labels<{ metrics::DECISION.len() }>, u64)>,
    pub(super) opened: Vec<(Labels<2>, u64)>,
    pub(super) retries: Vec<(Labels<2>, u64)>,
    pub(super) detections: [Histogram; Protocol::ALL.len()],
    /// By [`Direction`].
    pub(super) open: [u64; 2],
    pub(super) breakers: Vec<BreakerSeen>,
    pub(super) log_lines_lost: u64,
}
