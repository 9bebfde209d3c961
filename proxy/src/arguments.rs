//! What the program takes: its commands and their flags, for itself and for whoever writes its manual.

use clap::{Parser, Subcommand};

use crate::{bootstrap::Source, leave};

/// The Selvedge sidecar: it takes the calls of the workload beside it, in and out.
#[derive(Parser)]
#[command(name = "selvedge-proxy", version)]
pub struct Arguments {
    /// What it is to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Subcommand)]
pub enum Command {
    /// Run the sidecar until SIGTERM, then drain.
    Run {
        /// Says where the sidecar's settings are.
        #[command(flatten)]
        bootstrap: Source,
        /// Take the place of the sidecar that runs with this state directory, without a refused connection; started as usual
        /// where none runs.
        #[arg(long)]
        replace: bool,
    },
    /// Take the workload out of the mesh before it ends, as a preStop hook: returns when its callers have been told.
    Leave(leave::Command),
    /// Redirect this network namespace's TCP connections to the sidecar, or stop doing so.
    #[command(subcommand)]
    Capture(selvedge_capture::Command),
}
