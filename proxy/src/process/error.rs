//! What keeps a sidecar from running.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why a sidecar could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error(
        "cannot listen on {address} ({purpose}); if another sidecar has it, give this one another address in its file"
    )]
    Listen {
        /// The address that cannot be listened on.
        address: SocketAddr,
        /// What it is for.
        purpose: &'static str,
        /// What the system says of it.
        source: io::Error,
    },
    /// The access log cannot be written to.
    #[error("cannot open the access log {path}")]
    AccessLog {
        /// The file of the access log.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The audit log cannot be written to.
    #[error("cannot open the audit log {path}")]
    AuditLog {
        /// The file of the audit log.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The addresses bound could not be written.
    #[error("cannot write the ports file {path}")]
    Ports {
        /// The file that was to name the ports.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {path}")]
    State {
        /// The state directory, as it was given.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// A service that traffic needs could not be started, or ended before the sidecar.
    #[error("{service} does not run")]
    Service {
        /// The name of the service, as the log has it.
        service: String,
        /// How it ended, or why it did not start.
        source: io::Error,
    },
    /// The sidecar that runs is not replaced.
    #[error("the sidecar that runs with the state directory {path} goes on, and is not replaced: {problem}")]
    Replace {
        /// The state directory, as it was given.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The service manager has listeners for the sidecar.
    #[error(
        "the listeners that the service manager hands over cannot be taken; it has to be allowed pidfd_getfd, of Linux 5.6"
    )]
    Handed(#[source] io::Error),
    /// The operating system refused a runtime or a signal handler.
    #[error("cannot start")]
    System(#[from] io::Error),
}
