//! Metrics as numbers, of a sidecar or of the control plane. A name or a label that the pages do not declare is a mistake
//! of the test, and a series that is not there is never taken for one of 0.

use std::{net::SocketAddr, sync::LazyLock};

use crate::{
    client,
    pages::Page,
    wait::{self, DEADLINE},
};

/// What one program counts, read anew for every question.
#[derive(Clone, Copy, Debug)]
pub struct Metrics {
    address: SocketAddr,
}

impl Metrics {
    /// Those that are served on this port.
    pub const fn at(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Where they are served.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `/metrics` as it is.
    pub async fn text(&self) -> String {
        client::get(self.address, "/metrics").await.expect("the metrics port answers").text()
    }

    /// The sum of every series of `metric` that has each of `labels` (written `name="value"`). Panics when there is none.
    pub async fn value(&self, metric: &str, labels: &[&str]) -> f64 {
        let text = self.text().await;
        sum(&text, metric, labels)
            .unwrap_or_else(|| panic!("no series of {metric} has {labels:?}\n{}", of(&text, metric)))
    }

    /// What the series has counted, 0 when there is none: for the time before a test looks at what it adds.
    pub async fn so_far(&self, metric: &str, labels: &[&str]) -> f64 {
        sum(&self.text().await, metric, labels).unwrap_or(0.0)
    }

    /// Panics when there is a series of `metric` that has each of `labels`: nothing of this kind was ever counted.
    pub async fn absent(&self, metric: &str, labels: &[&str]) {
        let text = self.text().await;
        assert_eq!(sum(&text, metric, labels), None, "{metric} with {labels:?}\n{}", of(&text, metric));
    }

    /// Waits until the sum of the series is `wanted`, which it must be in the next scrape too: what is counted late is
    /// waited for, what is counted twice is noticed.
    pub async fn until(&self, metric: &str, labels: &[&str], wanted: f64) {
        let mut last = String::new();
        let reached = async {
            loop {
                last = self.text().await;
                if sum(&last, metric, labels) == Some(wanted) {
                    return;
                }
                tokio::time::sleep(wait::PAUSE).await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, reached).await;
        assert!(in_time.is_ok(), "{metric} with {labels:?} was not {wanted} in {DEADLINE:?}\n{}", of(&last, metric));
        assert_eq!(self.value(metric, labels).await, wanted, "{metric} with {labels:?} goes on");
    }
}

/// The lines of `metric`.
fn of(text: &str, metric: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| series(line, metric).is_some()).collect();
    if lines.is_empty() { "(it has no series)".to_owned() } else { lines.join("\n") }
}

/// Labels and value of a line, when it is one of `metric`.
fn series<'a>(line: &'a str, metric: &str) -> Option<(&'a str, f64)> {
    let rest = line.strip_prefix(metric).filter(|rest| rest.starts_with(['{', ' ']))?;
    let (labels, value) = rest.rsplit_once(' ')?;
    Some((labels, value.parse().ok()?))
}

fn sum(text: &str, metric: &str, labels: &[&str]) -> Option<f64> {
    assert_declared(metric, labels);
    let has =
        |all: &str, label: &str| [format!("{{{label}"), format!(",{label}")].iter().any(|label| all.contains(label));
    let values: Vec<f64> = text
        .lines()
        .filter_map(|line| series(line, metric))
        .filter(|(all, _)| labels.iter().all(|label| has(all, label)))
        .map(|(_, value)| value)
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// A metric as its page declares it.
struct Declared {
    name: String,
    /// Its row.
    row: String,
}

static DECLARED: LazyLock<Vec<Declared>> = LazyLock::new(|| {
    let pages = ["docs/metrics.md", "docs/control-plane.md"].map(Page::named);
    let rows = pages.iter().flat_map(|page| page.text.lines()).filter(|line| line.starts_with("| `selvedge_"));
    let name = |row: &str| row.split('`').nth(1).unwrap_or_default().to_owned();
    rows.map(|row| Declared { name: name(row), row: row.to_owned() }).collect()
});

/// The name of every metric that the pages declare.
pub fn declared() -> impl Iterator<Item = &'static str> {
    DECLARED.iter().map(|declared| declared.name.as_str())
}

fn assert_declared(metric: &str, labels: &[&str]) {
    let parts = ["_bucket", "_sum", "_count"];
    let family = parts.iter().find_map(|part| metric.strip_suffix(part)).unwrap_or(metric);
    let found = DECLARED.iter().find(|declared| declared.name == metric || declared.name == family);
    let declared = found.unwrap_or_else(|| panic!("no page declares a metric {metric}"));
    let words: Vec<&str> = declared.row.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    for label in labels {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("'{label}' is not name=\"value\""));
        assert!(value.starts_with('"') && value.ends_with('"'), "'{label}' is not name=\"value\"");
        assert!(name == "le" || words.contains(&name), "{metric} has no label {name}: {}", declared.row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP selvedge_retries_total Retries.\nselvedge_retries_total{destination_service=\"a\",outcome=\
                        \"success\"} 2\nselvedge_retries_total{destination_service=\"b\",outcome=\"success\"} 3\n";

    #[test]
    fn series_are_summed_by_whole_labels() {
        let retries = |labels: &[&str]| sum(TEXT, "selvedge_retries_total", labels);
        assert_eq!(retries(&["outcome=\"success\""]), Some(5.0));
        assert_eq!(retries(&["outcome=\"success\"", "destination_service=\"b\""]), Some(3.0));
        assert_eq!(retries(&["outcome=\"failure\""]), None, "what was never counted is not 0");
    }

    #[test]
    #[should_panic(expected = "no page declares a metric selvedge_retires_total")]
    fn a_misspelt_name_is_told() {
        sum(TEXT, "selvedge_retires_total", &[]);
    }

    #[test]
    #[should_panic(expected = "has no label service")]
    fn a_misspelt_label_is_told() {
        sum(TEXT, "selvedge_retries_total", &["service=\"a\""]);
    }
}
