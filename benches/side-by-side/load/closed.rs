//! Closed loops, by h2load.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use selvedge_benches::{
    application::message,
    client::{FIELDS, GRPC, HOST, METHOD, SENT},
};
use tempfile::NamedTempFile;
use tokio::process::Command;

use super::Outcome;
use crate::{
    ground::{LARGE, SMALL},
    process::find,
};

/// What h2load asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// The small answer.
    Small,
    /// The large one.
    Large,
    /// That of a gRPC method, which is as small.
    Call,
}

impl Document {
    fn path(self) -> &'static str {
        match self {
            Self::Small => "/1k",
            Self::Large => "/1m",
            Self::Call => METHOD,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Small => SMALL,
            Self::Large => LARGE,
            Self::Call => message(SMALL).len(),
        }
    }
}

/// Runs h2load for `duration` against `target`, asking for `document` over connections of this `shape`.
pub(crate) async fn h2load(
    target: SocketAddr,
    shape: &[&str],
    document: Document,
    duration: Duration,
) -> anyhow::Result<Outcome> {
    let mut command = Command::new(program()?);
    command.args(shape).args(["-t1", "-D", &format!("{}ms", duration.as_millis())]);
    command.args(["-H", &format!(":authority: {HOST}")]);
    for (name, value) in FIELDS {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    let mut sent = NamedTempFile::new().context("a temporary file")?;
    if document == Document::Call {
        sent.write_all(&message(SENT))?;
        command.arg("-d").arg(sent.path());
        for (name, value) in GRPC {
            command.args(["-H", &format!("{name}: {value}")]);
        }
    }
    command.arg(format!("http://{target}{}", document.path())).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.context("running h2load")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "h2load failed: {}", String::from_utf8_lossy(&output.stderr));
    read(&text, document.bytes() as u64).with_context(|| format!("h2load printed: {text}"))
}

/// Where h2load is.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    find("h2load", "H2LOAD").context("h2load is missing (Debian package nghttp2-client)")
}

/// Reads what h2load says of requests, status codes, traffic and time, when `size` bytes are the right answer.
///
/// Its own count of failures takes an HTTP/1 answer with an empty reason phrase for one, although it is none (RFC 9112
/// section 4) and HAProxy sends it in front of an HTTP/2 server; such answers are among no status code either. So those
/// have failed that came with another status than 2xx, or whose bytes did not come.
fn read(text: &str, size: u64) -> Option<Outcome> {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let count = |start: &str, what: &str| -> Option<u64> {
        let part = line(start)?.split(", ").find(|part| part.ends_with(what))?;
        part.split(' ').next()?.parse().ok()
    };
    let requests = |what| count("requests: ", what);
    let refused: u64 =
        [" 3xx", " 4xx", " 5xx"].iter().map(|class| count("status codes: ", class)).sum::<Option<_>>()?;
    let bytes = line("traffic: ")?.strip_suffix(" data")?.rsplit_once('(')?.1.strip_suffix(')')?;
    let done = requests(" done")?;
    let unanswered = done.saturating_sub(bytes.parse::<u64>().ok()? / size);
    let failed = requests(" errored")? + requests(" timeout")? + refused.max(unanswered);
    let took = line("finished in ")?.split(',').next()?;
    Some(Outcome { done, failed, seconds: seconds(took)?, latencies: Vec::new() })
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

    /// What h2load 1.52 prints of 100 requests.
    fn printed(requests: &str, codes: &str, data: u64) -> String {
        format!(
            "finished in 500.12ms, 20.00 req/s, 1KB/s\nrequests: 100 total, 104 started, 100 done, {requests}\nstatus \
             codes: {codes}\ntraffic: 1.00KB (1000) total, 520B (520) headers (space savings 0.00%), 10KB ({data}) \
             data\n"
        )
    }

    #[test]
    fn the_summary_of_h2load_is_read() {
        let text = printed("96 succeeded, 1 failed, 1 errored, 2 timeout", "97 2xx, 0 3xx, 0 4xx, 0 5xx", 100 * 1024);
        let outcome = read(&text, 1024).unwrap();
        assert_eq!((outcome.done, outcome.failed), (100, 3));
        assert!((outcome.seconds - 0.50012).abs() < 1e-9);
    }

    #[test]
    fn what_fails_is_what_did_not_answer() {
        let failed = |codes, data| {
            let text = printed("0 succeeded, 100 failed, 0 errored, 0 timeout", codes, data);
            read(&text, 1024).unwrap().failed
        };
        assert_eq!(failed("0 2xx, 0 3xx, 0 4xx, 0 5xx", 104 * 1024), 0, "whole answers without a reason phrase");
        assert_eq!(failed("0 2xx, 0 3xx, 0 4xx, 100 5xx", 100 * 107), 100, "nothing but 503");
        assert_eq!(failed("0 2xx, 0 3xx, 0 4xx, 0 5xx", 100 * 107), 90, "the same without a reason phrase");
        assert_eq!(failed("40 2xx, 20 3xx, 40 4xx, 0 5xx", 100 * 1024), 60, "errors with long pages");
    }
}
