//! Real processes of a test: found beside the test executable, logged to a file, gone when the test ends.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// A child process. Killed when dropped; after a failed test the end of its log is printed.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with no input and with output and errors appended to `folder/name.log`.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Self {
        let log = folder.join(format!("{}.log", name.replace('/', "-")));
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let errors = file.try_clone().expect("a second handle of the log file");
        // Whoever runs the tests may have a service manager; the programs have one where a test says so.
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "FDSTORE"] {
            if command.get_envs().all(|(set, _)| set != name) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}: {command:?}"));
        Self { name: name.to_owned(), child, log }
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, as the kernel counts.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the process has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks the process to end, with SIGTERM.
    pub fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap_or_else(|error| panic!("{} cannot be ended: {error}", self.name));
    }

    /// Sends SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for it to end by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait::until(&what, || std::future::ready(self.child.try_wait().ok().flatten())).await
    }

    /// Resident memory in bytes (`VmRSS` of `/proc`).
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n    ");
            eprintln!("--- the last lines of {}:\n    {last}", self.name);
        }
    }
}

/// The path of a binary of this workspace: in `SELVEDGE_BIN_DIR`, else where cargo put it beside this test.
pub fn binary(name: &str) -> PathBuf {
    let beside = || {
        let test = env::current_exe().expect("the path of this test");
        test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST").to_path_buf()
    };
    let path = env::var_os("SELVEDGE_BIN_DIR").map_or_else(beside, PathBuf::from).join(name);
    assert!(
        path.is_file(),
        "{} is not built; `make test` builds it, or run: cargo build --workspace --bins",
        path.display()
    );
    path
}
