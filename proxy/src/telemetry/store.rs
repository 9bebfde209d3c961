//! The sum of what all workers counted, kept by the control thread in the form it is shown.

use std::{collections::HashMap, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    Direction, WorkerSeen,
    configured::Configured,
    delta::Delta,
    metrics::{self, Fold, Metric},
    origin::Origin,
};

mod family;
mod seen;

pub(super) use family::{Family, pair};

/// The control thread's end of one worker.
#[derive(Debug)]
pub(super) struct Link {
    ask: mpsc::Sender<Instant>,
    answers: mpsc::Receiver<Delta>,
    asked: bool,
    gone: bool,
    open: [u64; 2],
    seen: WorkerSeen,
    lag: Duration,
    /// When the question was sent that nobody has answered yet.
    waiting: Option<Instant>,
}

impl Link {
    pub(super) fn new(ask: mpsc::Sender<Instant>, answers: mpsc::Receiver<Delta>) -> Self {
        let (seen, lag) = (WorkerSeen::default(), Duration::ZERO);
        Self { ask, answers, asked: false, gone: false, open: [0; 2], seen, lag, waiting: None }
    }

    /// Asks for a delta unless one is already on its way, as from a worker that was too busy last time.
    fn ask(&mut self) {
        let now = Instant::now();
        if !self.asked && self.ask.try_send(now).is_ok() {
            (self.asked, self.waiting) = (true, Some(now));
        }
    }

    /// An answer that came when the call that had asked for it was over already.
    fn late(&mut self) -> Option<Delta> {
        let late = self.answers.try_recv().ok()?;
        Some(self.note(late))
    }

    /// The answer, if it comes before `deadline`. One that comes later, or when nobody waits for it any more, is kept for
    /// the next call.
    async fn answer(&mut self, deadline: Instant) -> Option<Delta> {
        match timeout_at(deadline, self.answers.recv()).await {
            Ok(Some(delta)) => Some(self.note(delta)),
            Ok(None) => {
                self.gone = true;
                None
            }
            Err(_) => None,
        }
    }

    /// Notes what the worker has now; what it counted is left in the delta.
    fn note(&mut self, mut delta: Delta) -> Delta {
        (self.asked, self.waiting) = (false, None);
        self.open = delta.open;
        self.seen = std::mem::take(&mut delta.seen);
        self.lag = self.lag.max(delta.lag);
        delta
    }

    /// The longest time that the worker has let a question wait since the last call, one that waits yet included.
    fn take_lag(&mut self, now: Instant) -> Duration {
        let waiting = self.waiting.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        std::mem::take(&mut self.lag).max(waiting)
    }
}

/// All series that workers feed.
#[derive(Debug)]
pub(super) struct Store {
    joined: mpsc::UnboundedReceiver<Link>,
    workers: Vec<Link>,
    families: Families,
}

impl Store {
    pub(super) fn new(joined: mpsc::UnboundedReceiver<Link>, limit: usize) -> Self {
        let families = metrics::ALL.iter().map(|metric| (metric.name, Family::new(metric, limit)));
        Self { joined, workers: Vec::new(), families: Families(families.collect()) }
    }

    /// Adds what the workers counted since the last call, and shows what is `known` before it happens; waits for them `limit`
    /// in all. Who asked may leave at any moment, and then the rest of this is never run: across an await nothing is missing
    /// from `self`.
    pub(super) async fn collect(&mut self, limit: Duration, known: &Configured) {
        while let Ok(link) = self.joined.try_recv() {
            self.workers.push(link);
        }
        let now = Instant::now();
        for worker in &mut self.workers {
            if let Some(delta) = worker.late() {
                self.families.add(&delta, now);
            }
            worker.ask();
        }
        for worker in &mut self.workers {
            if let Some(delta) = worker.answer(now + limit).await {
                self.families.add(&delta, now);
            }
        }
        self.workers.retain(|worker| !worker.gone);
        self.families.bear(known, now);
        self.families.set_open(&self.workers, now);
        let later = Instant::now();
        let lags: Vec<Duration> = self.workers.iter_mut().map(|worker| worker.take_lag(later)).collect();
        for family in seen::families(self.workers.iter().map(|worker| &worker.seen).zip(lags), now) {
            self.families.0.insert(family.metric.name, family);
        }
        self.families.bear_endpoints(&self.workers, now);
        self.families.set_overflows(now);
    }

    /// The families that have series, in the order of the documentation.
    pub(super) fn families(&self) -> impl Iterator<Item = &Family> {
        let ours = metrics::ALL.iter().filter_map(|metric| self.families.0.get(metric.name));
        ours.filter(|family| !family.shown.get_metric().is_empty())
    }
}

/// By the name of the metric.
#[derive(Debug)]
struct Families(HashMap<&'static str, Family>);

impl Families {
    fn family(&mut self, metric: &'static Metric) -> &mut Family {
        self.0.entry(metric.name).or_insert_with(|| Family::new(metric, super::SERIES_LIMIT))
    }

    fn add(&mut self, delta: &Delta, now: Instant) {
        for metric in metrics::ALL {
            metric.folds.iter().for_each(|fold| self.fold(metric, fold, delta, now));
        }
        for (metric, series) in &delta.counted {
            for (values, count) in series {
                self.family(metric).count(&Origin { names: metric.labels, values, now, records: *count }, *count);
            }
        }
        for (metric, series) in &delta.timed {
            for (values, seen) in series {
                self.family(metric).observe(&Origin { names: metric.labels, values, now, records: seen.count() }, seen);
            }
        }
        let from = Origin { names: &[], values: &[], now, records: 1 };
        self.family(&metrics::LOG_LOST).count(&from, delta.log_lines_lost);
        self.family(&metrics::LOG_SUPPRESSED).count(&from, delta.log_lines_suppressed);
    }

    fn fold(&mut self, metric: &'static Metric, fold: &Fold, delta: &Delta, now: Instant) {
        let family = self.family(metric);
        match fold {
            Fold::Requests(value) => {
                for (values, cell) in &delta.requests {
                    let from = Origin { names: &metrics::REQUEST, values, now, records: cell.count };
                    value(&from, cell).into_iter().for_each(|value| family.count(&from, value));
                }
            }
            Fold::Durations(seen) => {
                for (values, cell) in &delta.requests {
                    let from = Origin { names: &metrics::REQUEST, values, now, records: cell.count };
                    family.observe(&from, seen(cell));
                    cell.example.into_iter().for_each(|example| family.exemplify(&from, example));
                }
            }
            Fold::Connections(value) => {
                for (values, count) in &delta.connections {
                    let from = Origin { names: &metrics::CONNECTION, values, now, records: *count };
                    value(&from, *count).into_iter().for_each(|value| family.count(&from, value));
                }
            }
            Fold::Flows(value) => {
                for (values, (received, sent)) in &delta.flows {
                    let from = Origin { names: &metrics::FLOW, values, now, records: 1 };
                    family.count(&from, value(*received, *sent));
                }
            }
        }
    }

    fn bear(&mut self, known: &Configured, now: Instant) {
        for (metric, values) in &known.0 {
            let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
            self.family(metric).bear(&values, now);
        }
    }

    fn set_open(&mut self, workers: &[Link], now: Instant) {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let open: u64 = workers.iter().map(|worker| worker.open[direction as usize]).sum();
            let values = [direction.as_str().into()];
            let from = Origin { names: metrics::TCP_OPEN.labels, values: &values, now, records: 1 };
            self.family(&metrics::TCP_OPEN).set(&from, open as f64);
        }
    }

    /// Shows the tries at each endpoint, and the switches of each breaker, before there are any.
    fn bear_endpoints(&mut self, workers: &[Link], now: Instant) {
        for endpoint in workers.iter().flat_map(|worker| &worker.seen.endpoints) {
            let address = endpoint.endpoint.to_string();
            self.family(&metrics::TRIES).bear(&[&endpoint.service, &address], now);
            if endpoint.breaker.is_some() {
                self.family(&metrics::BREAKER_SWITCHES).bear(&[&endpoint.service, &address], now);
            }
        }
    }

    fn set_overflows(&mut self, now: Instant) {
        let counts: Vec<_> = self.0.values_mut().map(|f| (f.metric.name, f.take_overflowed())).collect();
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            let from = Origin { names: metrics::OVERFLOW.labels, values: &[name.into()], now, records: count };
            self.family(&metrics::OVERFLOW).count(&from, count);
        }
    }
}
