//! What a workload proves itself with, and whom it trusts.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use selvedge_policies::facts::Identity;

/// An X.509-SVID with its key.
#[derive(Debug)]
pub struct Svid {
    /// Whom it stands for.
    pub identity: Identity,
    /// The certificate chain, leaf first and without the trusted authority, DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// Private key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// Start of validity, seconds since the Unix epoch.
    pub not_before: i64,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
}

/// What a sidecar proves itself with and whom it trusts; replaced as a whole.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The certificate of the workload, with its key.
    pub svid: Arc<Svid>,
    /// Certificate authorities of the trust domain.
    pub roots: Arc<[CertificateDer<'static>]>,
}
