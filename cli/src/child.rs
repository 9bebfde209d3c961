//! Processes that must not outlive the one that started them, whatever ends it.
//!
//! A command is started through `selvedge child`, which asks the kernel for SIGKILL on the parent's death and then
//! becomes the command. The request survives `exec`, so the command itself needs to know nothing.

use std::{ffi::OsString, io, os::unix::process::CommandExt, path::PathBuf};

use anyhow::Context;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The arguments of `selvedge child`.
#[derive(Debug, clap::Args)]
pub struct ChildArgs {
    /// The process whose death ends the command.
    #[arg(long)]
    parent: i32,
    /// Become this user, with the group of the same number, first (needs root).
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

/// Ties this process to its parent and becomes the command.
///
/// # Errors
/// The command cannot be started, or the parent is gone already.
pub fn run(args: ChildArgs) -> anyhow::Result<()> {
    if let Some(user) = args.user {
        become_user(user).with_context(|| format!("becoming user {user}"))?;
    }
    // A change of user would take the request back, hence after it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the line above.
    anyhow::ensure!(getppid() == Pid::from_raw(args.parent), "the parent process {} is gone", args.parent);
    let mut words = args.command.into_iter();
    let Some(program) = words.next() else { anyhow::bail!("no command was given") };
    let failed = std::process::Command::new(&program).args(words).exec();
    Err(anyhow::Error::new(failed).context(format!("starting {}", program.to_string_lossy())))
}

/// This thread is the only one here, so it is the whole process that changes.
fn become_user(user: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

/// The words that run a command tied to this process. Start them from the main thread: the kernel watches the
/// thread that forked.
pub(crate) fn tied(user: Option<u32>, command: impl IntoIterator<Item = OsString>) -> io::Result<Vec<OsString>> {
    let parent = getpid().as_raw_nonzero().to_string();
    let mut words: Vec<OsString> = vec![own_binary()?.into(), "child".into(), "--parent".into(), parent.into()];
    words.extend(user.into_iter().flat_map(|user| ["--user".into(), user.to_string().into()]));
    words.push("--".into());
    words.extend(command);
    Ok(words)
}

/// The path of this binary.
pub(crate) fn own_binary() -> io::Result<PathBuf> {
    std::env::current_exe()
}
