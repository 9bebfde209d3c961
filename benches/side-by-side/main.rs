//! The same load through our pair of sidecars, through other proxies and through none, in one run: what a request
//! costs in CPU time and system calls, how long it takes, and what each proxy occupies.
//!
//! Guarantees: peers run at the same time and are visited in random order, so that a busy machine is busy for all of
//! them; a peer that is not installed is left out with a reason, and without nginx or h2load the whole comparison is;
//! published figures are never replaced by a run with fewer peers; nothing remains when it ends, also by Ctrl-C.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use selvedge_benches::{
    allow_many_files,
    machine::Machine,
    page,
    placement::{Placement, Processors},
    process, run,
};
use serde_json::{Value, json};

use crate::{
    ground::Ground,
    idle::Idle,
    measure::{Plan, Results},
    peer::{Name, Peer},
};

mod certificates;
mod ground;
mod idle;
mod load;
mod measure;
mod memory;
mod peer;
mod report;
mod syscalls;
mod versus;

/// Compare the cost of proxies side by side.
#[derive(Parser)]
#[command(name = "side-by-side")]
struct Arguments {
    /// One short round: a minute instead of fifteen; good enough to see that it works.
    #[arg(long)]
    quick: bool,
    /// How often every peer is put under every load.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Milliseconds of each load.
    #[arg(long, default_value_t = 1200)]
    each: u64,
    /// Requests per second where the rate is fixed.
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Order of the peers within the rounds.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Name>,
    /// Which processors proxies, load and application may use; all of these in each round.
    #[arg(long, value_delimiter = ',', default_values = ["free", "pinned", "single"])]
    placement: Vec<Placement>,
    /// Folder of `selvedge` and `selvedge-proxy`; that of this program when absent.
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Compare with an older build of ours instead, in this folder: alternately, with all sidecars on one processor, at
    /// least ten times each.
    #[arg(long, value_name = "DIR")]
    old: Option<PathBuf>,
    /// Write README.md's figures, results.json and side-by-side.svg into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Dropping the measurement ends every program and removes every file.
    let Err(error) = run::unless_told_to_end(measure(&arguments)).await else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let binaries = run::binaries(arguments.binaries.as_deref())?;
    let plan = plan(arguments);
    allow_many_files();
    if let Some(old) = &arguments.old {
        let plan = Plan { rounds: plan.rounds.max(versus::LEAST_ROUNDS), ..plan };
        return versus::run(old, &binaries, plan).await;
    }
    if let Err(missing) = ground::application().and(load::program()) {
        println!("skipped: side-by-side: {missing:#}");
        return Ok(());
    }
    let processors = Processors::find()?;
    let machine = Machine::describe(&binaries);
    let mut ground = Ground::prepare(binaries)?;
    let mut skipped = Vec::new();
    let mut peers = start(arguments, &ground, &mut skipped).await?;
    let idle = if peers.iter().any(|peer| peer.name.is_ours()) { Some(Idle::start(&ground).await?) } else { None };
    let mut results = measure::all(&plan, &processors, &mut ground, &mut peers, idle).await?;
    results.skipped.extend(skipped);
    for peer in peers.iter_mut().filter(|peer| peer.name.is_ours()) {
        peer.end().await?;
    }
    let tables = report::tables(&machine, &plan, &results);
    println!("{tables}");
    match &arguments.out {
        Some(folder) => publish(folder, &machine, &plan, &results, &tables),
        None => Ok(()),
    }
}

fn plan(arguments: &Arguments) -> Plan {
    let Arguments { quick, rate, seed, placement, .. } = arguments;
    let (rounds, each, busy) = if *quick { (1, 250, 1000) } else { (arguments.rounds, arguments.each, 3000) };
    Plan {
        rounds,
        each: Duration::from_millis(each),
        rate: *rate,
        seed: *seed,
        placements: placement.clone(),
        busy: Duration::from_millis(busy),
        rest: (!quick).then_some(Duration::from_secs(10)),
    }
}

/// Starts the peers that were asked for; one that is not ours may be missing.
async fn start(arguments: &Arguments, ground: &Ground, skipped: &mut Vec<String>) -> anyhow::Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for name in Name::ALL.into_iter().filter(|name| arguments.peers.is_empty() || arguments.peers.contains(name)) {
        match name.start(ground).await {
            Ok(peer) => peers.push(peer),
            Err(error) if name.is_ours() => return Err(error),
            Err(error) => {
                eprintln!("skipped: {}: {error:#}", name.title());
                skipped.push(format!("{}: {error:#}", name.title()));
            }
        }
    }
    Ok(peers)
}

/// Writes the figures into `folder`, unless those there are of peers that this run has not measured.
fn publish(folder: &Path, machine: &Machine, plan: &Plan, results: &Results, tables: &str) -> anyhow::Result<()> {
    let lost = lost(&fs::read(folder.join("results.json")).unwrap_or_default(), results);
    if !lost.is_empty() {
        let (folder, lost) = (folder.display(), lost.join(", "));
        eprintln!("not published: {folder} has figures of peers that were not measured here and would be lost: {lost}");
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    let json = json!({ "machine": machine, "plan": plan, "results": results });
    fs::write(folder.join("results.json"), format!("{}\n", serde_json::to_string_pretty(&json)?))?;
    fs::write(folder.join("side-by-side.svg"), report::chart(results, &plan.placements))?;
    page::replace(&folder.join("README.md"), "side-by-side", tables)
}

/// The peers of the `published` results.json, and their placements, that `results` does not have.
fn lost(published: &[u8], results: &Results) -> Vec<String> {
    let published: Value = serde_json::from_slice(published).unwrap_or_default();
    let samples = published["results"]["samples"].as_array().into_iter().flatten();
    let named = |sample: &Value| {
        let peer: Name = serde_json::from_value(sample["peer"].clone()).ok()?;
        Some((peer, serde_json::from_value::<Placement>(sample["placement"].clone()).ok()?))
    };
    let before: BTreeSet<_> = samples.filter_map(named).collect();
    let now: BTreeSet<_> = results.samples.iter().map(|sample| (sample.peer, sample.placement)).collect();
    before.difference(&now).map(|(peer, placement)| format!("{} ({})", peer.title(), placement.title())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{load::Load, measure::Sample};

    fn results(peers: &[(Name, Placement)]) -> Results {
        let sample = |(peer, placement): &(Name, Placement)| Sample {
            round: 1,
            placement: *placement,
            peer: *peer,
            load: Load::Http1Paced,
            done: 1,
            failed: 0,
            requests_per_second: 1.0,
            cpu_us_per_request: 3.0,
            cpu_us_per_request_of_each: vec![1.0, 2.0],
            p50_us: None,
            p99_us: None,
        };
        Results { samples: peers.iter().map(sample).collect(), ..Results::default() }
    }

    #[test]
    fn a_run_without_envoy_does_not_replace_figures_of_envoy() {
        let everywhere = |name| [(name, Placement::Free), (name, Placement::Pinned)];
        let all = [everywhere(Name::Selvedge), everywhere(Name::Envoy)].concat();
        let published = json!({ "results": results(&all) }).to_string();
        let lost = |peers: &[_]| lost(published.as_bytes(), &results(peers));
        let others = [everywhere(Name::Selvedge), everywhere(Name::Haproxy)].concat();
        assert_eq!(lost(&others), ["Envoy pair (free)", "Envoy pair (pinned)"]);
        assert_eq!(lost(&all[..3]), ["Envoy pair (pinned)"]);
        assert!(lost(&[all, others].concat()).is_empty());
        assert!(super::lost(b"", &results(&[])).is_empty(), "nothing is published yet");
    }
}
