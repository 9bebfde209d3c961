//! What an operator sets when the control plane starts.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use selvedge_inject::setting;
use tokio::sync::watch;

use crate::identity::LEAF_LIFETIME;

/// Settings of one control plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of YAML files with the user's objects, if any.
    pub config_dir: Option<PathBuf>,
    /// The cluster whose objects are configuration too, if any.
    pub kubernetes: Option<Kubernetes>,
    /// Directory for the CA, the join tokens and the last good configuration; not inside `config_dir`.
    pub state_dir: PathBuf,
    /// Where sidecars connect: configuration and certificates.
    pub listen: SocketAddr,
    /// Admin listener: metrics, health and status. Keep it on loopback.
    pub admin: SocketAddr,
    /// Where whoever supervises the process asks for `/ready` and `/live`, and for nothing else; nowhere when absent.
    pub health: Option<SocketAddr>,
    /// Where the API server asks for sidecars, in TLS; nowhere when absent. It needs `kubernetes`.
    pub webhook: Option<SocketAddr>,
    /// The Unix socket on which the user of the control plane and root get join tokens; none when absent.
    pub join_socket: Option<PathBuf>,
    /// The file of the audit log; standard output when absent.
    pub audit_log: Option<PathBuf>,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Where to write the addresses really bound, as JSON.
    pub ports_file: Option<PathBuf>,
    /// Lifetime of the certificates issued.
    pub certificate_lifetime: Duration,
    /// Threads that serve sidecars beside the one that runs the control plane; when there are none, that one serves them.
    pub threads: usize,
    /// Is told whether it is ready: it serves, and has read the whole configuration.
    pub ready: watch::Sender<bool>,
}

/// Which cluster is watched, and what its pods get.
#[derive(Clone, Debug, Default)]
pub struct Kubernetes {
    /// The file that names it; when absent those that `kubectl` reads, else the cluster around this process.
    pub kubeconfig: Option<PathBuf>,
    /// What is set for all sidecars, beside the trust bundle.
    pub sidecars: setting::Settings,
}

impl Settings {
    /// The defaults around the state directory, which has none. Nothing is configuration yet.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            config_dir: None,
            kubernetes: None,
            state_dir: state_dir.into(),
            listen: ([0, 0, 0, 0], 15010).into(),
            admin: ([127, 0, 0, 1], 15014).into(),
            health: None,
            webhook: None,
            join_socket: None,
            audit_log: None,
            trust_domain: "mesh.local".to_owned(),
            ports_file: None,
            certificate_lifetime: LEAF_LIFETIME,
            threads: 0,
            ready: watch::Sender::new(false),
        }
    }
}
