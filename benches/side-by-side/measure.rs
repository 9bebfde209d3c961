//! The rounds: every peer under every load in every placement, in random order, several times; memory and system calls
//! before and after.

use std::{collections::HashMap, time::Duration};

use anyhow::Context;
use selvedge_benches::placement::{Placement, Processors};
use serde::Serialize;

use crate::{
    ground::Ground,
    idle::{Idle, Rest},
    load::Load,
    memory::{self, Memory},
    peer::{Name, Peer},
    syscalls::{self, Calls},
};

/// How much is measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    /// How often every peer is put under every load in each placement.
    pub(crate) rounds: usize,
    /// For how long each time.
    pub(crate) each: Duration,
    /// Requests per second of the paced loads.
    pub(crate) rate: u32,
    /// Order of the rounds.
    pub(crate) seed: u64,
    /// Which processors are used.
    pub(crate) placements: Vec<Placement>,
    /// For how long connections are busy while memory is looked at.
    pub(crate) busy: Duration,
    /// How long memory is given to come back when they are closed; without it there is no larger crowd either.
    pub(crate) rest: Option<Duration>,
}

/// What a sample is of: one load in one placement in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) round: usize,
    pub(crate) placement: Placement,
    pub(crate) load: Load,
}

/// One peer in one turn.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    pub(crate) placement: Placement,
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

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) samples: Vec<Sample>,
    pub(crate) memory: HashMap<Name, Memory>,
    /// At the fixed rate over HTTP/1, free.
    pub(crate) syscalls: HashMap<Name, Calls>,
    /// Of our sidecars with many peers.
    pub(crate) idle: Option<Rest>,
    /// Why something is missing.
    pub(crate) skipped: Vec<String>,
}

/// Measures `peers` as `plan` says.
pub(crate) async fn all(
    plan: &Plan,
    processors: &Processors,
    ground: &mut Ground,
    peers: &mut [Peer],
    mut idle: Option<Idle>,
) -> anyhow::Result<Results> {
    let mut results = Results { memory: memory::before(plan, peers).await?, ..Results::default() };
    for peer in peers.iter() {
        for load in Load::ALL {
            load.run(peer, plan.each / 4, plan.rate).await.context("warming up")?;
        }
    }
    if let Some(idle) = &mut idle {
        idle.begin();
    }
    let mut chance = fastrand::Rng::with_seed(plan.seed);
    for round in 1..=plan.rounds {
        for placement in plan.placements.iter().copied() {
            place(placement, processors, ground, peers)?;
            for load in Load::ALL {
                let mut order: Vec<usize> = (0..peers.len()).collect();
                chance.shuffle(&mut order);
                for index in order {
                    let sample = one(plan, Turn { round, placement, load }, &peers[index]).await?;
                    tell(plan, &sample);
                    results.samples.push(sample);
                    peers[index].check()?;
                    ground.check()?;
                }
            }
        }
    }
    results.idle = idle.map(|idle| idle.end()).transpose()?;
    place(Placement::Free, processors, ground, peers)?;
    for peer in peers.iter().filter(|peer| !peer.proxies.is_empty()) {
        results.memory.entry(peer.name).or_default().after = peer.resident_bytes();
        match syscalls::count(peer, plan).await {
            Ok(calls) => _ = results.syscalls.insert(peer.name, calls),
            Err(error) => results.skipped.push(format!("system calls of {}: {error:#}", peer.name.title())),
        }
    }
    Ok(results)
}

fn place(placement: Placement, processors: &Processors, ground: &Ground, peers: &[Peer]) -> anyhow::Result<()> {
    let others = peers.iter().flat_map(|peer| &peer.support).chain([&ground.application]);
    placement.apply(processors, peers.iter().flat_map(|peer| &peer.proxies), others)
}

fn tell(plan: &Plan, sample: &Sample) {
    eprintln!(
        "round {}/{}  {:13}  {:34} {:29} {:8.1} us/request  {:8.0} requests/s  {} failed",
        sample.round,
        plan.rounds,
        sample.placement.title(),
        sample.load.title(),
        sample.peer.title(),
        sample.cpu_us_per_request,
        sample.requests_per_second,
        sample.failed
    );
}

/// Puts `peer` under the load of this turn once.
pub(crate) async fn one(plan: &Plan, turn: Turn, peer: &Peer) -> anyhow::Result<Sample> {
    let before = peer.cpu_nanos();
    let outcome = turn.load.run(peer, plan.each, plan.rate).await?;
    let nanos = peer.cpu_nanos().into_iter().zip(before).map(|(after, before)| after.saturating_sub(before));
    let percentile = |percent: usize| {
        let rank = (outcome.latencies.len() * percent).div_ceil(100).saturating_sub(1);
        outcome.latencies.get(rank).copied()
    };
    let done = outcome.done.max(1) as f64;
    let each: Vec<f64> = nanos.map(|nanos| nanos as f64 / 1e3 / done).collect();
    Ok(Sample {
        round: turn.round,
        placement: turn.placement,
        peer: peer.name,
        load: turn.load,
        done: outcome.done,
        failed: outcome.failed,
        requests_per_second: outcome.done as f64 / outcome.seconds,
        cpu_us_per_request: each.iter().fold(0.0, |sum, cpu| sum + cpu),
        cpu_us_per_request_of_each: each,
        p50_us: percentile(50),
        p99_us: percentile(99),
    })
}
