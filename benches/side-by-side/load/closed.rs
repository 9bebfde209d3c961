//! Closed loops, by h2load.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::Outcome;
use crate::client::{FIELDS, HOST};

/// Runs h2load against `path` of `target` for `duration`.
pub(crate) async fn h2load(
    target: SocketAddr,
    shape: &[&str],
    path: &str,
    duration: Duration,
) -> anyhow::Result<Outcome> {
    let mut command = Command::new("h2load");
    command.args(shape).args(["-t1", "-D", &format!("{}ms", duration.as_millis())]);
    command.args(["-H", &format!(":authority: {HOST}")]);
    for (name, value) in FIELDS {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    command.arg(format!("http://{target}{path}")).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.context("h2load is missing (Debian package nghttp2-client)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "h2load failed: {}", String::from_utf8_lossy(&output.stderr));
    read(&text).with_context(|| format!("h2load printed: {text}"))
}

/// Reads `requests: 10 total, 10 started, 10 done, 10 succeeded, 0 failed, 0 errored, 0 timeout` and
/// `finished in 2.00s, ...`.
fn read(text: &str) -> Option<Outcome> {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let count = |what: &str| -> Option<u64> {
        let part = line("requests: ")?.split(", ").find(|part| part.ends_with(what))?;
        part.split(' ').next()?.parse().ok()
    };
    let failed = count(" failed")? + count(" errored")? + count(" timeout")?;
    let took = line("finished in ")?.split(',').next()?;
    Some(Outcome { done: count(" done")?, failed, seconds: seconds(took)?, latencies: Vec::new() })
}

/// `2.00s`, `500.12ms`.
fn seconds(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_h2load_is_read() {
        let text = "finished in 500.12ms, 20.00 req/s, 1KB/s\nrequests: 12 total, 11 started, 10 done, 8 succeeded, 1 \
                    failed, 1 errored, 0 timeout\n";
        let outcome = read(text).unwrap();
        assert_eq!((outcome.done, outcome.failed), (10, 2));
        assert!((outcome.seconds - 0.50012).abs() < 1e-9);
    }
}
