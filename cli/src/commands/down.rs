//! `selvedge down`: ends what `selvedge up` and `selvedge join` have started. What was written stays, and `up` starts it again.

use std::time::Duration;

use anyhow::Context;

use crate::home::HomeArgs;

/// How long a sidecar has for what is in flight; its drain ends before.
pub(super) const SIDECAR: Duration = Duration::from_secs(40);
/// How long a control plane has.
const CONTROL_PLANE: Duration = Duration::from_secs(15);

/// End the mesh on this machine: the sidecars, once what is in flight is answered, then the control plane.
///
/// What was written stays: `selvedge up` starts all of it again.
#[derive(Debug, clap::Args)]
pub struct DownArgs {
    #[command(flatten)]
    home: HomeArgs,
}

/// Returns when everything has ended.
///
/// # Errors
/// Something does not end; what comes after it goes on.
pub fn run(args: &DownArgs) -> anyhow::Result<()> {
    let home = args.home.find()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let names = if home.path().exists() { home.joined()? } else { Vec::new() };
        let places: Vec<_> = names.iter().map(|name| home.running_sidecar(name)).collect();
        let ends = places.iter().map(|place| place.end(SIDECAR));
        for (name, ended) in names.iter().zip(futures_util::future::join_all(ends).await) {
            if ended.with_context(|| format!("the sidecar {name}"))? {
                println!("the sidecar {name} has ended");
            }
        }
        if home.control_plane().end(CONTROL_PLANE).await.context("the control plane")? {
            println!("the control plane has ended");
        } else {
            println!("no control plane ran in {}", home.path().display());
        }
        Ok(())
    })
}
