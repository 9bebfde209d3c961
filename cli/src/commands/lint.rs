//! `selvedge lint`: what a control plane would say of files and of the objects of a cluster, without one.

use std::{
    io::{self, ErrorKind, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use selvedge_control_plane::{
    clock,
    diagnostic::Severity,
    source::{Change, files, kubernetes},
    store::{self, Beside, Linted},
};

mod fix;
mod input;
mod print;
mod sarif;

/// Check files as the control plane does, offline, or the objects of a cluster.
///
/// Exit code 0: nothing to complain of. 1: errors or warnings. 2: something cannot be read, or wrong usage.
#[derive(Debug, clap::Args)]
pub struct LintArgs {
    /// Directories with YAML files, single files, or `-` for what comes in. All of it together is one mesh.
    #[arg(required_unless_present = "kubernetes", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Check the objects of a Kubernetes cluster, together with the files where there are any. They are read and nothing is
    /// changed.
    #[arg(long)]
    kubernetes: bool,
    /// The file that names the cluster; when absent those that kubectl reads, else the cluster around this process.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// The trust domain of the mesh, as its control plane has it.
    #[arg(long, value_name = "NAME", default_value = "mesh.local")]
    trust_domain: String,
    /// Write into the files what is certain, such as `10.0.0.0/8` for `10.1.2.3/8`, and say what is left.
    #[arg(long)]
    fix: bool,
    /// What to print.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Each finding with the lines it is about.
    Text,
    /// One JSON object.
    Json,
    /// SARIF 2.1.0, which code hosts and editors read.
    Sarif,
}

/// Prints the findings; the exit code says whether there are any.
///
/// # Errors
/// A path or the cluster cannot be read.
pub fn run(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let stdin = Path::new("-");
    if args.fix && args.paths.iter().any(|path| path == stdin) {
        bail!("--fix writes into files, and `-` is none");
    }
    let mut linted = lint(args)?;
    let mut fixed = 0;
    if args.fix {
        fixed = fix::write(&linted.findings)?;
        if fixed > 0 {
            linted = lint(args)?;
        }
    }
    match print(args.output, &linted, fixed) {
        // Whoever reads has seen enough; what there is to be said is said by the exit code.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        result => result.context("printing the findings")?,
    }
    let complaints = linted.findings.iter().filter(|finding| finding.severity != Severity::Note).count();
    Ok(if complaints == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn lint(args: &LintArgs) -> anyhow::Result<Linted> {
    let mut sources = Vec::new();
    let mut odd = Vec::new();
    if !args.paths.is_empty() {
        let mut changes = Vec::new();
        for path in &args.paths {
            let read = input::read(path)?;
            odd.extend(input::odd(path, &read));
            changes.extend(read);
        }
        sources.push((files::NAME, changes));
    }
    if args.kubernetes {
        sources.push((kubernetes::NAME, of_cluster(args.kubeconfig.as_deref())?));
    }
    let beside = Beside { trust_domain: &args.trust_domain, now: clock::unix() };
    let mut linted = store::lint_all(sources, beside);
    linted.findings.extend(odd);
    Ok(linted)
}

fn print(output: Output, linted: &Linted, fixed: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let colours = out.is_terminal();
    match output {
        Output::Json => print::json(&mut out, linted)?,
        Output::Sarif => sarif::print(&mut out, linted)?,
        Output::Text => print::text(&mut out, linted, fixed, colours)?,
    }
    out.flush()
}

fn of_cluster(kubeconfig: Option<&Path>) -> anyhow::Result<Vec<Change>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let client = kubernetes::client(kubeconfig).await?;
        Ok(kubernetes::once(&client).await?)
    })
}
