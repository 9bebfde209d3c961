//! One metric with its series, in the form in which it is shown.

use std::{collections::HashMap, time::Duration};

use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric as Series, MetricFamily, MetricType};
use tokio::time::Instant;

use crate::{
    clock,
    telemetry::{
        cardinality::OVERFLOW,
        cells::{Example, Histogram},
        metrics::{Metric, MetricKind},
        origin::Origin,
    },
};

/// A series that did not change for so long makes room when its metric is full.
const IDLE: Duration = Duration::from_secs(600);
/// Between the values in a key: no value has it.
const SEPARATOR: &str = "\u{1f}";

/// When a series began, as time since the Unix epoch, and when a number was added to it last.
#[derive(Debug)]
struct Age {
    created: Duration,
    changed: Instant,
}

/// One metric with its series.
#[derive(Debug)]
pub(in crate::telemetry) struct Family {
    pub(super) metric: &'static Metric,
    /// Key (label values, one after the other) to the position in `shown`.
    index: HashMap<String, usize>,
    ages: Vec<Age>,
    /// By the place of the series and that of the bucket.
    examples: HashMap<(usize, usize), Example>,
    pub(in crate::telemetry) shown: MetricFamily,
    limit: usize,
    overflowed: u64,
}

impl Family {
    pub(super) fn new(metric: &'static Metric, limit: usize) -> Self {
        let mut shown = MetricFamily::default();
        shown.set_name(metric.name.into());
        shown.set_help(metric.help.into());
        shown.set_field_type(match metric.kind {
            MetricKind::Counter => MetricType::COUNTER,
            MetricKind::Gauge => MetricType::GAUGE,
            MetricKind::Histogram(_) => MetricType::HISTOGRAM,
        });
        Self { metric, index: HashMap::new(), ages: Vec::new(), examples: HashMap::new(), shown, limit, overflowed: 0 }
    }

    /// Records counted under the overflow series since the last call.
    pub(super) fn take_overflowed(&mut self) -> u64 {
        std::mem::take(&mut self.overflowed)
    }

    pub(super) fn count(&mut self, from: &Origin<'_>, by: u64) {
        let series = self.series(from);
        let mut counter = Counter::default();
        counter.set_value(series.get_counter().get_value() + by as f64);
        series.set_counter(counter);
    }

    pub(super) fn set(&mut self, from: &Origin<'_>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.series(from).set_gauge(gauge);
    }

    /// Adds observations; a metric without bounds has none.
    pub(super) fn observe(&mut self, from: &Origin<'_>, seen: &Histogram) {
        let MetricKind::Histogram(bounds) = self.metric.kind else { return };
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

    /// Shows a request as an example of what its bucket counts.
    pub(super) fn exemplify(&mut self, from: &Origin<'_>, example: Example) {
        let MetricKind::Histogram(bounds) = self.metric.kind else { return };
        let bucket = bounds.partition_point(|bound| *bound < example.seconds);
        let at = self.place(from);
        self.examples.insert((at, bucket), example);
    }

    /// The example of this bucket of the series at this place.
    pub(in crate::telemetry) fn example(&self, at: usize, bucket: usize) -> Option<&Example> {
        self.examples.get(&(at, bucket))
    }

    /// When the series at this place began, as time since the Unix epoch.
    pub(in crate::telemetry) fn created(&self, at: usize) -> Option<Duration> {
        self.ages.get(at).map(|age| age.created)
    }

    fn series(&mut self, from: &Origin<'_>) -> &mut Series {
        let at = self.place(from);
        &mut self.shown.mut_metric()[at]
    }

    /// The place of the series a number belongs to; the overflow series when there is no room for another.
    fn place(&mut self, from: &Origin<'_>) -> usize {
        let values: Vec<&str> = self.metric.labels.iter().map(|name| from.get(name)).collect();
        let mut key = values.join(SEPARATOR);
        let mut overflow = from.is_overflow();
        if !overflow && self.index.len() >= self.limit && !self.index.contains_key(&key) {
            self.forget_idle(from.now);
            overflow = self.index.len() >= self.limit;
        }
        let values = if overflow { vec![OVERFLOW; values.len()] } else { values };
        if overflow {
            self.overflowed += from.records;
            key = values.join(SEPARATOR);
        }
        let at = match self.index.get(&key) {
            Some(at) => *at,
            None => {
                let at = self.another(key, &values, from.now);
                if !overflow && let Some((_, known)) = values.split_last() {
                    self.bear(known, from.now);
                }
                at
            }
        };
        self.ages[at].changed = from.now;
        at
    }

    /// Shows the series at zero that there are as soon as these values of all labels but the last are known, as far as there
    /// is room.
    pub(super) fn bear(&mut self, known: &[&str], now: Instant) {
        for last in self.metric.zeros {
            let values = [known, &[*last]].concat();
            let key = values.join(SEPARATOR);
            if self.index.len() < self.limit && !self.index.contains_key(&key) {
                let at = self.another(key, &values, now);
                self.shown.mut_metric()[at].set_counter(Counter::default());
            }
        }
    }

    fn another(&mut self, key: String, values: &[&str], now: Instant) -> usize {
        let labels = self.metric.labels.iter().zip(values).map(|(name, value)| pair(name, value)).collect();
        self.shown.mut_metric().push(Series::from_label(labels));
        self.ages.push(Age { created: clock::since_epoch(), changed: now });
        self.index.insert(key, self.ages.len() - 1);
        self.ages.len() - 1
    }

    fn forget_idle(&mut self, now: Instant) {
        let keep: Vec<bool> = self.ages.iter().map(|age| now.duration_since(age.changed) < IDLE).collect();
        self.examples.clear();
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
        self.ages.retain(|_| kept.next().copied().unwrap_or(true));
        let mut kept = keep.iter();
        self.shown.mut_metric().retain(|_| kept.next().copied().unwrap_or(true));
    }
}

/// A label of a series.
pub(in crate::telemetry) fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.into());
    pair.set_value(value.into());
    pair
}
