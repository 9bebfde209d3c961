//! `selvedge-proxy`: the sidecar, and the redirect rules that bring it its traffic.

use std::process::ExitCode;

use clap::Parser;
use selvedge_proxy::{Arguments, BootstrapSource, Command};

/// jemalloc keeps a sidecar small: it gives memory back after a burst, which the C library's allocator does not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("SELVEDGE_LOG").unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        // That nobody reads the log is no reason to end: an error about it would go where nobody reads, and panic.
        .log_internal_errors(false)
        .init();
    match Arguments::parse().command {
        Command::Run { bootstrap, replace } => end(run(&bootstrap, replace)),
        Command::Leave(leave) => end(leave.run().map_err(Into::into)),
        Command::Capture(rules) => end(redirect(&rules)),
    }
}

fn run(bootstrap: &BootstrapSource, replace: bool) -> Result<(), Box<dyn std::error::Error>> {
    Ok(selvedge_proxy::run(bootstrap.load()?, replace)?)
}

fn redirect(rules: &selvedge_capture::Command) -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", rules.run()?.trim_end());
    Ok(())
}

/// Prints an error with all its causes.
fn end(result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let mut message = format!("selvedge-proxy: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    eprintln!("{message}");
    ExitCode::FAILURE
}
