//! `selvedge-cni`: captures the connections of pods that ask for it, chained behind the cluster's own network plugin, and
//! puts itself into that chain.
//!
//! A runtime starts it for every pod of a node, so what it guarantees first is what it does not do: for a pod that does not
//! ask, nothing but to pass on what it was given ([`plugin`]). [`install`] changes a node by renames alone.

use std::process::ExitCode;

use clap::Parser;

mod plugin;
mod install;
mod watch;

/// The Selvedge CNI plugin: captures pods without rights of their own. Started by a runtime it follows the CNI specification
/// (1.1); these commands put it on a node.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Copy this program to the node, then add it to the chain of network plugins
    Install(install::Node),
    /// Take it out of every chain, then remove the program
    Remove(install::Node),
    /// Install, and again whenever somebody else writes the chain anew, until SIGTERM
    Watch(watch::Watch),
    /// Succeed if it is installed, for a readiness probe
    Check(install::Node),
}

fn main() -> ExitCode {
    if let Ok(command) = std::env::var("CNI_COMMAND") {
        return plugin::main(&command);
    }
    let outcome = match Arguments::parse().command {
        Command::Install(node) => node.install(),
        Command::Remove(node) => node.remove(),
        Command::Watch(watch) => watch.run(),
        Command::Check(node) => node.check(),
    };
    match outcome {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("selvedge-cni: {error}");
            ExitCode::FAILURE
        }
    }
}
