//! `selvedge-capture`: puts the rules in force in the network namespace it is started in, and ends.

use std::process::ExitCode;

use clap::Parser;
use selvedge_capture::Command;

/// Redirects this network namespace's TCP connections to the Selvedge sidecar, or stops doing so.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Arguments::parse().command.run() {
        Ok(told) => {
            println!("{}", told.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("selvedge-capture: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}
