//! A container of a pod, by runc: one program and the libraries it links, no shell, and the rights that a security context
//! of Kubernetes says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use selvedge_tests::process::{Process, binary};
use serde_json::{Value, json};

use super::node::Pod;

/// A container that can be started.
pub(crate) struct Container {
    name: String,
    config: Value,
}

impl Container {
    /// A container of `pod` as Kubernetes has it; it runs the program of its own name.
    pub(crate) fn of(pod: &Pod, container: &Value) -> Self {
        let (program, context) = (container["name"].as_str().unwrap(), &container["securityContext"]);
        let mut arguments = vec![json!(format!("/{program}"))];
        arguments.extend(container["args"].as_array().cloned().unwrap_or_default());
        let added = context["capabilities"]["add"].as_array().cloned().unwrap_or_default();
        let rights: Vec<String> = added.iter().map(|added| format!("CAP_{}", added.as_str().unwrap())).collect();
        let bind = |source: &Path, at: &str| json!({ "type": "bind", "source": source, "destination": at, "options": ["rbind", "ro"] });
        let mut mounts = vec![
            json!({ "type": "proc", "source": "proc", "destination": "/proc" }),
            json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/state", "options": ["nosuid", "nodev", "mode=1777"] }),
            bind(&binary(program), &format!("/{program}")),
        ];
        mounts.extend(
            ["/lib", "/lib64", "/usr/lib"]
                .into_iter()
                .filter(|path| Path::new(path).exists())
                .map(|path| bind(Path::new(path), path)),
        );
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": context["runAsUser"], "gid": context["runAsGroup"] },
                "args": arguments, "env": ["RUST_BACKTRACE=0"], "cwd": "/",
                "capabilities": { "bounding": rights, "effective": rights, "permitted": rights },
                "noNewPrivileges": context["allowPrivilegeEscalation"] == false
            },
            "root": { "path": "rootfs", "readonly": context["readOnlyRootFilesystem"] == true },
            "mounts": mounts,
            "linux": {
                "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "ipc" }, { "type": "uts" },
                    { "type": "network", "path": pod.netns() }],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
            }
        });
        Self { name: format!("{}-{program}", pod.name), config }
    }

    /// Adds a folder that can be read at `at`.
    pub(crate) fn with(mut self, folder: &Path, at: &str) -> Self {
        let mount = json!({ "type": "bind", "source": folder, "destination": at, "options": ["rbind", "ro"] });
        self.config["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    /// Starts it; it ends with the value.
    pub(crate) fn start(self, folder: &Path) -> Process {
        let mut command = self.command(folder);
        Process::start(&self.name, &mut command, folder)
    }

    /// Runs it to its end: whether it did what it should, and what it said.
    pub(crate) fn run(self, folder: &Path) -> (bool, String) {
        let output = self.command(folder).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn command(&self, folder: &Path) -> Command {
        let bundle: PathBuf = folder.join(format!("bundle-{}-{:08x}", self.name, fastrand::u32(..)));
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        fs::write(bundle.join("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new("runc");
        command.arg("--root").arg(folder.join("runc")).args(["run", "--bundle"]).arg(&bundle);
        command.arg(bundle.file_name().unwrap());
        command
    }
}
