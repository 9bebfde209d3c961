//! Asking for a certificate: the first time with a token, later with the certificate before.

use std::{sync::Arc, time::Duration};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use selvedge_xds::proto::mesh::{SignRequest, SignResponse};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{IdentityError, store};
use crate::{channel, credentials::Credentials, grpc::mesh::certificates_client::CertificatesClient, tls};

const SIGN: Duration = Duration::from_secs(10);

/// What a request proves its sender with.
#[derive(Clone, Copy)]
enum Proof<'a> {
    JoinToken(&'a str),
    ServiceAccount(&'a str),
    /// The certificate that the connection was made with.
    Certificate,
}

/// A new key for a certificate.
pub fn new_key() -> Result<KeyPair, IdentityError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// Gets the first certificate with `token` from the control plane at `host:port`. When the answer gets lost it can be
/// asked for again, with the same key.
pub async fn join(
    control_plane: &str,
    workload: &str,
    token: &str,
    key: &KeyPair,
) -> Result<Credentials, IdentityError> {
    let pin = pin(token).ok_or(IdentityError::MalformedToken)?;
    sign(control_plane, workload, Proof::JoinToken(token), tls::to_pinned_control_plane(pin)?, key).await
}

/// Gets the first certificate of a pod with the token of its service account, from a control plane that proves itself under
/// one of `roots`.
pub async fn join_pod(
    control_plane: &str,
    workload: &str,
    token: &str,
    roots: &[CertificateDer<'static>],
    key: &KeyPair,
) -> Result<Credentials, IdentityError> {
    sign(control_plane, workload, Proof::ServiceAccount(token), tls::to_injected_control_plane(roots)?, key).await
}

/// Gets the next certificate, over a new key, for as long as `current` is valid.
pub async fn renew(control_plane: &str, workload: &str, current: &Credentials) -> Result<Credentials, IdentityError> {
    let renewed =
        sign(control_plane, workload, Proof::Certificate, tls::to_control_plane(current)?, &new_key()?).await?;
    if renewed.svid.identity != current.svid.identity {
        return Err(IdentityError::Answer(format!("it is for another identity, '{}'", renewed.svid.identity)));
    }
    Ok(renewed)
}

async fn sign(
    control_plane: &str,
    workload: &str,
    proof: Proof<'_>,
    tls: Arc<ClientConfig>,
    key: &KeyPair,
) -> Result<Credentials, IdentityError> {
    let csr = CertificateParams::default().serialize_request(key)?.der().to_vec().into();
    let mut request = SignRequest { csr, workload: workload.to_owned(), ..SignRequest::default() };
    match proof {
        Proof::JoinToken(token) => token.clone_into(&mut request.join_token),
        Proof::ServiceAccount(token) => token.clone_into(&mut request.service_account_token),
        Proof::Certificate => {}
    }
    // The handshake is over when this returns, and so is the proof of who answers.
    let channel = channel::connect(control_plane, tls)
        .await
        .map_err(|source| IdentityError::Connect { address: control_plane.to_owned(), source })?;
    let answer = timeout(SIGN, CertificatesClient::new(channel).sign(request))
        .await
        .map_err(|_| IdentityError::TimedOut)?
        .map_err(|status| refused(&status))?;
    let SignResponse { chain, roots, .. } = answer.into_inner();
    let certificates = |ders: Vec<bytes::Bytes>| ders.into_iter().map(|d| CertificateDer::from(d.to_vec())).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let credentials = store::assemble(key, certificates(chain), certificates(roots)).map_err(IdentityError::Answer)?;
    // A certificate over another key, or by an authority that is not in the bundle, would show only in handshakes.
    tls::TlsContext::new(&credentials.svid, &credentials.roots, &credentials.svid.identity.trust_domain)?;
    Ok(credentials)
}

fn refused(status: &Status) -> IdentityError {
    let said = status.message().to_owned();
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => IdentityError::NotNow(said),
        _ => IdentityError::Refused(said),
    }
}

/// The last part of a token: SHA-256 of the CA's certificate.
fn pin(token: &str) -> Option<[u8; 32]> {
    let mut parts = token.split('.');
    let (Some("sv1"), Some(_id), Some(_secret), Some(hex), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let mut pin = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, digits) in pin.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(pin)
}
