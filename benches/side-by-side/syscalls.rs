//! How many system calls a request takes: by the kernel's tracepoint, which does not slow the proxies; where that may not
//! be used, by strace, which does, so that they find more to do at each wake-up and make fewer calls.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::{sleep, timeout},
};

use crate::{load::Load, measure::Plan, peer::Peer, process};

/// System calls of all proxies of a peer.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Calls {
    /// At the fixed rate over HTTP/1.
    pub(crate) per_request: f64,
    /// What counted them.
    pub(crate) counted_by: Counter,
}

/// What counts system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Counter {
    /// `raw_syscalls:sys_enter`, by perf.
    Tracepoint,
    /// Stops of the process, by strace.
    Strace,
}

impl Counter {
    /// As tables say it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Strace => "strace",
        }
    }
}

/// Counts those of `peer` for a while.
pub(crate) async fn count(peer: &Peer, plan: &Plan) -> anyhow::Result<Calls> {
    match by_tracepoint(peer, plan).await {
        Ok(per_request) => Ok(Calls { per_request, counted_by: Counter::Tracepoint }),
        Err(no_tracepoint) => {
            let counted = by_strace(peer, plan).await;
            let per_request = counted.with_context(|| format!("{no_tracepoint:#}"))?;
            Ok(Calls { per_request, counted_by: Counter::Strace })
        }
    }
}

/// Calls per second, counted amid a load, by its requests per second.
async fn by_tracepoint(peer: &Peer, plan: &Plan) -> anyhow::Result<f64> {
    let program = process::find("perf", "PERF").context("perf is missing (Debian package linux-perf)")?;
    let processes: Vec<String> = peer.proxies.iter().map(|proxy| proxy.id().to_string()).collect();
    let seconds = plan.busy.as_secs_f64();
    let mut command = Command::new(program);
    command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", &processes.join(","), "--"]);
    command.args(["sleep", &seconds.to_string()]).stdin(Stdio::null()).kill_on_drop(true);
    let edge = Duration::from_millis(300);
    let counted = async {
        sleep(edge).await;
        command.output().await
    };
    let (outcome, output) = tokio::join!(Load::Http1Paced.run(peer, plan.busy + 2 * edge, plan.rate), counted);
    let (outcome, output) = (outcome?, output?);
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "perf failed: {text}");
    let calls = printed(&text).with_context(|| format!("perf printed: {text}"))?;
    Ok(calls / seconds / (outcome.done as f64 / outcome.seconds))
}

/// What `perf stat -x,` says of its one event: the count comes first.
fn printed(text: &str) -> Option<f64> {
    text.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?.split(',').next()?.parse().ok()
}

async fn by_strace(peer: &Peer, plan: &Plan) -> anyhow::Result<f64> {
    let program = process::find("strace", "STRACE").context("strace is missing")?;
    let mut command = Command::new(program);
    command.args(["-f", "-c", "-U", "calls,name"]);
    for proxy in &peer.proxies {
        command.args(["-p", &proxy.id().to_string()]);
    }
    let mut strace = command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(strace.stderr.take().context("no output of strace")?).lines();
    for _ in &peer.proxies {
        let line = timeout(Duration::from_secs(5), lines.next_line()).await.context("strace does not attach")??;
        let line = line.context("strace ended")?;
        ensure!(line.contains("attached"), "{line}");
    }
    let outcome = Load::Http1Paced.run(peer, plan.busy, plan.rate).await?;
    let pid = strace.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    rustix::process::kill_process(pid.context("strace is gone")?, rustix::process::Signal::INT)?;
    let mut calls = None;
    while let Some(line) = lines.next_line().await? {
        calls = line.trim().strip_suffix(" total").and_then(|count| count.trim().parse::<f64>().ok()).or(calls);
    }
    strace.wait().await?;
    Ok(calls.context("strace printed no total")? / outcome.done.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_perf_is_read() {
        let text = "81234,,raw_syscalls:sys_enter,4001234567,100.00,,\n";
        assert_eq!(printed(text), Some(81234.0));
        assert_eq!(printed("<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n"), None);
        assert_eq!(printed("event syntax error: 'raw_syscalls:sys_enter'\n"), None);
    }
}
