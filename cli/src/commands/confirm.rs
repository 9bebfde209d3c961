//! `selvedge confirm PATH`: says that what is missing of the configuration is meant to be.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, bail};
use http::StatusCode;

use crate::probe;

/// Say that a file or folder of the configuration that is empty, unreadable or gone is meant to be.
///
/// The control plane keeps what such a file said last in force, since it may be an accident; this takes it away. It also
/// ends the finding about a file that was removed.
#[derive(Debug, clap::Args)]
pub struct ConfirmArgs {
    /// The file or folder, as the finding names it; of a folder everything below it.
    path: PathBuf,
    /// The control plane's admin port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15014")]
    admin: SocketAddr,
}

/// Asks the control plane, and prints what was confirmed.
///
/// # Errors
/// No control plane answers, or nothing there waits to be confirmed.
pub fn run(args: &ConfirmArgs) -> anyhow::Result<()> {
    let ConfirmArgs { path, admin } = args;
    let absolute = std::path::absolute(path).with_context(|| format!("'{}' is no path", path.display()))?;
    let body = serde_json::to_vec(&[path, &absolute]).context("the path is not UTF-8")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let answer = runtime.block_on(probe::send(*admin, "/confirm", body)).with_context(|| {
        format!("no control plane answers on {admin}: is it running on this machine, and is that its --admin address?")
    })?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => bail!(
            "nothing at {} waits to be confirmed; `findings` of http://{admin}/status say what is missing",
            path.display()
        ),
        status => bail!("the control plane on {admin} refuses: {} ({status})", answer.body.trim()),
    }
    let confirmed: Vec<String> =
        serde_json::from_str(&answer.body).context("reading the answer of the control plane")?;
    for origin in confirmed {
        println!("confirmed: {origin}");
    }
    Ok(())
}
