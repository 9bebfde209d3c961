//! `selvedge down`: ends what `selvedge up` and `selvedge join` have started. What was written stays, and `up` starts it again.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::{
    home::{Home, HomeArgs},
    strays,
};

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
/// Something does not end.
pub fn run(args: &DownArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let home = args.home.find()?;
    let strays = runtime.block_on(strays::end(home.path(), SIDECAR))?;
    if strays > 0 {
        println!("{} was removed while it ran: what ran has ended ({strays})", home.path().display());
        if !home.is_made() {
            return Ok(());
        }
    }
    let (home, _lock) = args.home.enter()?;
    runtime.block_on(end(&home))
}

async fn end(home: &Home) -> anyhow::Result<()> {
    let names = home.joined()?;
    let places: Vec<_> = names.iter().map(|name| home.running_sidecar(name)).collect();
    let ends = places.iter().map(|place| place.end(SIDECAR));
    let mut failed = 0;
    for (name, ended) in names.iter().zip(futures_util::future::join_all(ends).await) {
        match ended {
            Ok(true) => println!("the sidecar {name} has ended"),
            Ok(false) => {}
            Err(error) => {
                eprintln!("error: the sidecar {name}: {error:#}");
                failed += 1;
            }
        }
    }
    if home.control_plane().end(CONTROL_PLANE).await.context("the control plane")? {
        println!("the control plane has ended");
    } else {
        println!("no control plane ran in {}", home.path().display());
    }
    ensure!(failed == 0, "{failed} of {} sidecars go on", names.len());
    Ok(())
}
