//! The rounds: every peer under every load, in random order, several times; then memory and system calls.

use std::{collections::HashMap, process::Stdio, time::Duration};

use anyhow::Context;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::{sleep, timeout},
};

use crate::{
    ground::{Ground, SMALL},
    load::{Load, h2load},
    peer::{Name, Peer},
    process,
};

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Plan {
    /// How often every peer is put under every load.
    pub(crate) rounds: usize,
    /// For how long each time.
    pub(crate) each: Duration,
    /// Requests per second of the paced loads.
    pub(crate) rate: u32,
    /// Order of the rounds.
    pub(crate) seed: u64,
}

/// One peer under one load in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    pub(crate) peer: Name,
    pub(crate) load: Load,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) requests_per_second: f64,
    /// CPU time of all proxies of the peer.
    pub(crate) cpu_us_per_request: f64,
    /// Of each of them, in the order of the path.
    pub(crate) cpu_us_per_request_of_each: Vec<f64>,
    /// Of the paced loads, in microseconds.
    pub(crate) p50_us: Option<u64>,
    /// Of the paced loads, in microseconds.
    pub(crate) p99_us: Option<u64>,
}

/// What a peer occupies, in bytes of resident memory of each proxy in the order of the path.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Memory {
    /// Before any load.
    pub(crate) idle: Vec<u64>,
    /// The part of it that is no file.
    pub(crate) idle_anonymous: Vec<u64>,
    /// While 1 000 connections are busy, before any other load.
    pub(crate) busy: Vec<u64>,
    /// After all loads.
    pub(crate) after: Vec<u64>,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) samples: Vec<Sample>,
    pub(crate) memory: HashMap<Name, Memory>,
    /// System calls of all proxies of a peer, per request, at the fixed rate over HTTP/1.
    pub(crate) syscalls: HashMap<Name, f64>,
    /// Why something is missing.
    pub(crate) skipped: Vec<String>,
}

/// Measures `peers` as `plan` says.
pub(crate) async fn all(plan: Plan, ground: &mut Ground, peers: &mut [Peer]) -> anyhow::Result<Results> {
    let mut results = Results::default();
    for peer in peers.iter().filter(|peer| !peer.proxies.is_empty()) {
        let (idle, idle_anonymous) = (peer.resident_bytes(), peer.anonymous_bytes());
        let busy = busy_memory(peer).await?;
        results.memory.insert(peer.name, Memory { idle, idle_anonymous, busy, after: Vec::new() });
    }
    for peer in peers.iter() {
        for load in Load::ALL {
            load.run(peer, Duration::from_millis(300), plan.rate).await.context("warming up")?;
        }
    }
    let mut chance = fastrand::Rng::with_seed(plan.seed);
    for round in 1..=plan.rounds {
        for load in Load::ALL {
            let mut order: Vec<usize> = (0..peers.len()).collect();
            chance.shuffle(&mut order);
            for index in order {
                let sample = one(plan, round, load, &peers[index]).await?;
                eprintln!(
                    "round {round}/{}  {:27} {:29} {:8.1} us/request  {:8.0} requests/s  {} failed",
                    plan.rounds,
                    load.title(),
                    peers[index].name.title(),
                    sample.cpu_us_per_request,
                    sample.requests_per_second,
                    sample.failed
                );
                results.samples.push(sample);
                peers[index].check()?;
                ground.check()?;
            }
        }
    }
    for peer in peers.iter().filter(|peer| !peer.proxies.is_empty()) {
        results.memory.entry(peer.name).or_default().after = peer.resident_bytes();
        match syscalls(peer, plan.rate).await {
            Ok(count) => _ = results.syscalls.insert(peer.name, count),
            Err(error) => results.skipped.push(format!("system calls of {}: {error:#}", peer.name.title())),
        }
    }
    Ok(results)
}

/// Puts `peer` under `load` once.
pub(crate) async fn one(plan: Plan, round: usize, load: Load, peer: &Peer) -> anyhow::Result<Sample> {
    let before = peer.cpu_nanos();
    let outcome = load.run(peer, plan.each, plan.rate).await?;
    let nanos = peer.cpu_nanos().into_iter().zip(before).map(|(after, before)| after.saturating_sub(before));
    let percentile = |percent: usize| {
        let rank = (outcome.latencies.len() * percent).div_ceil(100).saturating_sub(1);
        outcome.latencies.get(rank).copied()
    };
    let done = outcome.done.max(1) as f64;
    let each: Vec<f64> = nanos.map(|nanos| nanos as f64 / 1e3 / done).collect();
    Ok(Sample {
        round,
        peer: peer.name,
        load,
        done: outcome.done,
        failed: outcome.failed,
        requests_per_second: outcome.done as f64 / outcome.seconds,
        cpu_us_per_request: each.iter().fold(0.0, |sum, cpu| sum + cpu),
        cpu_us_per_request_of_each: each,
        p50_us: percentile(50),
        p99_us: percentile(99),
    })
}

/// Resident memory near the end of two seconds with 1 000 busy connections.
async fn busy_memory(peer: &Peer) -> anyhow::Result<Vec<u64>> {
    let shape = ["--h1", "-c1000"];
    let load = h2load(peer.http1, &shape, ("/1k", SMALL), Duration::from_secs(3));
    let look = async {
        sleep(Duration::from_millis(2500)).await;
        peer.resident_bytes()
    };
    let (outcome, memory) = tokio::join!(load, look);
    outcome.map(|_| memory)
}

/// System calls per request, counted by strace during two seconds at the fixed rate.
async fn syscalls(peer: &Peer, rate: u32) -> anyhow::Result<f64> {
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
        anyhow::ensure!(line.contains("attached"), "{line}");
    }
    let outcome = Load::Http1Paced.run(peer, Duration::from_secs(2), rate).await?;
    let pid = strace.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    rustix::process::kill_process(pid.context("strace is gone")?, rustix::process::Signal::INT)?;
    let mut calls = None;
    while let Some(line) = lines.next_line().await? {
        calls = line.trim().strip_suffix(" total").and_then(|count| count.trim().parse::<f64>().ok()).or(calls);
    }
    strace.wait().await?;
    Ok(calls.context("strace printed no total")? / outcome.done.max(1) as f64)
}
