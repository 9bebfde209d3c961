//! What the kernel says of this process. `None` where `/proc` is not Linux's.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Linux counts CPU time for user space in hundredths of a second (`USER_HZ`) on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Resident memory in bytes.
pub fn resident_memory() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// CPU time of all threads, user and system, in seconds. Fields 14 and 15 of `/proc/self/stat` (proc(5)), counted after the
/// command name, which may itself hold spaces.
pub fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Files and sockets that are open.
pub fn open_files() -> Option<i64> {
    // The folder that is read is one of them.
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1)).ok()
}

/// As many as may be open.
pub fn max_files() -> i64 {
    getrlimit(Resource::Nofile).current.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_something_of_this_process() {
        assert!(resident_memory().unwrap() > 100_000);
        assert!(cpu_seconds().unwrap() >= 0.0);
        assert!((3..=max_files()).contains(&open_files().unwrap()));
    }
}
