//! Bytes of connections that are still open, counted as they pass.
//!
//! All connections of a worker with the same labels add to one [`Flow`], which they look up once, when they open. A
//! scrape takes what has come together since the last one, so nothing is counted twice and an idle connection costs
//! nothing.

use std::{cell::Cell, collections::HashMap, rc::Rc, sync::Arc};

use super::{
    cardinality::{self, Labels},
    metrics,
};

/// Bytes from and to callers.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Flow {
    /// Counts bytes that came from the caller.
    pub(crate) fn received(&self, bytes: u64) {
        self.received.update(|sum| sum + bytes);
    }

    /// Counts bytes that went to the caller.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.update(|sum| sum + bytes);
    }

    /// What was counted so far, received first.
    pub(crate) fn total(&self) -> (u64, u64) {
        (self.received.get(), self.sent.get())
    }

    fn take(&self) -> (u64, u64) {
        (self.received.take(), self.sent.take())
    }
}

/// The flows of one worker by labels in the order of [`metrics::FLOW`], as many as there may be series and one for all others.
#[derive(Debug)]
pub(super) struct Flows {
    flows: HashMap<Labels, Rc<Flow>>,
    overflow: Rc<Flow>,
    limit: usize,
}

impl Flows {
    pub(super) fn new(limit: usize) -> Self {
        Self { flows: HashMap::new(), overflow: Rc::default(), limit }
    }

    /// The flow with these labels. When there are too many, those that no open connection has make room.
    pub(super) fn flow(&mut self, labels: &[&str; metrics::FLOW.len()]) -> Rc<Flow> {
        let labels: Labels = Arc::new(labels.map(Box::from));
        if let Some(flow) = self.flows.get(&labels) {
            return flow.clone();
        }
        if self.flows.len() >= self.limit {
            self.flows.retain(|_, flow| Rc::strong_count(flow) > 1 || flow.total() != (0, 0));
        }
        if self.flows.len() >= self.limit {
            return self.overflow.clone();
        }
        self.flows.entry(labels).or_default().clone()
    }

    /// Takes what passed since the last call, of every flow in which something did.
    pub(super) fn drain(&self) -> Vec<(Labels, (u64, u64))> {
        let mut taken: Vec<_> = self.flows.iter().map(|(labels, flow)| (labels.clone(), flow.take())).collect();
        taken.push((cardinality::overflow(metrics::FLOW.len()), self.overflow.take()));
        taken.retain(|(_, bytes)| *bytes != (0, 0));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::cardinality::OVERFLOW;

    fn labels(service: &str) -> [&str; metrics::FLOW.len()] {
        let mut labels = [""; metrics::FLOW.len()];
        labels[0] = service;
        labels
    }

    #[test]
    fn what_passes_is_taken_once_and_connections_that_are_open_keep_their_flow() {
        let mut flows = Flows::new(2);
        let (open, closed) = (flows.flow(&labels("db")), flows.flow(&labels("mail")));
        flows.flow(&labels("db")).received(3);
        open.sent(5);
        closed.sent(1);
        drop(closed);
        flows.flow(&labels("no room")).received(7);
        let mut taken: Vec<_> = flows.drain().into_iter().map(|(labels, bytes)| (labels[0].clone(), bytes)).collect();
        taken.sort();
        assert_eq!(taken, [("db".into(), (3, 5)), ("mail".into(), (0, 1)), (OVERFLOW.into(), (7, 0))]);
        assert!(flows.drain().is_empty(), "bytes were taken twice");
        flows.flow(&labels("room now")).received(2);
        open.received(4);
        let mut taken: Vec<_> = flows.drain().into_iter().map(|(labels, bytes)| (labels[0].clone(), bytes)).collect();
        taken.sort();
        assert_eq!(taken, [("db".into(), (4, 0)), ("room now".into(), (2, 0))]);
    }
}
