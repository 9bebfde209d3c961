//! Mutual TLS 1.3 between the halves, with the same library as the sidecars.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::WebPkiClientVerifier,
    version::TLS13,
};

/// What one half proves itself with, and whom it believes.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

/// The TLS of one half.
pub(crate) enum Half {
    /// Dials the half of this name.
    Calling(Arc<ClientConfig>, ServerName<'static>),
    /// Accepts.
    Called(Arc<ServerConfig>),
}

impl Identity {
    /// Reads PEM files.
    pub(crate) fn read(certificate: &Path, key: &Path, authority: &Path) -> anyhow::Result<Self> {
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading {}", key.display()))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(authority)? {
            roots.add(root)?;
        }
        Ok(Self { chain, key, roots: Arc::new(roots) })
    }
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.with_context(|| format!("reading {}", file.display()))
}

impl Half {
    /// Of the half that dials `name`.
    pub(crate) fn calling(identity: Identity, name: String) -> anyhow::Result<Self> {
        let builder = ClientConfig::builder_with_provider(default_provider().into());
        let builder = builder.with_protocol_versions(&[&TLS13])?.with_root_certificates(identity.roots);
        let config = builder.with_client_auth_cert(identity.chain, identity.key)?;
        Ok(Self::Calling(config.into(), ServerName::try_from(name)?))
    }

    /// Of the half that accepts whom the authority knows.
    pub(crate) fn called(identity: Identity) -> anyhow::Result<Self> {
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(identity.roots, Arc::clone(&provider)).build()?;
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
        let config = builder.with_client_cert_verifier(verifier).with_single_cert(identity.chain, identity.key)?;
        Ok(Self::Called(config.into()))
    }

    /// A connection that is about to begin.
    pub(crate) fn connection(&self) -> anyhow::Result<Connection> {
        let mut connection: Connection = match self {
            Self::Calling(config, name) => ClientConnection::new(Arc::clone(config), name.clone())?.into(),
            Self::Called(config) => ServerConnection::new(Arc::clone(config))?.into(),
        };
        // How much may wait is decided by who reads.
        connection.set_buffer_limit(None);
        Ok(connection)
    }
}
