//! Running the packet filter tools.

use std::{
    io::{ErrorKind, Write},
    process::{Command, Stdio},
};

/// Why a tool did not do what it was told.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is not installed.
    Missing,
    /// It said no; this is what it printed.
    Refused(String),
}

impl Failure {
    /// Whether it refused for want of privileges, which says nothing about the rules.
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused(output) if output.contains("ermission denied") || output.contains("not permitted"))
    }
}

/// A program with fixed arguments.
pub(super) struct Tool<'a> {
    pub(super) program: &'a str,
    pub(super) args: &'a [&'a str],
}

impl Tool<'_> {
    /// Runs it with `input` and returns what it printed.
    pub(super) fn run(&self, input: &str) -> Result<String, Failure> {
        let refused = |what: String| Failure::Refused(format!("{} {}: {what}", self.program, self.args.join(" ")));
        let started = Command::new(self.program)
            .args(self.args)
            .env("PATH", search_path())
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Failure::Missing),
            Err(error) => return Err(refused(error.to_string())),
        };
        if let Some(mut stdin) = child.stdin.take() {
            // A tool that fails early closes its input; its exit status says so.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(|error| refused(error.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// Root shells without a login often lack the directories of system tools.
fn search_path() -> String {
    let given = std::env::var("PATH").unwrap_or_default();
    format!("{given}:/usr/sbin:/sbin:/usr/local/sbin")
}
