//! TLS of the hop between sidecars, and TLS originated to services outside the mesh.
//!
//! Guarantees for the mesh hop, on both sides: TLS 1.3 only, X25519MLKEM768 first, AES-GCM first; the peer proves an
//! X.509-SVID of our trust domain, signed by one of the given authorities and valid now; the protocol is one of
//! [`selvedge_xds::resource::alpn`]. *Which* identity a server must prove is for the caller to compare, with
//! [`peer_identity`], because it belongs to the endpoint and not to the connection pool's TLS settings.
//!
//! A [`TlsContext`] is immutable. New credentials make a new one, with new ticket keys and empty session stores, so
//! nothing that was resumed can outlive a change of trust.

mod client;
mod server;
pub mod terminate;
mod verify;

use std::{io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, CommonState, OtherError, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, UnixTime},
};
use selvedge_policies::facts::Identity;
use selvedge_xds::{resource::alpn, svid::Leaf};

pub use self::client::{SYSTEM_ROOTS, originate};
pub(crate) use self::client::{to_control_plane, to_pinned_control_plane};
use crate::identity::Svid;

/// Why no TLS settings could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate authority is no certificate.
    #[error("certificate authority {index} of the trust bundle cannot be used")]
    Root {
        /// Position in the bundle.
        index: usize,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// There is nothing to trust.
    #[error("the trust bundle is empty, so no peer could be verified")]
    NoRoots,
    /// Certificate and key are not usable together.
    #[error("the workload's certificate and key cannot be used")]
    Credentials(#[source] rustls::Error),
    /// The file with public certificate authorities is not there or not PEM.
    #[error("no certificate authorities could be read from {path}")]
    RootsFile {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Client certificates cannot be verified with these authorities.
    #[error("the verifier of client certificates cannot be built")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// Everything needed to take and make mesh connections with one set of credentials.
#[derive(Clone, Debug)]
pub struct TlsContext {
    /// For calls received: requires a client certificate, takes every mesh protocol.
    pub server: Arc<ServerConfig>,
    /// For calls made over `selvedge-h2`.
    pub http2: Arc<ClientConfig>,
    /// For calls made over `selvedge-h1`.
    pub http1: Arc<ClientConfig>,
    /// For calls made over `selvedge-tcp`.
    pub tcp: Arc<ClientConfig>,
}

impl TlsContext {
    /// Settings that prove `svid` and trust `roots` to vouch for workloads of `trust_domain`.
    pub fn new(svid: &Svid, roots: &[CertificateDer<'static>], trust_domain: &str) -> Result<Self, TlsError> {
        let roots = Arc::new(root_store(roots)?);
        let client = |protocol: &[u8]| client::mesh(svid, &roots, trust_domain, protocol).map(Arc::new);
        Ok(Self {
            server: Arc::new(server::mesh(svid, &roots, trust_domain)?),
            http2: client(alpn::HTTP2)?,
            http1: client(alpn::HTTP1)?,
            tcp: client(alpn::TCP)?,
        })
    }
}

/// The identity the peer of an established mesh connection proved; `None` when it proved none or its certificate has
/// run out since, which a resumed session does not notice by itself.
pub fn peer_identity(connection: &CommonState) -> Option<Identity> {
    let leaf = Leaf::from_der(connection.peer_certificates()?.first()?).ok()?;
    let now = i64::try_from(UnixTime::now().as_secs()).ok()?;
    (now <= leaf.not_after).then_some(leaf.identity)
}

/// A handshake error in our own words where the refusal was ours; rustls prints those as a debug dump.
pub fn readable(error: io::Error) -> io::Error {
    let refusal = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(refusal)))) => Arc::clone(refusal),
        _ => return error,
    };
    io::Error::new(error.kind(), refusal)
}

pub(crate) fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for (index, root) in roots.iter().enumerate() {
        store.add(root.clone()).map_err(|source| TlsError::Root { index, source })?;
    }
    if store.is_empty() { Err(TlsError::NoRoots) } else { Ok(store) }
}

/// aws-lc in its own order: X25519MLKEM768 before the classic groups, AES-GCM before ChaCha20.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
