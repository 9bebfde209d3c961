//! The log of a process in the background stays small: when it is full it is put aside, and what was put aside before goes.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context;
use rustix::stdio::{dup2_stderr, dup2_stdout};

/// The variable that tells a process which file its output and errors go to.
pub(crate) const VARIABLE: &str = "SELVEDGE_BACKGROUND_LOG";
/// How long a log may get, in bytes. What was put aside is as long.
const FULL: u64 = 10 << 20;
/// How often it is looked how long it is.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps the log of this process small for as long as it runs, where it was started in the background.
///
/// # Errors
/// There can be no further thread.
pub fn keep_small() -> anyhow::Result<()> {
    let Some(log) = env::var_os(VARIABLE).map(PathBuf::from) else { return Ok(()) };
    let look = move || {
        loop {
            thread::sleep(LOOK);
            // What cannot be put aside now goes on, and is tried again.
            let _ = renew(&log);
        }
    };
    thread::Builder::new().name("log".to_owned()).spawn(look).context("starting a thread")?;
    Ok(())
}

/// Output and errors go into an empty file where the log is full. No line is lost.
fn renew(log: &Path) -> io::Result<()> {
    let Some(empty) = put_aside(log)? else { return Ok(()) };
    dup2_stdout(&empty)?;
    Ok(dup2_stderr(&empty)?)
}

/// Puts a log aside that is full, and gives the empty one in its place.
///
/// # Errors
/// A file cannot be made or renamed.
pub(crate) fn put_aside(log: &Path) -> io::Result<Option<File>> {
    match fs::metadata(log) {
        Ok(metadata) if metadata.len() >= FULL => {}
        Ok(_) => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    }
    let [empty, aside] = ["new", "1"].map(|end| with_end(log, end));
    // First, so that there is a log to go on with whatever fails.
    let file = open(&empty)?;
    fs::rename(log, aside)?;
    fs::rename(empty, log)?;
    Ok(Some(file))
}

/// The log, to be written to at its end by several.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn open(log: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(log)
}

fn with_end(log: &Path, end: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(OsStr::new("."));
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_full_is_put_aside_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("api.log");
        assert!(put_aside(&log).unwrap().is_none(), "there is none");
        for round in ["first", "second"] {
            let mut file = open(&log).unwrap();
            writeln!(file, "{round}").unwrap();
            assert!(put_aside(&log).unwrap().is_none(), "it is small");
            file.set_len(FULL).unwrap();
            writeln!(put_aside(&log).unwrap().unwrap(), "after").unwrap();
            assert_eq!(fs::read_to_string(&log).unwrap(), "after\n");
            assert!(fs::read_to_string(folder.path().join("api.log.1")).unwrap().starts_with(round));
            fs::remove_file(&log).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
