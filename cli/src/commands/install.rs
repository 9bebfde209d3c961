//! `selvedge install`: prints what a cluster needs to have a mesh, for `kubectl apply`.

use std::io::Write;

use anyhow::Context;
use selvedge_install::{crd, text};

/// Print what a cluster needs, for `kubectl apply --server-side -f -`.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    /// Only the definitions of the kinds that users write, for a control plane that runs elsewhere.
    #[arg(long, required = true)]
    crds: bool,
}

/// Prints the objects.
///
/// # Errors
/// Output that nobody takes.
pub fn run(_: &InstallArgs) -> anyhow::Result<()> {
    let text = text::yaml(&crd::all()).context("the objects cannot be written as YAML")?;
    std::io::stdout().write_all(text.as_bytes()).context("nobody takes the output")
}
