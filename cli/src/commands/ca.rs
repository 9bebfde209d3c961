//! `selvedge ca`: the certificate authorities of a mesh, on the state directory of its control plane.

use std::path::PathBuf;

use anyhow::ensure;
use selvedge_control_plane::{
    clock::{self, rfc3339},
    identity::{Authority, Described, LEAF_LIFETIME, Role},
};

/// Show and rotate the certificate authority.
#[derive(Debug, clap::Args)]
pub struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CaCommand {
    /// List the authorities that are trusted, and what each does.
    Show(ShowArgs),
    /// Replace the authority without stopping anything: the running control plane takes the steps.
    Rotate(StateArgs),
}

#[derive(Debug, clap::Args)]
struct StateArgs {
    /// The control plane's state directory.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Trust domain of the mesh.
    #[arg(long, value_name = "TD", default_value = "mesh.local")]
    trust_domain: String,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    state: StateArgs,
    /// How to print.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the command.
///
/// # Errors
/// A state directory that cannot be used, or a rotation that is under way already.
pub fn run(args: CaArgs) -> anyhow::Result<()> {
    match args.command {
        CaCommand::Show(args) => show(&args),
        CaCommand::Rotate(args) => {
            open(&args)?.rotate(clock::unix())?;
            println!("A new CA is made. The control plane announces it, signs with it after one certificate lifetime,");
            println!("and drops the old one after another. `selvedge ca show` tells how far it is.");
            Ok(())
        }
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let authorities = open(&args.state)?.describe();
    if args.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&authorities)?);
        return Ok(());
    }
    println!("{:<18}{:<24}ROLE", "FINGERPRINT", "VALID UNTIL");
    for Described { fingerprint, role, not_after } in &authorities {
        println!("{:<18}{:<24}{}", &fingerprint[..16], rfc3339(*not_after), explain(*role));
    }
    Ok(())
}

fn open(args: &StateArgs) -> anyhow::Result<Authority> {
    let directory = args.state_dir.display();
    ensure!(
        Authority::is_founded(&args.state_dir),
        "there is no CA in {directory}; give the control plane's --state-dir"
    );
    Ok(Authority::open(&args.state_dir, &args.trust_domain, LEAF_LIFETIME, clock::unix())?)
}

fn explain(role: Role) -> String {
    let time = |unix: u64| rfc3339(i64::try_from(unix).unwrap_or(i64::MAX));
    match role {
        Role::Signs => "signs".to_owned(),
        Role::Requested => "waits for the control plane to announce it".to_owned(),
        Role::SignsFrom(from) => format!("trusted; signs from {}", time(from)),
        Role::TrustedUntil(until) => format!("signs no more; trusted until {}", time(until)),
    }
}
