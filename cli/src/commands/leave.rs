//! `selvedge leave NAME`: takes a process that `selvedge join` brought into the mesh out of it again.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, bail};
use tokio::time::sleep;

use super::{down, join};
use crate::{
    home::{Home, HomeArgs},
    probe,
};

/// How often the control plane is told that a file is gone on purpose, and how long it has in between to see it.
const CONFIRMS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

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
    let ((home, _lock), name) = (args.home.enter()?, &args.name);
    let joined = home.joined()?;
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
    runtime.block_on(async {
        home.running_sidecar(name).end(down::SIDECAR).await.context("ending the sidecar")?;
        confirm(&home, &workload).await
    })?;
    let folder = home.sidecar(name);
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    println!("{name} has left the mesh");
    Ok(())
}

/// Tells the control plane, where one runs, that the file is gone on purpose; otherwise `/status` complains of it. It may not have
/// seen yet that it is gone.
async fn confirm(home: &Home, workload: &Path) -> anyhow::Result<()> {
    let Some(admin) = home.control_plane().running()?.and_then(|_| home.control_plane().port("admin")) else {
        return Ok(());
    };
    let body = serde_json::to_vec(&[workload]).context("the path is not UTF-8")?;
    for _ in 0..CONFIRMS {
        if probe::send(admin, "/confirm", body.clone()).await?.status.is_success() {
            break;
        }
        sleep(PAUSE).await;
    }
    Ok(())
}
