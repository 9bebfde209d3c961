//! A copy of this system in memory, in which commands are run as its root.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use selvedge_tests::{client, process::Process, wait};

/// The copy, below a folder.
pub(crate) struct System {
    folder: PathBuf,
}

impl System {
    /// The copy that is made in `folder`.
    pub(crate) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Where a file of the copy is seen from here.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.folder.join("system").join(inside)
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.path("")).args(["sh", "-c", script]);
        command.env("PATH", "/tmp/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root").env("LC_ALL", "C");
        command
    }

    fn output(&self, script: &str) -> Output {
        self.command(script).output().expect("chroot runs")
    }

    /// Whether commands of a shell succeed.
    pub(crate) fn does(&self, script: &str) -> bool {
        self.output(script).status.success()
    }

    /// What commands of a shell print, which have to succeed.
    pub(crate) fn say(&self, script: &str) -> String {
        let Output { status, stdout, stderr } = self.output(script);
        let [out, problems] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(status.success(), "{script}: {status}\n{out}\n{problems}");
        out
    }

    /// Lets the copy look as if systemd ran, with a `systemctl` that takes down what it is told.
    pub(crate) fn pretend_systemd(&self) {
        let recorder = "#!/bin/sh\necho \"$*\" >> /tmp/systemctl\n";
        self.say("mkdir -p /run/systemd/system /tmp/bin");
        fs::write(self.path("tmp/bin/systemctl"), recorder).expect("a file");
        self.say("chmod 755 /tmp/bin/systemctl");
    }

    /// What `systemctl` was told since it was last asked for, each once, in the order of the alphabet.
    pub(crate) fn told_systemd(&self) -> Vec<String> {
        self.say("sort -u /tmp/systemctl && rm /tmp/systemctl").lines().map(str::to_owned).collect()
    }

    /// Starts what a unit starts, for an instance where it is a template, and returns once `ready` answers with a success.
    pub(crate) async fn start(&self, unit: &str, instance: &str, ready: SocketAddr) -> Process {
        let text = fs::read_to_string(self.path("usr/lib/systemd/system").join(unit)).expect("a unit");
        let words = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("what it starts");
        let mut process =
            Process::start(unit, &mut self.command(&format!("exec {}", words.replace("%i", instance))), &self.folder);
        wait::until_true("it is ready", || {
            assert!(process.is_running(), "{unit}: {}", process.log());
            async move { client::get(ready, "/ready").await.is_ok_and(|answer| answer.status.is_success()) }
        })
        .await;
        process
    }

    /// The files that are others than before, except what `dpkg` keeps of its own.
    pub(crate) fn changed(&self) -> Vec<String> {
        let changes = self.folder.join("layers/changes");
        let mut found = Vec::new();
        collect(&changes, &mut found);
        let inside = |path: PathBuf| path.strip_prefix(&changes).expect("it is below").display().to_string();
        let own = ["var/lib/dpkg/", "var/log/", "var/cache/"];
        found.into_iter().map(inside).filter(|path| !own.iter().any(|folder| path.starts_with(folder))).collect()
    }
}

/// The files below a folder, without those that stand for one that was removed.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("its kind");
        if kind.is_dir() {
            collect(&entry.path(), found);
        } else if !kind.is_char_device() {
            found.push(entry.path());
        }
    }
}
