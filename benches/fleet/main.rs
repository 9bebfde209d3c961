//! A control plane and as many sidecars as a large mesh has: how soon the last of them hears of a change, what the
//! control plane and a sidecar occupy, and how soon a sidecar is ready.
//!
//! Control plane and sidecars are the real programs; of the fleet only the discovery streams are real, each with TLS,
//! a workload's identity and an address of its own. Guarantees: nothing remains when it ends, also by Ctrl-C.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Parser;
use rustix::thread::{CpuSet, sched_getaffinity};
use selvedge_benches::{machine::Machine, page, process, run};

use crate::{
    brain::Brain,
    fleet::{Fleet, Pushed},
};

mod brain;
mod fleet;
mod member;
mod sidecar;
mod wire;

/// Measure a control plane and its sidecars at the size of a large mesh.
#[derive(Parser)]
#[command(name = "fleet")]
struct Arguments {
    /// A tenth of the sidecars and of the changes.
    #[arg(long)]
    quick: bool,
    /// How many sidecars are connected, at each measurement.
    #[arg(long, value_delimiter = ',', default_values_t = [2_000, 10_000])]
    sidecars: Vec<usize>,
    /// Of those, how many connect at a time: each of these in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 10_000])]
    at_once: Vec<usize>,
    /// Processors that the control plane has to itself: each of these in turn. The sidecars are played on the others, and on
    /// all when none is left.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    processors: Vec<usize>,
    /// Leave the real sidecars out.
    #[arg(long)]
    pushes_only: bool,
    /// How often an endpoint changes, at each measurement.
    #[arg(long, default_value_t = 30)]
    changes: usize,
    /// Folder of `selvedge` and `selvedge-proxy`; that of this program when absent.
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Write the figures into README.md of this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Draw in this file what a sidecar costs at a change, by how many there are.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run::unless_told_to_end(measure(&arguments)))
}

/// Moves this process away from the processors of the control plane, and returns those.
fn place(all: &CpuSet, count: usize) -> anyhow::Result<CpuSet> {
    let (mut brain, mut others) = (CpuSet::new(), CpuSet::new());
    for processor in (0..CpuSet::MAX_CPU).filter(|processor| all.is_set(*processor)) {
        if (brain.count() as usize) < count { brain.set(processor) } else { others.set(processor) }
    }
    process::bind(std::process::id(), if others.count() == 0 { all } else { &others })?;
    Ok(brain)
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    selvedge_benches::allow_many_files();
    let binaries = run::binaries(arguments.binaries.as_deref())?;
    let all = sched_getaffinity(None)?;
    let Machine { date, processors, processor, kernel, load_before, .. } = Machine::describe(&binaries);
    let mut tables = format!(
        "Measured {date} on {processors} x {processor}, Linux {kernel}; load average when the run began: {load_before}.\n\n"
    );
    if !arguments.pushes_only {
        tables += &sidecars(&binaries, &all).await?;
    }
    let mut pushes = Vec::new();
    for count in arguments.processors.iter().copied() {
        let place = place(&all, count)?;
        for at_once in arguments.at_once.iter().copied() {
            for sidecars in arguments.sidecars.iter().copied() {
                pushes.push(changed(arguments, &binaries, (&place, sidecars, at_once)).await?);
            }
        }
    }
    tables += &fleet::table(&pushes);
    println!("{tables}");
    if let Some(file) = &arguments.picture {
        fs::write(file, fleet::picture(&pushes)).with_context(|| format!("writing {}", file.display()))?;
    }
    match &arguments.out {
        Some(folder) => page::replace(&folder.join("README.md"), "fleet", &tables),
        None => Ok(()),
    }
}

/// A real sidecar in a small and in a large mesh.
async fn sidecars(binaries: &Path, all: &CpuSet) -> anyhow::Result<String> {
    let folder = folder()?;
    let mut brain = Brain::start(binaries, folder.path(), &place(all, 1)?).await?;
    let mut figures = vec![sidecar::measure(&brain, binaries, "a mesh of 1 service").await?];
    brain.grow().await?;
    figures.push(sidecar::measure(&brain, binaries, "a mesh of 1 000 services").await?);
    Ok(sidecar::table(&figures))
}

/// What changes cost a control plane with these processors, to which so many sidecars have connected, so many at once.
async fn changed(
    arguments: &Arguments,
    binaries: &Path,
    (processors, sidecars, at_once): (&CpuSet, usize, usize),
) -> anyhow::Result<Pushed> {
    let share = if arguments.quick { 10 } else { 1 };
    let folder = folder()?;
    let mut brain = Brain::start(binaries, folder.path(), processors).await?;
    brain.grow().await?;
    let mut fleet = Fleet::connect(&brain, sidecars / share, at_once).await?;
    let pushed = fleet.measure(&mut brain, (arguments.changes / share).max(2)).await?;
    // Not killed: one that counts for the compiler (benches/release) writes what it counted when it ends.
    brain.process.end().await?;
    Ok(pushed)
}

fn folder() -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("selvedge-fleet-").tempdir().context("a temporary folder")
}
