//! TLS settings for calls made: to sidecars, and to services outside the mesh.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::{Resumption, WantsClientCert},
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{
    TlsError, provider, root_store,
    verify::{CONTROL_PLANE, MeshServers, Trust},
};
use crate::credentials::{Credentials, Svid};

/// Where Debian keeps the public certificate authorities.
pub(crate) const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Servers whose sessions are kept for resumption, per protocol.
const SESSIONS: usize = 256;

pub(super) fn mesh(
    svid: &Svid,
    roots: &Arc<RootCertStore>,
    trust_domain: &str,
    protocols: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let trust = Trust::Roots { roots: Arc::clone(roots), trust_domain: trust_domain.into() };
    let mut config = calling(trust, None)?
        .with_client_auth_cert(svid.chain.clone(), svid.key.clone_key())
        .map_err(TlsError::Credentials)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

/// Settings for the connection to the control plane with a certificate of our own.
///
/// # Errors
/// Credentials that TLS cannot use.
pub fn to_control_plane(credentials: &Credentials) -> Result<Arc<ClientConfig>, TlsError> {
    let trust_domain = credentials.svid.identity.trust_domain.clone();
    let trust = Trust::Roots { roots: Arc::new(root_store(&credentials.roots)?), trust_domain };
    let config = calling(trust, Some(CONTROL_PLANE))?
        .with_client_auth_cert(credentials.svid.chain.clone(), credentials.svid.key.clone_key())
        .map_err(TlsError::Credentials)?;
    Ok(grpc(config))
}

/// Settings for the first connection to the control plane, when nothing is known but `pin`, the SHA-256 of the
/// authority's certificate.
pub(crate) fn to_pinned_control_plane(pin: [u8; 32]) -> Result<Arc<ClientConfig>, TlsError> {
    Ok(grpc(calling(Trust::Pin(pin), Some(CONTROL_PLANE))?.with_no_client_auth()))
}

/// Settings for the first connection of a pod to the control plane, under the authorities `roots` that it knows.
///
/// # Errors
/// Authorities that TLS cannot use, or none.
pub(crate) fn to_injected_control_plane(roots: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, TlsError> {
    let trust = Trust::Injected(root_store(roots)?);
    Ok(grpc(calling(trust, Some(CONTROL_PLANE))?.with_no_client_auth()))
}

/// Settings for calls of what `trust` vouches for, and `only` of whom it names.
fn calling(
    trust: Trust,
    only: Option<(&'static str, &'static str)>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let provider = provider();
    let servers = MeshServers { trust, only, algorithms: provider.signature_verification_algorithms };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Credentials)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers)))
}

fn grpc(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// TLS to services outside the mesh, by what is spoken inside it.
#[derive(Clone, Debug)]
pub(crate) struct ExternalTls {
    /// Offers `http/1.1` by ALPN.
    pub http1: Arc<ClientConfig>,
    /// Offers `h2`, which the service must take: HTTP/2 over TLS is agreed on (RFC 9113 section 3.2).
    pub http2: Arc<ClientConfig>,
    /// Offers nothing: what the bytes are is not known.
    pub opaque: Arc<ClientConfig>,
}

/// Settings for TLS to services outside the mesh: a certificate must be for the name its service is called by and be
/// signed by an authority in the PEM file `roots` ([`SYSTEM_ROOTS`]).
pub(crate) fn originate(roots: &Path) -> Result<ExternalTls, TlsError> {
    let unreadable = |source| TlsError::RootsFile { path: roots.to_owned(), source };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(roots).map_err(unreadable)? {
        // System stores hold certificates webpki cannot use; the others are enough.
        store.add_parsable_certificates([certificate.map_err(unreadable)?]);
    }
    if store.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let store = Arc::new(store);
    let offering = |protocols: &[&[u8]]| {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Credentials)?
            .with_root_certificates(store.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    };
    Ok(ExternalTls { http1: offering(&[b"http/1.1"])?, http2: offering(&[b"h2"])?, opaque: offering(&[])? })
}
