//! `selvedge proxy`: the sidecar of the slim `selvedge-proxy` binary, for those who have only this one.

use std::path::PathBuf;

use selvedge_proxy::Bootstrap;

/// Run a sidecar until SIGTERM, then drain.
#[derive(Debug, clap::Args)]
pub struct ProxyArgs {
    /// The bootstrap file (YAML, see docs/sidecar.md).
    #[arg(long)]
    config: PathBuf,
}

/// Runs until the sidecar has drained.
///
/// # Errors
/// What keeps the sidecar from starting.
pub fn run(args: &ProxyArgs) -> anyhow::Result<()> {
    Ok(selvedge_proxy::run(Bootstrap::load(&args.config)?)?)
}
