//! `selvedge`: one binary for operators. Each command is a file of the library beside this one, in `commands/`.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use selvedge::{
    background, child,
    commands::{
        ca, completions, confirm, control_plane, down, inject, install, join, leave, lint, proxy, run, share, token,
        uninstall, up,
    },
    demo, logfile,
};
use tracing_subscriber::EnvFilter;

/// jemalloc gives memory back after a burst, which the C library's allocator does not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Selvedge: a service mesh that stays simple.
#[derive(Parser)]
#[command(name = "selvedge", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(up::UpArgs),
    Join(join::JoinArgs),
    Leave(leave::LeaveArgs),
    Down(down::DownArgs),
    Lint(lint::LintArgs),
    Install(install::InstallArgs),
    Uninstall(uninstall::UninstallArgs),
    ControlPlane(control_plane::ControlPlaneArgs),
    Confirm(confirm::ConfirmArgs),
    Token(token::TokenArgs),
    Ca(ca::CaArgs),
    Inject(inject::InjectArgs),
    Uninject(inject::UninjectArgs),
    Proxy(proxy::ProxyArgs),
    /// Run the example application behind sidecars, with load and planted faults.
    Demo(demo::DemoArgs),
    /// Redirect this network namespace's TCP connections to a sidecar, or stop doing so.
    #[command(subcommand)]
    Capture(selvedge_capture::Command),
    /// Run a command with a sidecar beside it.
    Run(run::RunArgs),
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    Share(share::ShareArgs),
    #[command(hide = true)]
    DemoService(demo::ServiceArgs),
    #[command(hide = true)]
    Background(background::BackgroundArgs),
    #[command(hide = true)]
    Child(child::ChildArgs),
}

/// What is logged by default. The client of Kubernetes tells of every try that failed; the control plane tells once what the
/// matter is.
const LOGGED: &str = "info,kube_client=off";

impl Command {
    /// What is logged where `SELVEDGE_LOG` says nothing.
    fn log(&self) -> &'static str {
        match self {
            // What is found is printed.
            Self::Lint(_) | Self::Install(_) => "warn,kube_client=off",
            _ => LOGGED,
        }
    }
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let filter = EnvFilter::try_from_env("SELVEDGE_LOG").unwrap_or_else(|_| command.log().into());
    // That nobody reads the log is no reason to end: an error about it would go where nobody reads, and panic.
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false).init();
    let done = |()| ExitCode::SUCCESS;
    let result = match command {
        Command::Up(args) => up::run(&args).map(done),
        Command::Join(args) => join::run(&args).map(done),
        Command::Leave(args) => leave::run(&args).map(done),
        Command::Down(args) => down::run(&args).map(done),
        Command::Lint(args) => lint::run(&args),
        Command::Install(args) => install::run(&args).map(done),
        Command::Uninstall(args) => uninstall::run(&args).map(done),
        Command::ControlPlane(args) => logfile::keep_small().and_then(|()| control_plane::run(args)).map(done),
        Command::Confirm(args) => confirm::run(&args).map(done),
        Command::Token(args) => token::run(args).map(done),
        Command::Ca(args) => ca::run(args).map(done),
        Command::Inject(args) => inject::run(&args).map(done),
        Command::Uninject(args) => inject::run_back(&args).map(done),
        Command::Proxy(args) => logfile::keep_small().and_then(|()| proxy::run(&args)).map(done),
        Command::Demo(args) => demo::run(&args).map(done),
        Command::Run(args) => run::run(args),
        Command::Completions(args) => completions::run(&args, Arguments::command()).map(done),
        Command::Share(args) => share::run(&args, Arguments::command()).map(done),
        Command::Capture(rules) => capture(&rules).map(done),
        Command::DemoService(args) => demo::run_service(args).map(done),
        Command::Background(args) => background::run(args).map(done),
        Command::Child(args) => child::run(args).map(done),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

fn capture(rules: &selvedge_capture::Command) -> anyhow::Result<()> {
    println!("{}", rules.run()?.trim_end());
    Ok(())
}
