//! Who this workload is: its certificate and key, and the authorities it trusts.
//!
//! Guarantees: the key is made here and never leaves the state directory (mode 0600); the first certificate is fetched
//! only from a control plane whose authority the join token pins or, with the token of a pod's service account, one that
//! proves itself under the authorities the pod was given: no token leaves before that. A certificate is renewed at about
//! two thirds of its life, with the certificate before it as proof; while the control plane is away the old one serves on.

mod join;
mod rotate;
mod store;

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;

use crate::tenure::Tenure;

pub use self::{
    join::{join, join_pod, new_key, renew},
    rotate::keep,
};

/// Where a sidecar gets its certificate from and keeps it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the control plane.
    pub control_plane: String,
    /// `namespace/name` of the workload.
    pub workload: String,
    /// File with a join token; needed while the state directory holds no valid certificate.
    pub join_token_file: Option<PathBuf>,
    /// In a pod, what it joins with in place of a join token.
    pub service_account: Option<ServiceAccount>,
    /// Directory of the key and certificate.
    pub state_dir: PathBuf,
    /// Whether this process keeps them.
    pub tenure: Tenure,
}

/// How a pod proves its service account.
#[derive(Clone, Debug)]
pub struct ServiceAccount {
    /// File with the token, which whoever runs the pod replaces before it expires.
    pub token_file: PathBuf,
    /// The authorities that the control plane must prove itself under to get the token; those of a stored certificate
    /// count besides.
    pub trust_bundle: Vec<CertificateDer<'static>>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nothing to join with.
    #[error(
        "the state directory holds no valid certificate, and neither joinTokenFile nor serviceAccountTokenFile is set"
    )]
    NoToken,
    /// A file cannot be read or written.
    #[error("{action} {path} failed")]
    File {
        /// What was tried, `reading` or `writing`.
        action: &'static str,
        /// The file that it was tried with.
        path: PathBuf,
        /// What the system says of it.
        #[source]
        source: std::io::Error,
    },
    /// What is stored is no certificate with its key.
    #[error("{path} is damaged ({problem}); remove it and join again with a new token")]
    Damaged {
        /// The file with the stored credentials.
        path: PathBuf,
        /// What of its content cannot be understood.
        problem: String,
    },
    /// The file with the join token is not there.
    #[error(
        "there is no join token in {path}: print one with `selvedge token create --identity NS/SA --workload {workload}` on the \
         control plane's machine and put it there"
    )]
    NoTokenThere {
        /// Where it is looked for.
        path: PathBuf,
        /// The workload that joins, `namespace/name`.
        workload: String,
    },
    /// The token is not of the known form.
    #[error("the join token is not of the form sv1.ID.SECRET.PIN; put one there as `selvedge token create` prints it")]
    MalformedToken,
    /// No connection to the control plane, which includes one that does not match the token's pin or the trust bundle.
    #[error("no connection to the control plane at {address}")]
    Connect {
        /// The control plane, `host:port`.
        address: String,
        /// What the transport says of it.
        #[source]
        source: tonic::transport::Error,
    },
    /// TLS settings cannot be made of what we have.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The control plane said no.
    #[error("the control plane refused a certificate: {0}")]
    Refused(String),
    /// The control plane cannot say yes or no for now.
    #[error("the control plane cannot issue a certificate now: {0}")]
    NotNow(String),
    /// The control plane did not answer in time.
    #[error("the control plane did not sign in time")]
    TimedOut,
    /// The control plane's answer is not usable.
    #[error("the control plane's answer is not usable: {0}")]
    Answer(String),
    /// A key or signing request cannot be made.
    #[error("the key or its signing request cannot be made")]
    Key(#[from] rcgen::Error),
}
