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
        Leaf::of_trust_domain(leaf, &self.trust_domain).map_err(refused)?;
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

/// Namespace and service account the control plane must prove.
pub(super) const CONTROL_PLANE: (&str, &str) = ("selvedge-system", "control-plane");

/// Whom to believe that a server is who it says.
#[derive(Debug)]
pub(super) enum Trust {
    /// Authorities we know, for identities of our trust domain.
    Roots { roots: Arc<RootCertStore>, trust_domain: Box<str> },
    /// The authority the server sends last, if this is the SHA-256 of its certificate.
    Pin([u8; 32]),
    /// Authorities that a pod was given when it was created, of whatever trust domain they are, and those it has learnt of.
    Injected(RootCertStore),
}

impl Trust {
    /// `error` in words of what has to be done, where that is known.
    fn explain(&self, error: Error) -> Error {
        match (self, &error) {
            // All authorities of a mesh have one name, so one that is replaced shows as a signature that is not its own.
            (
                Self::Injected(_),
                Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature),
            ) => refused(NotControlPlane::TooOld),
            _ => error,
        }
    }
}

/// What a client asks of a server of the mesh. The host name plays no part: it proves an identity, not a name.
#[derive(Debug)]
pub(super) struct MeshServers {
    pub(super) trust: Trust,
    /// Namespace and service account it must prove; those of any workload when absent.
    pub(super) only: Option<(&'static str, &'static str)>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// Why a server is not our control plane.
#[derive(Debug, thiserror::Error)]
enum NotControlPlane {
    #[error(
        "the control plane's authority is not the one the join token pins; create a token in this control plane's --state-dir"
    )]
    OtherAuthority,
    #[error(
        "the control plane proves itself under none of the authorities this pod was created with (trustBundle): the mesh \
         has another one by now, or this is another mesh; no token was sent. Delete the pod, so that its controller creates \
         it anew with the present trust bundle"
    )]
    TooOld,
    #[error("the server's identity is '{0}', which is not a control plane's")]
    OtherIdentity(selvedge_policies::facts::Identity),
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
        let pinned;
        let (roots, trust_domain) = match &self.trust {
            Trust::Roots { roots, trust_domain } => (&**roots, Some(trust_domain)),
            Trust::Pin(pin) => {
                pinned = pinned_root(pin, intermediates)?;
                (&pinned, None)
            }
            Trust::Injected(roots) => (roots, None),
        };
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, self.algorithms.all)
            .map_err(|error| self.trust.explain(error))?;
        let identity = match trust_domain {
            Some(trust_domain) => Leaf::of_trust_domain(leaf, trust_domain),
            None => Leaf::from_der(leaf),
        };
        let identity = identity.map_err(refused)?.identity;
        if self.only.is_some_and(|only| (&*identity.namespace, &*identity.service_account) != only) {
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
