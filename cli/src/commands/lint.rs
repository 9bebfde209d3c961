//! `selvedge lint DIR`: what a control plane would say of these files, without one.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::anyhow;
use selvedge_control_plane::{
    diagnostic::{Diagnostic, Severity},
    store,
};
use serde::Serialize;

/// Check the files of a directory as the control plane does, offline.
///
/// Exit code 0: nothing to complain of. 1: findings. 2: the directory cannot be read, or wrong usage.
#[derive(Debug, clap::Args)]
pub struct LintArgs {
    /// The directory with YAML files.
    dir: PathBuf,
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
/// The directory cannot be read, or nobody reads what is printed.
pub fn run(args: &LintArgs) -> anyhow::Result<ExitCode> {
    if args.dir.is_file() {
        return Err(anyhow!("{} is a file: name the directory, of which every file is checked", args.dir.display()));
    }
    if !args.dir.is_dir() {
        return Err(anyhow!("there is no directory {}", args.dir.display()));
    }
    let findings = store::lint(&args.dir).map_err(|reason| anyhow!("{reason}"))?;
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

impl Summary<'_> {
    fn sentence(&self) -> String {
        let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        match (self.errors, self.warnings) {
            (0, 0) => "no findings".to_owned(),
            (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
        }
    }
}
