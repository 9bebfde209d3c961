//! Numbers as the sidecars and the kernel give them: the Prometheus text format, and `/proc`.

use std::{collections::HashMap, fs, net::SocketAddr, time::Duration};

use crate::probe;

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
}

impl Series {
    /// The value of a label; empty when it is absent, which in Prometheus is the same.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// Asks for `/metrics`.
pub(super) async fn scrape(address: SocketAddr) -> anyhow::Result<Vec<Series>> {
    Ok(parse(&probe::get(address, "/metrics").await?))
}

/// Reads the text format; lines that are no series are skipped.
pub(super) fn parse(text: &str) -> Vec<Series> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Series> {
    let (series, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = parse_labels(rest)?;
            (name, labels, rest)
        }
        None => line.split_once(' ').map(|(name, rest)| (name, Vec::new(), rest))?,
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Series { name: series.to_owned(), labels, value })
}

/// Labels up to the closing brace, and what follows it.
fn parse_labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquote(quoted)?;
        labels.push((name.to_owned(), value));
        rest = after;
    }
}

/// A label's value up to its closing quote, unescaped, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            _ => value.push(c),
        }
    }
    None
}

/// What was counted between two scrapes of the same process. Only counters and histogram parts make sense here.
pub(super) fn since(before: &[Series], now: &[Series]) -> Vec<Series> {
    type Key<'a> = (&'a str, &'a [(String, String)]);
    let known: HashMap<Key<'_>, f64> = before.iter().map(|s| ((&*s.name, &*s.labels), s.value)).collect();
    now.iter()
        .map(|s| {
            let past = known.get(&(&*s.name, &*s.labels)).copied().unwrap_or_default();
            Series { value: s.value - past, ..s.clone() }
        })
        .collect()
}

/// The quantile of summed histogram buckets, in seconds, by linear interpolation; `None` without observations.
pub(super) fn quantile<'a>(buckets: impl Iterator<Item = &'a Series>, q: f64) -> Option<f64> {
    let mut sums: Vec<(f64, f64)> = Vec::new();
    for bucket in buckets {
        let bound: f64 = bucket.label("le").parse().unwrap_or(f64::INFINITY);
        match sums.iter_mut().find(|(b, _)| b.total_cmp(&bound).is_eq()) {
            Some((_, count)) => *count += bucket.value,
            None => sums.push((bound, bucket.value)),
        }
    }
    sums.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total = sums.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let wanted = q * total;
    let (mut below, mut counted) = (0.0, 0.0);
    for (bound, count) in sums {
        if count >= wanted {
            let within = if count > counted { (wanted - counted) / (count - counted) } else { 0.0 };
            return Some(if bound.is_finite() { below + (bound - below) * within } else { below });
        }
        (below, counted) = (bound, count);
    }
    None
}

/// What the kernel knows of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Resident memory.
    pub(super) rss_bytes: u64,
    /// CPU time of all threads since the start.
    pub(super) cpu: Duration,
}

/// Asks the kernel. Threads that ended are not counted: sidecars keep theirs.
pub(super) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(|v| v.split_whitespace().next());
    let rss_bytes = rss.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024;
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between listing and reading.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanos += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(Usage { rss_bytes, cpu: Duration::from_nanos(nanos) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_with_odd_labels_are_read() {
        let text = "# HELP x y\nup 1\nx_total{a=\"q\\\"u,o}te\",b=\"\"} 2.5e1 1700000000\nbroken{a=\"1\n";
        let series = parse(text);
        assert_eq!(series.len(), 2);
        assert_eq!((series[1].label("a"), series[1].label("b"), series[1].value), ("q\"u,o}te", "", 25.0));
    }

    #[test]
    fn differences_are_by_series_and_new_ones_count_in_full() {
        let before = parse("a{x=\"1\"} 5\n");
        let now = parse("a{x=\"1\"} 7\na{x=\"2\"} 3\n");
        let values: Vec<f64> = since(&before, &now).iter().map(|s| s.value).collect();
        assert_eq!(values, [2.0, 3.0]);
    }

    #[test]
    fn quantiles_interpolate_and_never_pass_the_last_bound() {
        let text = "h_bucket{le=\"0.1\"} 50\nh_bucket{le=\"0.2\"} 100\nh_bucket{le=\"+Inf\"} 100\n";
        let buckets = parse(text);
        assert_eq!(quantile(buckets.iter(), 0.5), Some(0.1));
        let p99 = quantile(buckets.iter(), 0.99).expect("observations");
        assert!((p99 - 0.198).abs() < 1e-9, "{p99}");
        let beyond = parse("h_bucket{le=\"0.1\"} 0\nh_bucket{le=\"+Inf\"} 10\n");
        assert_eq!(quantile(beyond.iter(), 0.5), Some(0.1));
        assert_eq!(quantile([].iter(), 0.5), None);
    }

    #[test]
    fn the_kernel_knows_this_process() {
        let usage = usage(std::process::id()).expect("procfs");
        assert!(usage.rss_bytes > 100_000 && usage.cpu > Duration::ZERO, "{usage:?}");
    }
}
