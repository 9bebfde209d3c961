//! `selvedge completions SHELL`: what a shell needs to complete commands and flags.

use std::io::Write;

use anyhow::Context;
use clap_complete::{Shell, generate};

/// Print what makes a shell complete commands and flags.
///
/// Packages bring it along. bash: source <(selvedge completions bash). zsh: selvedge completions zsh > DIR/_selvedge, in a DIR of fpath.
/// fish: selvedge completions fish > ~/.config/fish/completions/selvedge.fish.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Prints them for `program`.
///
/// # Errors
/// Nobody reads them to the end.
pub fn run(args: &CompletionsArgs, program: clap::Command) -> anyhow::Result<()> {
    std::io::stdout().write_all(&text(args.shell, program)).context("writing them")
}

/// The completions of `program`, as the shell reads them.
pub(super) fn text(shell: Shell, mut program: clap::Command) -> Vec<u8> {
    let name = program.get_name().to_owned();
    let mut text = Vec::new();
    // A writer that fails would be a panic, hence one that cannot.
    generate(shell, &mut program, name, &mut text);
    text
}
