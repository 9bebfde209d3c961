//! `selvedge proxy`: the sidecar of the slim `selvedge-proxy` binary, for those who have only this one.

use selvedge_proxy::BootstrapSource;

/// Run a sidecar until SIGTERM, then drain.
#[derive(Debug, clap::Args)]
pub struct ProxyArgs {
    #[command(flatten)]
    bootstrap: BootstrapSource,
    /// Take the place of the sidecar that runs with this state directory, without a refused connection; started as usual where
    /// none runs.
    #[arg(long)]
    replace: bool,
}

/// Runs until the sidecar has drained.
///
/// # Errors
/// What keeps the sidecar from starting.
pub fn run(args: &ProxyArgs) -> anyhow::Result<()> {
    Ok(selvedge_proxy::run(args.bootstrap.load()?, args.replace)?)
}
