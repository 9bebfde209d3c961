//! The metrics of other meshes, made of ours when somebody asks for them, so that boards and tools that know those names find
//! them. Nothing is counted for a view: what the store does not know is `unknown` or left out, never guessed.

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Metric as Series, MetricFamily, MetricType};

use super::{
    metrics::{Metric, PROBE},
    store,
};

mod istio;
mod linkerd;

/// What a label reads when nobody knows its value.
const UNKNOWN: &str = "unknown";

/// A mesh whose names of metrics can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// `/metrics/istio`
    Istio,
    /// `/metrics/linkerd`
    Linkerd,
}

impl View {
    /// The view with this path.
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            "/metrics/istio" => Some(Self::Istio),
            "/metrics/linkerd" => Some(Self::Linkerd),
            _ => None,
        }
    }

    /// Its families, made of those of the store.
    pub(super) fn of<'a>(self, ours: impl Iterator<Item = &'a MetricFamily>) -> Vec<MetricFamily> {
        let shown = match self {
            Self::Istio => istio::SHOWN,
            Self::Linkerd => linkerd::SHOWN,
        };
        let ours: BTreeMap<&str, &MetricFamily> = ours.map(|family| (family.name(), family)).collect();
        shown.iter().map(|metric| metric.family(&ours)).filter(|family| !family.get_metric().is_empty()).collect()
    }
}

/// Labels of a series of a view.
type Labels = Vec<(&'static str, String)>;

/// One metric of a view.
struct Shown {
    /// What it is called there.
    name: &'static str,
    help: &'static str,
    /// Which of ours it is made of, and how.
    parts: &'static [(&'static Metric, Part)],
    /// The labels there of a series of ours; `None` for one that the metric does not count there.
    labels: fn(&Ours<'_>) -> Option<Labels>,
}

/// What a number of ours is in a metric of a view.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A counter as a counter.
    Count,
    /// A gauge as a gauge.
    Gauge,
    /// A histogram of seconds as one of milliseconds.
    Milliseconds,
    /// The number of observations of a histogram as that of one without buckets.
    Observations,
    /// A counter as the sum of a histogram.
    Sum,
}

impl Shown {
    fn family(&self, ours: &BTreeMap<&str, &MetricFamily>) -> MetricFamily {
        let mut series: BTreeMap<Labels, Series> = BTreeMap::new();
        for (metric, part) in self.parts {
            for of in ours.get(metric.name).into_iter().flat_map(|family| family.get_metric()) {
                if let Some(labels) = (self.labels)(&Ours(of)) {
                    part.add(of, series.entry(labels).or_default());
                }
            }
        }
        let mut family = MetricFamily::default();
        family.set_name(self.name.into());
        family.set_help(self.help.into());
        family.set_field_type(self.kind());
        family.set_metric(series.into_iter().map(|(labels, series)| labelled(&labels, &series)).collect());
        family
    }

    fn kind(&self) -> MetricType {
        match self.parts.first() {
            Some((_, Part::Count)) => MetricType::COUNTER,
            Some((_, Part::Gauge)) | None => MetricType::GAUGE,
            Some(_) => MetricType::HISTOGRAM,
        }
    }
}

impl Part {
    /// Adds what a series of ours has to one of the view.
    fn add(self, ours: &Series, sum: &mut Series) {
        match self {
            Self::Count => {
                let mut counter = Counter::default();
                counter.set_value(sum.get_counter().get_value() + ours.get_counter().get_value());
                sum.set_counter(counter);
            }
            Self::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(sum.get_gauge().get_value() + ours.get_gauge().get_value());
                sum.set_gauge(gauge);
            }
            Self::Milliseconds => sum.set_histogram(in_milliseconds(sum.get_histogram(), ours.get_histogram())),
            Self::Observations => {
                let mut histogram = sum.get_histogram().clone();
                histogram.set_sample_count(histogram.get_sample_count() + ours.get_histogram().get_sample_count());
                sum.set_histogram(histogram);
            }
            Self::Sum => {
                let mut histogram = sum.get_histogram().clone();
                histogram.set_sample_sum(histogram.get_sample_sum() + ours.get_counter().get_value());
                sum.set_histogram(histogram);
            }
        }
    }
}

/// `sum`, which has these buckets or none yet, with the observations of a histogram of seconds.
fn in_milliseconds(sum: &Histogram, seconds: &Histogram) -> Histogram {
    let known = sum.get_bucket();
    let buckets = seconds.get_bucket().iter().enumerate().map(|(at, bucket)| {
        let before = known.get(at).map_or(0, Bucket::cumulative_count);
        let mut bucket_there = Bucket::default();
        // Bounds of ours are whole microseconds.
        bucket_there.set_upper_bound((bucket.upper_bound() * 1e6).round() / 1e3);
        bucket_there.set_cumulative_count(before + bucket.cumulative_count());
        bucket_there
    });
    let mut all = Histogram::default();
    all.set_bucket(buckets.collect());
    all.set_sample_count(sum.get_sample_count() + seconds.get_sample_count());
    all.set_sample_sum(sum.get_sample_sum() + seconds.get_sample_sum() * 1e3);
    all
}

fn labelled(labels: &Labels, series: &Series) -> Series {
    let mut labelled = series.clone();
    labelled.set_label(labels.iter().map(|(name, value)| store::pair(name, value)).collect());
    labelled
}

/// A series of ours.
struct Ours<'a>(&'a Series);

impl Ours<'_> {
    /// The value of this label; empty when the series has none.
    fn get(&self, name: &str) -> &str {
        let label = self.0.get_label().iter().find(|label| label.name() == name);
        label.map_or("", |label| label.value())
    }

    /// The value of this label, or `unknown`.
    fn known(&self, name: &str) -> String {
        known(self.get(name)).to_owned()
    }

    /// What stands for the workload at this end. Of a pod of a Deployment that is the Deployment.
    fn workload(&self, name: &str) -> String {
        known(deployment(self.get(name))).to_owned()
    }

    /// Whether it counts probes, which no mesh counts as requests.
    fn is_of_probes(&self) -> bool {
        self.get("route") == PROBE
    }
}

fn known(value: &str) -> &str {
    if value.is_empty() { UNKNOWN } else { value }
}

/// The Deployment whose pod is called so, else the name as it is. Kubernetes puts a hash of the pod's template and five
/// characters behind the name of a Deployment, both written with digits and letters that make no words.
fn deployment(workload: &str) -> &str {
    let is_made = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&part.len()) && part.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte))
    };
    let named = || {
        let (rest, last) = workload.rsplit_once('-')?;
        let (name, hash) = rest.rsplit_once('-')?;
        (is_made(last, 5..=5) && is_made(hash, 6..=10)).then_some(name)
    };
    named().unwrap_or(workload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_of_a_deployment_goes_by_its_name() {
        for (pod, name) in [
            ("podinfo-primary-7d9f8bc6c4-x2vwz", "podinfo-primary"),
            ("api-5d4f8c7b9-bcdfg", "api"),
            ("api", "api"),
            ("api-0", "api-0"),
            ("api-gateway-front", "api-gateway-front"),
            ("web-cntrl-bcdfg", "web-cntrl-bcdfg"), // five letters are no hash
            ("", ""),
        ] {
            assert_eq!(deployment(pod), name, "{pod}");
        }
    }
}
