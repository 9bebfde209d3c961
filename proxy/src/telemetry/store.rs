//! The sum of what all workers counted, kept by the control thread in the form it is shown.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric as Series, MetricFamily, MetricType};
use selvedge_policies::reason::Reason;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    BreakerState, Direction, Protocol,
    cardinality::OVERFLOW,
    metrics::{self, Histogram, Metric, MetricKind},
    worker::{ConnectionCell, Delta, RequestCell},
};

/// A series that did not change for so long makes room when its metric is full.
const IDLE: Duration = Duration::from_secs(600);

/// The control thread's end of one worker.
#[derive(Debug)]
pub(super) struct Link {
    ask: mpsc::Sender<()>,
    answers: mpsc::Receiver<Delta>,
    asked: bool,
    gone: bool,
    open: [u64; 2],
    breakers: Vec<(Box<str>, SocketAddr, BreakerState)>,
}

impl Link {
    pub(super) fn new(ask: mpsc::Sender<()>, answers: mpsc::Receiver<Delta>) -> Self {
        Self { ask, answers, asked: false, gone: false, open: [0; 2], breakers: Vec::new() }
    }

    /// Asks for a delta unless one is already on its way, as from a worker that was too busy last time.
    fn ask(&mut self) {
        self.asked = self.asked || self.ask.try_send(()).is_ok();
    }

    /// The answer, if it comes before `deadline`. A later one is kept for the next call.
    async fn answer(&mut self, deadline: Instant) -> Option<Delta> {
        match timeout_at(deadline, self.answers.recv()).await {
            Ok(Some(delta)) => {
                self.asked = false;
                Some(delta)
            }
            Ok(None) => {
                self.gone = true;
                None
            }
            Err(_) => None,
        }
    }
}

/// All series that workers feed.
#[derive(Debug)]
pub(super) struct Store {
    joined: mpsc::UnboundedReceiver<Link>,
    workers: Vec<Link>,
    families: HashMap<&'static str, Family>,
}

impl Store {
    pub(super) fn new(joined: mpsc::UnboundedReceiver<Link>, limit: usize) -> Self {
        let families = metrics::ALL.iter().map(|metric| (metric.name, Family::new(metric, limit))).collect();
        Self { joined, workers: Vec::new(), families }
    }

    /// Adds what the workers counted since the last call; waits for them `limit` in all.
    pub(super) async fn collect(&mut self, limit: Duration) {
        while let Ok(link) = self.joined.try_recv() {
            self.workers.push(link);
        }
        let now = Instant::now();
        self.workers.iter_mut().for_each(Link::ask);
        let mut workers = std::mem::take(&mut self.workers);
        for worker in &mut workers {
            if let Some(mut delta) = worker.answer(now + limit).await {
                worker.open = delta.open;
                worker.breakers = std::mem::take(&mut delta.breakers);
                self.add(delta, now);
            }
        }
        workers.retain(|worker| !worker.gone);
        self.workers = workers;
        self.set_open(now);
        self.set_breakers(now);
        self.set_overflows(now);
    }

    /// The families that have series, in the order of the documentation.
    pub(super) fn families(&self) -> impl Iterator<Item = &MetricFamily> {
        let ours = metrics::ALL.iter().filter_map(|metric| self.families.get(metric.name));
        ours.map(|family| &family.shown).filter(|shown| !shown.get_metric().is_empty())
    }

    fn family(&mut self, metric: &'static Metric) -> &mut Family {
        self.families.entry(metric.name).or_insert_with(|| Family::new(metric, super::SERIES_LIMIT))
    }

    fn add(&mut self, delta: Delta, now: Instant) {
        for (labels, cell) in &delta.requests {
            self.add_requests(&Labels { names: &metrics::REQUEST, values: &**labels, now, records: cell.count }, cell);
        }
        for (labels, cell) in &delta.connections {
            let from = Labels { names: &metrics::CONNECTION, values: &**labels, now, records: cell.count };
            self.add_connections(&from, cell);
        }
        for (metric, counts) in [(&metrics::TCP_OPENED, &delta.opened), (&metrics::RETRIES, &delta.retries)] {
            for (labels, count) in counts {
                let from = Labels { names: metric.labels, values: &**labels, now, records: *count };
                self.family(metric).count(&from, *count);
            }
        }
        for (protocol, seen) in Protocol::ALL.iter().zip(&delta.detections).filter(|(_, seen)| seen.count() > 0) {
            let values = [Box::from(protocol.as_str())];
            let from = Labels { names: metrics::DETECTION.labels, values: &values, now, records: seen.count() };
            self.family(&metrics::DETECTION).observe(&from, &metrics::DETECTION_BOUNDS, seen);
        }
        let from = Labels { names: &[], values: &[], now, records: 1 };
        self.family(&metrics::LOG_LOST).count(&from, delta.log_lines_lost);
    }

    fn add_requests(&mut self, from: &Labels<'_>, cell: &RequestCell) {
        self.family(&metrics::REQUESTS).count(from, cell.count);
        self.family(&metrics::REQUEST_DURATION).observe(from, &metrics::DURATION_BOUNDS, &cell.duration);
        self.family(&metrics::REQUEST_BYTES).count(from, cell.bytes_received);
        self.family(&metrics::RESPONSE_BYTES).count(from, cell.bytes_sent);
        if from.is_denied() {
            self.family(&metrics::DENIALS).count(from, cell.count);
        }
        if from.get("reason") == Reason::RateLimited.code() {
            self.family(&metrics::RATE_LIMITED).count(from, cell.count);
        }
    }

    fn add_connections(&mut self, from: &Labels<'_>, cell: &ConnectionCell) {
        self.family(&metrics::TCP_CLOSED).count(from, cell.count);
        self.family(&metrics::TCP_RECEIVED).count(from, cell.bytes_received);
        self.family(&metrics::TCP_SENT).count(from, cell.bytes_sent);
        if from.is_denied() {
            self.family(&metrics::DENIALS).count(from, cell.count);
        }
    }

    fn set_open(&mut self, now: Instant) {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let open: u64 = self.workers.iter().map(|worker| worker.open[direction as usize]).sum();
            let values = [direction.as_str().into()];
            let from = Labels { names: metrics::TCP_OPEN.labels, values: &values, now, records: 1 };
            self.family(&metrics::TCP_OPEN).set(&from, open as f64);
        }
    }

    /// Shows each breaker as the worker that is worst off sees it.
    fn set_breakers(&mut self, now: Instant) {
        let mut worst: HashMap<(&str, SocketAddr), u8> = HashMap::new();
        for (name, endpoint, state) in self.workers.iter().flat_map(|worker| &worker.breakers) {
            let seen = worst.entry((name, *endpoint)).or_default();
            *seen = (*seen).max(*state as u8);
        }
        let mut family = Family::new(&metrics::BREAKER_STATE, super::SERIES_LIMIT);
        for ((name, endpoint), state) in worst {
            let values = [Box::from(name), endpoint.to_string().into()];
            let from = Labels { names: metrics::BREAKER_STATE.labels, values: &values, now, records: 1 };
            family.set(&from, f64::from(state));
        }
        self.families.insert(metrics::BREAKER_STATE.name, family);
    }

    fn set_overflows(&mut self, now: Instant) {
        let counts: Vec<_> =
            self.families.values_mut().map(|f| (f.metric.name, std::mem::take(&mut f.overflowed))).collect();
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            let from = Labels { names: metrics::OVERFLOW.labels, values: &[name.into()], now, records: count };
            self.family(&metrics::OVERFLOW).count(&from, count);
        }
    }
}

/// Where a number comes from: named label values, and how many records it sums up.
struct Labels<'a> {
    names: &'a [&'a str],
    values: &'a [Box<str>],
    now: Instant,
    records: u64,
}

impl Labels<'_> {
    fn get(&self, name: &str) -> &str {
        self.names.iter().position(|have| *have == name).map_or("", |at| &self.values[at])
    }

    fn is_denied(&self) -> bool {
        let denials = [Reason::PolicyDenied, Reason::PolicyDefaultDeny, Reason::PlaintextRefused];
        denials.iter().any(|reason| reason.code() == self.get("reason"))
    }

    fn is_overflow(&self) -> bool {
        !self.values.is_empty() && self.values.iter().all(|value| &**value == OVERFLOW)
    }
}

/// One metric with its series.
#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    /// Key (label values, one after the other) to the position in `shown`.
    index: HashMap<String, usize>,
    changed: Vec<Instant>,
    shown: MetricFamily,
    limit: usize,
    overflowed: u64,
}

impl Family {
    fn new(metric: &'static Metric, limit: usize) -> Self {
        let mut shown = MetricFamily::default();
        shown.set_name(metric.name.into());
        shown.set_help(metric.help.into());
        shown.set_field_type(match metric.kind {
            MetricKind::Counter => MetricType::COUNTER,
            MetricKind::Gauge => MetricType::GAUGE,
            MetricKind::Histogram => MetricType::HISTOGRAM,
        });
        Self { metric, index: HashMap::new(), changed: Vec::new(), shown, limit, overflowed: 0 }
    }

    fn count(&mut self, from: &Labels<'_>, by: u64) {
        let series = self.series(from);
        let mut counter = Counter::default();
        counter.set_value(series.get_counter().get_value() + by as f64);
        series.set_counter(counter);
    }

    fn set(&mut self, from: &Labels<'_>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.series(from).set_gauge(gauge);
    }

    fn observe(&mut self, from: &Labels<'_>, bounds: &[f64], seen: &Histogram) {
        let series = self.series(from);
        let mut sum = series.get_histogram().clone();
        let mut buckets = sum.get_bucket().to_vec();
        buckets.resize_with(bounds.len(), Bucket::default);
        let mut cumulative = 0;
        for ((bucket, bound), count) in buckets.iter_mut().zip(bounds).zip(&seen.counts) {
            cumulative += count;
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(bucket.cumulative_count() + cumulative);
        }
        sum.set_bucket(buckets);
        sum.set_sample_count(sum.get_sample_count() + seen.count());
        sum.set_sample_sum(sum.get_sample_sum() + seen.sum);
        series.set_histogram(sum);
    }

    /// The series a number belongs to; the overflow series when there is no room for another.
    fn series(&mut self, from: &Labels<'_>) -> &mut Series {
        let values: Vec<&str> = self.metric.labels.iter().map(|name| from.get(name)).collect();
        let mut key = values.join("\u{1f}");
        let mut overflow = from.is_overflow();
        if !overflow && self.index.len() >= self.limit && !self.index.contains_key(&key) {
            self.forget_idle(from.now);
            overflow = self.index.len() >= self.limit;
        }
        let values = if overflow { vec![OVERFLOW; values.len()] } else { values };
        if overflow {
            self.overflowed += from.records;
            key = values.join("\u{1f}");
        }
        let at = *self.index.entry(key).or_insert_with(|| {
            let labels = self.metric.labels.iter().zip(values).map(|(name, value)| pair(name, value)).collect();
            self.shown.mut_metric().push(Series::from_label(labels));
            self.changed.push(from.now);
            self.changed.len() - 1
        });
        self.changed[at] = from.now;
        &mut self.shown.mut_metric()[at]
    }

    fn forget_idle(&mut self, now: Instant) {
        let keep: Vec<bool> = self.changed.iter().map(|changed| now.duration_since(*changed) < IDLE).collect();
        let mut at = 0;
        let new_place: Vec<usize> = keep
            .iter()
            .map(|keep| {
                let place = at;
                at += usize::from(*keep);
                place
            })
            .collect();
        self.index.retain(|_, place| {
            let kept = keep[*place];
            *place = new_place[*place];
            kept
        });
        let mut kept = keep.iter();
        self.changed.retain(|_| kept.next().copied().unwrap_or(true));
        let mut kept = keep.iter();
        self.shown.mut_metric().retain(|_| kept.next().copied().unwrap_or(true));
    }
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.into());
    pair.set_value(value.into());
    pair
}
