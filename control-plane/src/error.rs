//! Why the control plane cannot start or go on.

use std::{net::SocketAddr, path::PathBuf};

use crate::{identity::IdentityError, source::kubernetes::ConnectError};

/// An error that ends the control plane. What users write never does; that is in the status instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate authority cannot be opened.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The state directory lies in the config directory.
    #[error(
        "the state directory {state} lies in the config directory {config}, where it would be read as configuration and \
         its keys copied along: keep them apart"
    )]
    StateInConfig {
        /// The state directory, as it was given.
        state: PathBuf,
        /// The config directory, as it was given.
        config: PathBuf,
    },
    /// The configuration is not followed any more.
    #[error("the configuration is not followed any more because {why} ended; please report this defect")]
    Frozen {
        /// The part that ended and that the configuration is followed by.
        why: &'static str,
        /// How, when it panicked.
        #[source]
        source: Option<tokio::task::JoinError>,
    },
    /// There is no cluster that could be watched.
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    /// A port cannot be had.
    #[error("the {role} listener cannot be opened on {address}; is something else using the port?")]
    Bind {
        /// What the port is for, such as `sidecar` or `admin`.
        role: &'static str,
        /// The address that cannot be listened on.
        address: SocketAddr,
        /// What the system says of it.
        #[source]
        source: std::io::Error,
    },
    /// The join socket cannot be had.
    #[error(
        "the join socket {path} cannot be opened; does another control plane run there, and is the path short enough for one?"
    )]
    JoinSocket {
        /// Where it was to be.
        path: PathBuf,
        /// What the system says of it.
        #[source]
        source: std::io::Error,
    },
    /// The audit log cannot be had.
    #[error("the audit log {path} cannot be opened")]
    AuditLog {
        /// Where it was to be.
        path: PathBuf,
        /// What the system says of it.
        #[source]
        source: std::io::Error,
    },
    /// There are no threads to serve sidecars on.
    #[error("no thread can be started to serve sidecars on")]
    Threads(#[source] std::io::Error),
    /// The TLS settings cannot be made.
    #[error("the TLS settings cannot be made")]
    Tls(#[from] rustls::Error),
    /// The verifier of client certificates cannot be made.
    #[error("the verifier of client certificates cannot be made")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// Two metrics have one name.
    #[error("the metrics cannot be registered; please report this defect")]
    Metrics(#[from] prometheus::Error),
    /// The ports file cannot be written.
    #[error("the ports file {path} cannot be written")]
    PortsFile {
        /// The file that was to name the ports.
        path: PathBuf,
        /// What the system says of it.
        #[source]
        source: std::io::Error,
    },
}
