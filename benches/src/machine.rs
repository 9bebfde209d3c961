//! Where and with what a run was made, for whoever reads its figures later.

use std::{fs, path::Path, process::Command};

use serde::Serialize;

use crate::process::find;

/// The machine and the versions of what was measured.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The day of the run in UTC, as 2026-11-30.
    pub date: String,
    /// Name of the processor.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// The version of the Linux that it ran on, as `uname -r` says it.
    pub kernel: String,
    /// Programs and their versions.
    pub versions: Vec<String>,
    /// Load averages when the run began: how much the machine had to do besides.
    pub load_before: String,
}

impl Machine {
    /// What this machine, and the programs beside those in `binaries`, say of themselves.
    pub fn describe(binaries: &Path) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let known = [("envoy", "ENVOY", "--version"), ("haproxy", "HAPROXY", "-v"), ("nginx", "NGINX", "-v")];
        let peers = known.iter().filter_map(|(name, variable, flag)| version(&find(name, variable)?, flag));
        let ours = version(&binaries.join("selvedge-proxy"), "--version");
        Self {
            date: first_line(Command::new("date").args(["-u", "+%F"])).unwrap_or_default(),
            processor: processor.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            processors: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: first_line(Command::new("uname").arg("-r")).unwrap_or_default(),
            versions: ours.into_iter().chain(peers).collect(),
            load_before: fs::read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .split(' ')
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

fn version(program: &Path, flag: &str) -> Option<String> {
    let line = first_line(Command::new(program).arg(flag))?;
    Some(match (line.split_once("nginx version: "), line.split_once(" version: ")) {
        (Some((_, version)), _) => version.to_owned(),
        // Envoy prints its path and the hash of its source before what matters.
        (None, Some((_, rest))) => format!("Envoy {}", rest.split('/').nth(1).unwrap_or(rest)),
        _ => line.split(' ').take(3).collect::<Vec<_>>().join(" "),
    })
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
