//! A program under measurement: started with its log in a file, read through `/proc`, killed when dropped.

use std::{fs, fs::File, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
    thread::{CpuSet, sched_setaffinity},
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long a program may take to end.
const END: Duration = Duration::from_secs(60);

/// A running program of one process.
pub struct Process {
    name: String,
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    /// Starts `command`, with everything it prints in `folder/name.log`.
    ///
    /// # Errors
    /// A program that cannot be started, or a log that cannot be written.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Process id; 0 once it is gone.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Fails with the end of the log when the process has ended.
    ///
    /// # Errors
    /// The process has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}: {}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Tells it to end, waits until it has, and returns what it printed.
    ///
    /// # Errors
    /// It does not end.
    pub async fn end(&mut self) -> anyhow::Result<String> {
        let pid = Pid::from_raw(self.id().cast_signed()).with_context(|| format!("{} is gone", self.name))?;
        kill_process(pid, Signal::TERM)?;
        timeout(END, self.child.wait()).await.with_context(|| format!("{} does not end", self.name))??;
        Ok(fs::read_to_string(&self.log)?)
    }

    /// The last lines of the log, as one line.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }

    /// CPU time of all its threads so far, user and system, in nanoseconds.
    pub fn cpu_nanos(&self) -> u64 {
        self.cpu_nanos_of("")
    }

    /// CPU time in nanoseconds, user and system, of its threads whose name begins with `name`.
    pub fn cpu_nanos_of(&self, name: &str) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten().flatten();
        let nanos = |folder: std::path::PathBuf| -> Option<u64> {
            let is_meant = fs::read_to_string(folder.join("comm")).ok()?.starts_with(name);
            let spent = fs::read_to_string(folder.join("schedstat")).ok()?;
            if is_meant { spent.split(' ').next()?.parse().ok() } else { None }
        };
        tasks.filter_map(|task| nanos(task.path())).sum()
    }

    /// How often its threads have gone to sleep so far, which is how often they were woken.
    pub fn wake_ups(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten().flatten();
        let count = |folder: std::path::PathBuf| -> Option<u64> {
            let status = fs::read_to_string(folder.join("status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
        };
        tasks.filter_map(|task| count(task.path())).sum()
    }

    /// Whether none of its threads runs, or waits for a processor or a disk.
    pub fn is_asleep(&self) -> bool {
        let mut tasks = fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten().flatten();
        tasks.all(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The state comes after the name, which may itself hold anything (proc(5)).
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['R', 'D']))
        })
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// The part of the resident memory that is no file, in bytes. Files, such as the program, are in memory once for all
    /// processes that run them.
    pub fn anonymous_bytes(&self) -> u64 {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

/// Lets all threads of process `id`, and those they start from then on, use these processors only.
///
/// # Errors
/// It is not ours to move, or none of the processors is.
pub fn bind(id: u32, processors: &CpuSet) -> anyhow::Result<()> {
    // Twice, for threads that were started by one that had not been moved yet.
    for _ in 0..2 {
        let tasks = fs::read_dir(format!("/proc/{id}/task")).with_context(|| format!("threads of process {id}"))?;
        for task in tasks {
            let thread = Pid::from_raw(task?.file_name().to_string_lossy().parse()?);
            match sched_setaffinity(thread, processors) {
                // It has ended since.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("moving process {id} to another processor")),
            }
        }
    }
    Ok(())
}

/// Where `name` is: the value of `variable`, else in PATH or where Debian keeps what only root uses.
pub fn find(name: &str, variable: &str) -> Option<std::path::PathBuf> {
    let named = std::env::var_os(variable).map(std::path::PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    named.into_iter().chain(folders.map(|folder| folder.join(name))).find(|file| file.is_file())
}
