//! `selvedge leave NAME`: takes a process that `selvedge join` brought into the mesh out of it again.

use std::fs;

use anyhow::{Context, bail};

use super::{down, join};
use crate::home::HomeArgs;

/// Take a process that was joined here out of the mesh: its `Workload`, then its sidecar, once what is in flight is answered.
#[derive(Debug, clap::Args)]
pub struct LeaveArgs {
    /// Its name, as `selvedge join` has printed it.
    name: String,
    #[command(flatten)]
    home: HomeArgs,
}

/// Returns when the sidecar has ended.
///
/// # Errors
/// Nobody of this name was joined here, or its sidecar does not end.
pub fn run(args: &LeaveArgs) -> anyhow::Result<()> {
    let (home, name) = (args.home.find()?, &args.name);
    let joined = if home.path().exists() { home.joined()? } else { Vec::new() };
    if !joined.contains(name) {
        match joined.as_slice() {
            [] => bail!("nobody was joined in {}", home.path().display()),
            _ => bail!("there is no {name} in {}; there are {}", home.path().display(), joined.join(", ")),
        }
    }
    // Whoever is told of it calls others from now on, while the sidecar answers what comes yet.
    let workload = join::workload_file(&home, name);
    match fs::remove_file(&workload) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("removing {}", workload.display()));
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(home.running_sidecar(name).end(down::SIDECAR)).context("ending the sidecar")?;
    let folder = home.sidecar(name);
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    println!("{name} has left the mesh");
    Ok(())
}
