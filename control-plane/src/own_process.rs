//! What the kernel says of this process.

use prometheus::{Counter, IntGauge, Opts, Registry};
use selvedge_scrape::process;

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
        self.memory.set(process::resident_memory().unwrap_or_default());
        self.cpu.inc_by((process::cpu_seconds().unwrap_or_default() - self.cpu.get()).max(0.0));
        self.open_files.set(process::open_files().unwrap_or_default());
        self.max_files.set(process::max_files());
    }
}
