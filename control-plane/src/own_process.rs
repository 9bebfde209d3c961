//! What the kernel says of this process.

use prometheus::{Counter, IntGauge, Opts, Registry};
use rustix::process::{Resource, getrlimit};

/// Linux counts CPU time for user space in hundredths of a second (`USER_HZ`) on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Its metrics, which are set anew for each look.
#[derive(Clone, Debug)]
pub(crate) struct OwnProcess {
    memory: IntGauge,
    cpu: Counter,
    open_files: IntGauge,
    max_files: IntGauge,
}

impl OwnProcess {
    /// Registers them, each under a name that begins with `prefix`.
    ///
    /// # Errors
    /// When a name is taken.
    pub(crate) fn new(registry: &Registry, prefix: &str) -> Result<Self, prometheus::Error> {
        let gauge = |end: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(format!("{prefix}{end}"), help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let help = "User and system CPU time of the control plane.";
        let cpu = Counter::with_opts(Opts::new(format!("{prefix}cpu_seconds_total"), help))?;
        registry.register(Box::new(cpu.clone()))?;
        Ok(Self {
            memory: gauge("resident_memory_bytes", "Resident memory of the control plane.")?,
            cpu,
            open_files: gauge("open_fds", "Files and sockets that the control plane has open.")?,
            max_files: gauge("max_fds", "Files and sockets that it may have open.")?,
        })
    }

    /// Sets them to what is so now; 0 where `/proc` is not Linux's.
    pub(crate) fn look(&self) {
        self.memory.set(resident_memory().unwrap_or_default());
        self.cpu.inc_by((cpu_seconds().unwrap_or_default() - self.cpu.get()).max(0.0));
        self.open_files.set(open_files().unwrap_or_default());
        let limit = getrlimit(Resource::Nofile).current;
        self.max_files.set(limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(i64::MAX));
    }
}

/// In bytes.
fn resident_memory() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Of all threads: fields 14 and 15 of `/proc/self/stat` (proc(5)), counted after the command name, which may hold spaces.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn open_files() -> Option<i64> {
    // The folder that is read is one of them.
    i64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1)).ok()
}
