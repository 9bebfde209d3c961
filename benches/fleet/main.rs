//! One control plane and as many sidecars as a large mesh has: how soon the last of them hears of a change, what the
//! control plane and a sidecar occupy, and how soon a sidecar is ready.
//!
//! Control plane and sidecars are the real programs; of the fleet only the discovery streams are real, each with TLS,
//! a workload's identity and an address of its own. Guarantees: nothing remains when it ends, also by Ctrl-C.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use selvedge_benches::page;
use tokio::signal::unix::{SignalKind, signal};

use crate::{brain::Brain, fleet::Fleet};

mod brain;
mod fleet;
mod member;
mod sidecar;

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
    /// How often an endpoint changes, at each measurement.
    #[arg(long, default_value_t = 30)]
    changes: usize,
    /// Folder of `selvedge` and `selvedge-proxy`; that of this program when absent.
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Write the figures into README.md of this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = run(&arguments) => result,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
    })
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    selvedge_benches::allow_many_files();
    let beside = || std::env::current_exe().ok()?.parent().map(Path::to_path_buf);
    let binaries =
        arguments.binaries.clone().or_else(beside).context("where are the binaries? name them: --binaries")?;
    let share = if arguments.quick { 10 } else { 1 };
    let folder = tempfile::Builder::new().prefix("selvedge-fleet-").tempdir().context("a temporary folder")?;
    let mut brain = Brain::start(&binaries, folder.path()).await?;
    let mut figures = vec![sidecar::measure(&brain, &binaries, "a mesh of 1 service").await?];
    brain.grow().await?;
    figures.push(sidecar::measure(&brain, &binaries, "a mesh of 1 000 services").await?);
    let mut tables = sidecar::table(&figures);
    let mut fleet = Fleet::join(&brain).await?;
    let mut pushes = Vec::new();
    for count in &arguments.sidecars {
        fleet.grow(count / share).await?;
        pushes.push(fleet.measure(&mut brain, (arguments.changes / share).max(2)).await?);
    }
    tables += &fleet::table(&pushes);
    println!("{tables}");
    match &arguments.out {
        Some(folder) => page::replace(&folder.join("README.md"), "fleet", &tables),
        None => Ok(()),
    }
}
