//! One control plane and as many sidecars as a large mesh has: how soon the last of them hears of a change, what the
//! control plane and a sidecar occupy, and how soon a sidecar is ready.
//!
//! Control plane and sidecars are the real programs; of the fleet only the discovery streams are real, each with TLS,
//! a workload's identity and an address of its own. Guarantees: nothing remains when it ends, also by Ctrl-C.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::Parser;
use rustix::thread::{CpuSet, sched_getaffinity};
use selvedge_benches::{page, process, run};

use crate::{brain::Brain, fleet::Fleet};

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
    /// Of those, how many connect at a time.
    #[arg(long, default_value_t = 64)]
    at_once: usize,
    /// Processors that the control plane has to itself. The sidecars are played on the others, and on all when none is left.
    #[arg(long, default_value_t = 1)]
    processors: usize,
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
fn place(count: usize) -> anyhow::Result<CpuSet> {
    let all = sched_getaffinity(None)?;
    let (mut brain, mut others) = (CpuSet::new(), CpuSet::new());
    for processor in (0..CpuSet::MAX_CPU).filter(|processor| all.is_set(*processor)) {
        if (brain.count() as usize) < count { brain.set(processor) } else { others.set(processor) }
    }
    process::bind(std::process::id(), if others.count() == 0 { &all } else { &others })?;
    Ok(brain)
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    selvedge_benches::allow_many_files();
    let binaries = run::binaries(arguments.binaries.as_deref())?;
    let share = if arguments.quick { 10 } else { 1 };
    let folder = tempfile::Builder::new().prefix("selvedge-fleet-").tempdir().context("a temporary folder")?;
    let mut brain = Brain::start(&binaries, folder.path(), &place(arguments.processors)?).await?;
    let mut tables = if arguments.pushes_only {
        brain.grow().await?;
        String::new()
    } else {
        let mut figures = vec![sidecar::measure(&brain, &binaries, "a mesh of 1 service").await?];
        brain.grow().await?;
        figures.push(sidecar::measure(&brain, &binaries, "a mesh of 1 000 services").await?);
        sidecar::table(&figures)
    };
    let mut fleet = Fleet::join(&brain, arguments.at_once).await?;
    let mut pushes = Vec::new();
    for count in &arguments.sidecars {
        fleet.grow(count / share).await?;
        pushes.push(fleet.measure(&mut brain, (arguments.changes / share).max(2)).await?);
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
