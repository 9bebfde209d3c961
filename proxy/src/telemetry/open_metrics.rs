//! OpenMetrics 1.0 as text. What it has and the text format of Prometheus has not: when a series began, and a trace as an
//! example of what a bucket counts.

use std::fmt::Write;

use prometheus::proto::{Histogram, LabelPair, Metric as Series, MetricFamily, MetricType};

use super::store::Family;

/// What ends the name of a counter.
const TOTAL: &str = "_total";

/// The families as text, those of workers with what is known of their series; with the `created` time of each counter and
/// histogram if that is asked for.
pub(super) fn encode<'a>(
    families: impl Iterator<Item = (&'a MetricFamily, Option<&'a Family>)>,
    created: bool,
) -> String {
    let mut text = String::new();
    for (shown, family) in families {
        let mut lines = Lines { text: &mut text, name: shown.name(), family: family.filter(|_| created) };
        lines.head(shown);
        for (at, series) in shown.get_metric().iter().enumerate() {
            lines.series(shown.get_field_type(), at, series, family);
        }
    }
    text.push_str("# EOF\n");
    text
}

struct Lines<'a> {
    text: &'a mut String,
    name: &'a str,
    /// Where it is said when each series began.
    family: Option<&'a Family>,
}

// Writing to a String cannot fail.
impl Lines<'_> {
    fn stem(&self) -> &str {
        self.name.strip_suffix(TOTAL).unwrap_or(self.name)
    }

    fn head(&mut self, shown: &MetricFamily) {
        let (name, kind) = match shown.get_field_type() {
            MetricType::COUNTER => (self.stem(), "counter"),
            MetricType::HISTOGRAM => (self.name, "histogram"),
            _ => (self.name, "gauge"),
        };
        let name = name.to_owned();
        let _ = writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", escaped(shown.help()));
    }

    fn series(&mut self, kind: MetricType, at: usize, series: &Series, family: Option<&Family>) {
        let labels = series.get_label();
        match kind {
            MetricType::COUNTER => {
                let stem = self.stem().to_owned();
                self.sample(&format!("{stem}{TOTAL}"), labels, None, series.get_counter().get_value());
                self.created(&stem, labels, at);
            }
            MetricType::HISTOGRAM => {
                self.buckets(at, series.get_histogram(), labels, family);
                self.created(self.name, labels, at);
            }
            _ => self.sample(self.name, labels, None, series.get_gauge().get_value()),
        }
    }

    fn buckets(&mut self, at: usize, histogram: &Histogram, labels: &[LabelPair], family: Option<&Family>) {
        let (name, count) = (self.name, histogram.get_sample_count() as f64);
        let bounds =
            histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count() as f64));
        for (bucket, (bound, count)) in bounds.chain([(f64::INFINITY, count)]).enumerate() {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            self.sample(&format!("{name}_bucket"), labels, Some(&bound), count);
            if let Some(example) = family.and_then(|family| family.example(at, bucket)) {
                self.text.pop();
                let trace = example.trace.escape_ascii();
                let _ = writeln!(self.text, " # {{trace_id=\"{trace}\"}} {}", example.seconds);
            }
        }
        self.sample(&format!("{name}_sum"), labels, None, histogram.get_sample_sum());
        self.sample(&format!("{name}_count"), labels, None, count);
    }

    fn created(&mut self, stem: &str, labels: &[LabelPair], at: usize) {
        if let Some(created) = self.family.and_then(|family| family.created(at)) {
            self.sample(&format!("{stem}_created"), labels, None, created.as_secs_f64());
        }
    }

    fn sample(&mut self, name: &str, labels: &[LabelPair], bound: Option<&str>, value: f64) {
        self.text.push_str(name);
        let labels = labels.iter().map(|label| (label.name(), label.value()));
        let mut before = '{';
        for (name, value) in labels.chain(bound.map(|bound| ("le", bound))) {
            let _ = write!(self.text, "{before}{name}=\"{}\"", escaped(value));
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// A text or a value of a label, of which nothing can end its line or its quotation marks.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}
