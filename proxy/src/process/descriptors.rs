//! How many files and sockets the process may have open at once (`RLIMIT_NOFILE`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. The soft limit is mostly 1024, for the sake of programs that use `select`, and
/// a program that does not is expected to raise it. Says in the log when `role` may need more than it can get: `wanted`.
pub fn raise(role: &str, wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(error = &e as &dyn std::error::Error, "the limit of open files was not raised");
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < wanted) {
        // Most machines give less than that, and few sidecars come near: nothing is wrong yet.
        tracing::info!(
            limit,
            wanted,
            "the {role} may open fewer files and sockets than its connections need at their limits; raise the hard limit \
             (LimitNOFILE= of systemd, --ulimit nofile= of a container, ulimit -Hn of a shell)"
        );
    }
}
