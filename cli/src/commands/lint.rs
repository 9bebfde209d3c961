//! `selvedge lint`: what a control plane would say of the files of a directory and the objects of a cluster, without one.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow};
use selvedge_control_plane::{
    diagnostic::{Diagnostic, Severity},
    source::{Change, files, kubernetes},
    store,
};
use serde::Serialize;

/// Check the files of a directory as the control plane does, offline, or the objects of a cluster.
///
/// Exit code 0: nothing to complain of. 1: findings. 2: the directory or the cluster cannot be read, or wrong usage.
#[derive(Debug, clap::Args)]
pub struct LintArgs {
    /// The directory with YAML files.
    #[arg(required_unless_present = "kubernetes")]
    dir: Option<PathBuf>,
    /// Check the objects of a Kubernetes cluster, together with those of the directory where there is one. They are read and
    /// nothing is changed.
    #[arg(long)]
    kubernetes: bool,
    /// The file that names the cluster; when absent those that kubectl reads, else the cluster around this process.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
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
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Summary<'a> {
    errors: usize,
    warnings: usize,
    findings: &'a [Diagnostic],
}

/// Prints the findings; the exit code says whether there are any.
///
/// # Errors
/// The directory or the cluster cannot be read, or nobody reads what is printed.
pub fn run(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let mut sources = Vec::new();
    if let Some(dir) = &args.dir {
        sources.push((files::NAME, of_directory(dir)?));
    }
    if args.kubernetes {
        sources.push((kubernetes::NAME, of_cluster(args.kubeconfig.as_deref())?));
    }
    let findings = store::lint_all(sources);
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let summary = Summary { errors, warnings: findings.len() - errors, findings: &findings };
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, &summary)?;
            writeln!(out)?;
        }
        Output::Text => {
            let colours = out.is_terminal();
            for finding in &findings {
                writeln!(out, "{}\n", finding.render(colours))?;
            }
            writeln!(out, "{}", summary.sentence())?;
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn of_directory(dir: &Path) -> anyhow::Result<Vec<Change>> {
    if dir.is_file() {
        return Err(anyhow!("{} is a file: name the directory, of which every file is checked", dir.display()));
    }
    if !dir.is_dir() {
        return Err(anyhow!("there is no directory {}", dir.display()));
    }
    files::once(dir).map_err(|reason| anyhow!("{reason}"))
}

fn of_cluster(kubeconfig: Option<&Path>) -> anyhow::Result<Vec<Change>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let client = kubernetes::client(kubeconfig).await?;
        Ok(kubernetes::once(&client).await?)
    })
}

impl Summary<'_> {
    fn sentence(&self) -> String {
        let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        match (self.errors, self.warnings) {
            (0, 0) => "no findings".to_owned(),
            (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
        }
    }
}
