//! `selvedge share DIR`: what packages have in `/usr/share` beside a program.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::completions;

/// Where Debian has the completions of a shell, and what is before and behind the program's name.
const COMPLETIONS: [(Shell, &str, &str, &str); 3] = [
    (Shell::Bash, "bash-completion/completions", "", ""),
    (Shell::Zsh, "zsh/vendor-completions", "_", ""),
    (Shell::Fish, "fish/vendor_completions.d", "", ".fish"),
];

/// Write the manual pages and completions of both programs, each into a folder of its name.
#[derive(Debug, clap::Args)]
pub struct ShareArgs {
    /// Where the folders go.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes them for `program`, which is this one, and for the sidecar.
///
/// # Errors
/// A file cannot be written.
pub fn run(args: &ShareArgs, program: clap::Command) -> anyhow::Result<()> {
    for program in [&program, &selvedge_proxy::Arguments::command()] {
        let folder = args.folder.join(program.get_name());
        write(&folder, program).with_context(|| format!("writing into {}", folder.display()))?;
    }
    // The page of `selvedge proxy` has the name of the sidecar's, which says the same.
    let twice = args.folder.join(program.get_name()).join("man/man1/selvedge-proxy.1");
    fs::remove_file(&twice).with_context(|| format!("removing {}", twice.display()))
}

fn write(folder: &Path, program: &clap::Command) -> anyhow::Result<()> {
    let name = program.get_name();
    for (shell, inside, before, behind) in COMPLETIONS {
        let inside = folder.join(inside);
        fs::create_dir_all(&inside)?;
        fs::write(inside.join(format!("{before}{name}{behind}")), completions::text(shell, program.clone()))?;
    }
    let manual = folder.join("man/man1");
    fs::create_dir_all(&manual)?;
    Ok(clap_mangen::generate_to(program.clone(), manual)?)
}
