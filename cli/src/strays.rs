//! Processes in the background whose folder was removed under them. No file tells of them any more, but each holds the file of
//! its lock, of which the kernel says that it is gone.

use std::{
    fs::{self, DirEntry},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::bail;
use rustix::process::{Pid, geteuid};
use tokio::time::{Instant, sleep};

use crate::background::{POLL, tell_to_end};

/// Ends those that were started for a mesh in `home`, and returns how many have ended.
///
/// # Errors
/// One cannot be told, or goes on for longer than `patience`.
pub(crate) async fn end(home: &Path, patience: Duration) -> anyhow::Result<usize> {
    let locks = format!("{}/run/", resolved(home).display());
    let found = find(&locks);
    for pid in &found {
        tell_to_end(*pid)?;
    }
    let until = Instant::now() + patience;
    while let [left, ..] = find(&locks)[..] {
        if Instant::now() > until {
            bail!("process {} goes on after {} s", left.as_raw_nonzero(), patience.as_secs());
        }
        sleep(POLL).await;
    }
    Ok(found.len())
}

/// As the kernel names it, which knows no links. The folder itself may be gone.
fn resolved(home: &Path) -> PathBuf {
    let above = home.parent().and_then(|above| above.canonicalize().ok());
    above.zip(home.file_name()).map_or_else(|| home.to_owned(), |(above, name)| above.join(name))
}

/// Who holds a lock that was below `locks` and is gone, of the own user's processes that see the same files.
fn find(locks: &str) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw).filter(|pid| is_ours(*pid) && holds(*pid, locks)).collect()
}

/// A name of a container's file is that of another file here.
fn is_ours(pid: Pid) -> bool {
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let files = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
    let owner = fs::metadata(&process).map(|process| process.uid());
    owner.is_ok_and(|owner| owner == geteuid().as_raw())
        && files(&process).is_some_and(|seen| files(Path::new("/proc/self")) == Some(seen))
}

/// Whether it has locked such a file, which whoever only reads it has not.
fn holds(pid: Pid, locks: &str) -> bool {
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let is_locked = |file: &DirEntry| {
        let about = fs::read_to_string(process.join("fdinfo").join(file.file_name()));
        about.is_ok_and(|about| about.contains("FLOCK"))
    };
    open.filter(is_locked).filter_map(|file| fs::read_link(file.path()).ok()).any(|target| {
        let name = target.to_str().and_then(|target| target.strip_prefix(locks)?.strip_suffix(".lock (deleted)"));
        // The other lock there is held by commands, and they end by themselves.
        name.is_some_and(|name| name != "commands")
    })
}
