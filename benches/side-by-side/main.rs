//! The same load through our pair of sidecars, through other proxies and through none, in one run: what a request
//! costs in CPU time and system calls, how long it takes, and what each proxy occupies.
//!
//! Guarantees: peers run at the same time and are visited in random order, so that a busy machine is busy for all of
//! them; a peer that is not installed is left out with a reason; nothing remains when it ends, also by Ctrl-C.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use selvedge_benches::{allow_many_files, page, process};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    ground::Ground,
    machine::Machine,
    measure::{Plan, Results},
    peer::{Name, Peer},
};

mod certificates;
mod client;
mod ground;
mod load;
mod machine;
mod measure;
mod peer;
mod port;
mod report;

/// Compare the cost of proxies side by side.
#[derive(Parser)]
#[command(name = "side-by-side")]
struct Arguments {
    /// One short round: a minute instead of six; good enough to see that it works.
    #[arg(long)]
    quick: bool,
    /// How often every peer is put under every load.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Milliseconds of each load.
    #[arg(long, default_value_t = 2500)]
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
    /// Folder of `selvedge` and `selvedge-proxy`; that of this program when absent.
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Write README.md's figures, results.json and side-by-side.svg into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Err(error) = until_told_to_stop(&Arguments::parse()).await else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Dropping the run ends every program and removes every file.
async fn until_told_to_stop(arguments: &Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = run(arguments) => result,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    allow_many_files();
    let beside = || std::env::current_exe().ok()?.parent().map(Path::to_path_buf);
    let binaries =
        arguments.binaries.clone().or_else(beside).context("where are the binaries? name them: --binaries")?;
    let machine = Machine::describe(&binaries);
    let mut ground = Ground::prepare(binaries)?;
    let mut skipped = Vec::new();
    let mut peers = start(arguments, &ground, &mut skipped).await?;
    let (rounds, each) = if arguments.quick { (1, 1000) } else { (arguments.rounds, arguments.each) };
    let plan = Plan { rounds, each: Duration::from_millis(each), rate: arguments.rate, seed: arguments.seed };
    let mut results = measure::all(plan, &mut ground, &mut peers).await?;
    results.skipped.extend(skipped);
    let tables = report::tables(&machine, plan, &results);
    println!("{tables}");
    match &arguments.out {
        Some(folder) => publish(folder, &machine, plan, &results, &tables),
        None => Ok(()),
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

fn publish(folder: &Path, machine: &Machine, plan: Plan, results: &Results, tables: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let json = json!({ "machine": machine, "plan": plan, "results": results });
    fs::write(folder.join("results.json"), format!("{}\n", serde_json::to_string_pretty(&json)?))?;
    fs::write(folder.join("side-by-side.svg"), report::chart(results))?;
    page::replace(&folder.join("README.md"), "side-by-side", tables)
}
