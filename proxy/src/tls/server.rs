//! TLS settings for calls received from the mesh.

use std::sync::Arc;

use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs::Ticketer, server::WebPkiClientVerifier};
use selvedge_xds::alpn;

use super::{TlsError, provider, verify::MeshClients};
use crate::credentials::Svid;

pub(super) fn mesh(svid: &Svid, roots: &Arc<RootCertStore>, trust_domain: &str) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider))
        .build()
        .map_err(TlsError::Verifier)?;
    let clients = MeshClients { chain, trust_domain: trust_domain.into() };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Credentials)?
        .with_client_cert_verifier(Arc::new(clients))
        .with_single_cert(svid.chain.clone(), svid.key.clone_key())
        .map_err(TlsError::Credentials)?;
    config.alpn_protocols = [alpn::FRAMES, alpn::HTTP2, alpn::HTTP1, alpn::TCP].map(<[u8]>::to_vec).to_vec();
    // Tickets the clients keep cost the server no memory per connection.
    config.ticketer = Ticketer::new().map_err(TlsError::Credentials)?;
    config.send_tls13_tickets = 2;
    Ok(config)
}
