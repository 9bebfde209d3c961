//! Verification of the peer's certificate on both sides of the mesh hop: chain, validity and usage by webpki, then
//! what SPIFFE adds ([`Leaf`]) and the trust domain. The control plane must prove its own identity besides.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use selvedge_identity::svid::Leaf;

fn check_leaf(leaf: &CertificateDer<'_>, trust_domain: &str) -> Result<(), Error> {
    Leaf::of_trust_domain(leaf, trust_domain).map(drop).map_err(refused)
}

fn refused(problem: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(problem))))
}

/// What a server asks of its clients.
#[derive(Debug)]
pub(super) struct MeshClients {
    pub(super) chain: Arc<dyn ClientCertVerifier>,
    pub(super) trust_domain: Box<str>,
}

impl ClientCertVerifier for MeshClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[] // a mesh client has one certificate, so the names would only cost bytes
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        check_leaf(leaf, &self.trust_domain)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// What a client asks of a server. The host name plays no part: a mesh server proves an identity, not a name.
#[derive(Debug)]
pub(super) struct MeshServers {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    pub(super) trust_domain: Box<str>,
}

impl ServerCertVerifier for MeshServers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        check_leaf(leaf, &self.trust_domain)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Namespace and service account the control plane must prove.
const CONTROL_PLANE: (&str, &str) = ("selvedge-system", "control-plane");

/// Whom to believe that a server is the control plane.
#[derive(Debug)]
pub(super) enum Trust {
    /// Authorities we know.
    Roots { roots: RootCertStore, trust_domain: Box<str> },
    /// The authority the server sends last, if this is the SHA-256 of its certificate.
    Pin([u8; 32]),
}

/// What a sidecar asks of the control plane.
#[derive(Debug)]
pub(super) struct ControlPlane {
    pub(super) trust: Trust,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// Why a server is not our control plane.
#[derive(Debug, thiserror::Error)]
enum NotControlPlane {
    #[error(
        "the control plane's authority is not the one the join token pins; create a token in this control plane's --state-dir"
    )]
    OtherAuthority,
    #[error("the server's identity is '{0}', which is not a control plane's")]
    OtherIdentity(selvedge_policies::facts::Identity),
}

impl ServerCertVerifier for ControlPlane {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(leaf)?;
        let pinned;
        let roots = match &self.trust {
            Trust::Roots { roots, .. } => roots,
            Trust::Pin(pin) => {
                pinned = pinned_root(pin, intermediates)?;
                &pinned
            }
        };
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, self.algorithms.all)?;
        if let Trust::Roots { trust_domain, .. } = &self.trust {
            check_leaf(leaf, trust_domain)?;
        }
        let identity = Leaf::from_der(leaf).map_err(refused)?.identity;
        if (&*identity.namespace, &*identity.service_account) != CONTROL_PLANE {
            return Err(refused(NotControlPlane::OtherIdentity(identity)));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn pinned_root(pin: &[u8; 32], sent: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
    let root = sent.last().filter(|root| digest::digest(&digest::SHA256, root).as_ref() == pin);
    let mut store = RootCertStore::empty();
    store.add(root.ok_or_else(|| refused(NotControlPlane::OtherAuthority))?.clone().into_owned())?;
    Ok(store)
}
