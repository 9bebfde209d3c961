//! Who is who: the built-in certificate authority, join tokens, and the certificates issued.
//!
//! Guarantees: the CA's key never leaves a file only its owner can read; a certificate names the identity its caller
//! was authenticated as, whatever the request asked for; a join token is worth one certificate.

mod ca;
mod issue;
mod private_file;
mod token;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use selvedge_policies::facts::{Identity, IdentityError as BadIdentity};

use self::{ca::Ca, token::Tokens};
pub use self::{
    issue::{Issued, KeyedCertificate},
    token::Grant,
};

/// Lifetime of a workload's certificate.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Namespace and service account of the control plane's own identity.
pub const OWN_NAME: (&str, &str) = ("selvedge-system", "control-plane");

/// What can go wrong with the state directory, a token or a signing request.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{action} {path} failed; check that the state directory exists and is yours")]
    File {
        /// `reading`, `writing`...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others than the owner can read the CA's key.
    #[error("{path} holds the CA's key and has mode {mode:04o}; it must be 0600 (chmod 600 {path})")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The CA's file is not what was written there.
    #[error(
        "{path} is damaged: {problem}; restore it from a backup, or remove it to start a new CA (every workload must then join again)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The state directory belongs to another mesh.
    #[error(
        "the CA in {path} is for trust domain '{found}', not '{expected}'; use another state directory or --trust-domain {found}"
    )]
    OtherTrustDomain {
        /// The file.
        path: PathBuf,
        /// In the CA's certificate.
        found: String,
        /// Asked for.
        expected: String,
    },
    /// A trust domain, namespace or name is malformed.
    #[error("no identity can be made of this name")]
    Name(#[source] BadIdentity),
    /// A join token is not one of ours, is used up, or has expired.
    #[error("the join token was refused: {0}; create a new one with `selvedge token create`")]
    Token(&'static str),
    /// A signing request is malformed or not signed by its own key.
    #[error("the certificate signing request was refused: {0}")]
    Request(String),
    /// Key generation or signing failed.
    #[error("the certificate could not be made")]
    Signing(#[source] rcgen::Error),
}

/// The certificate authority of one mesh, with its join tokens.
#[derive(Debug)]
pub struct Authority {
    ca: Ca,
    tokens: Tokens,
    trust_domain: String,
    lifetime: Duration,
}

impl Authority {
    /// Opens the authority in `state_dir`, or founds it where there is none yet. `now` is in seconds since the Unix
    /// epoch, here and below; `lifetime` is that of the certificates issued.
    pub fn open(state_dir: &Path, trust_domain: &str, lifetime: Duration, now: u64) -> Result<Self, IdentityError> {
        let (namespace, name) = OWN_NAME;
        Identity::new(trust_domain, namespace, name).map_err(IdentityError::Name)?;
        let ca = Ca::open(state_dir, trust_domain, now)?;
        let tokens = Tokens::open(state_dir)?;
        Ok(Self { ca, tokens, trust_domain: trust_domain.to_owned(), lifetime })
    }

    /// The trust domain this authority speaks for.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The trust bundle.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.ca.certificate().clone()]
    }

    /// Writes a join token for `grant` and returns it. The token pins this authority's certificate.
    pub fn create_token(&self, grant: &Grant) -> Result<String, IdentityError> {
        self.tokens.create(grant, self.ca.certificate())
    }

    /// Signs the key of a workload that has no certificate yet. The token is used up by this, also when the answer
    /// gets lost; a malformed `csr` does not use it up.
    pub fn join(&self, token: &str, workload: &str, csr: &[u8], now: u64) -> Result<Issued, IdentityError> {
        let key = issue::verified_key(csr)?;
        let identity = self.tokens.redeem(token, workload, now)?;
        issue::leaf(&self.ca, key, identity, self.lifetime, now)
    }

    /// Signs a new key for a workload that proved `identity` with its current certificate.
    pub fn renew(&self, identity: Identity, csr: &[u8], now: u64) -> Result<Issued, IdentityError> {
        issue::leaf(&self.ca, issue::verified_key(csr)?, identity, self.lifetime, now)
    }

    /// A certificate for the control plane itself. Its chain ends with the CA's certificate, because a joining
    /// workload knows nothing but that certificate's hash.
    pub fn own(&self, now: u64) -> Result<KeyedCertificate, IdentityError> {
        let (namespace, name) = OWN_NAME;
        let identity = Identity::new(&self.trust_domain, namespace, name).map_err(IdentityError::Name)?;
        issue::keyed(&self.ca, identity, self.lifetime, now)
    }

    /// Removes tokens that have expired.
    pub fn sweep(&self, now: u64) -> Result<(), IdentityError> {
        self.tokens.sweep(now)
    }
}
