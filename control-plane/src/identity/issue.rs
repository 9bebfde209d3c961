//! Leaf certificates: X.509-SVIDs over a key that its owner proved to have.

use std::time::Duration;

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData as _, SanType,
    SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use selvedge_policies::facts::Identity;

use super::{
    IdentityError,
    ca::Ca,
    fields::{backdated, moment, random_serial, uri},
};

/// A request for one key has a few hundred bytes.
const MAX_REQUEST: usize = 16 * 1024;

/// A certificate that was signed for a workload, and what it says.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Leaf first; the CA's certificate is not part of it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whom it stands for.
    pub identity: Identity,
    /// Its serial number, in hex.
    pub serial: String,
    /// Start of validity, seconds since the Unix epoch.
    pub not_before: i64,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct KeyedCertificate {
    /// Leaf first, what leads to it from authorities before, the CA's certificate last.
    pub chain: Vec<CertificateDer<'static>>,
    /// Private key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
}

/// Checks a PKCS#10 request's signature by its own key (proof of possession) and its algorithm.
pub(super) fn verified_key(csr: &[u8]) -> Result<CertificateSigningRequestParams, IdentityError> {
    let refused = |problem: &str| IdentityError::Request(problem.to_owned());
    if csr.len() > MAX_REQUEST {
        return Err(refused("it is larger than any request for one key"));
    }
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
        .map_err(|e| IdentityError::Request(e.to_string()))?;
    let strong = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    if !strong.contains(&request.public_key.algorithm()) {
        return Err(refused("its key is not P-256, P-384 or Ed25519"));
    }
    // The reader takes the kind of the key from the signature. A certificate over another kind could not be read.
    if request.public_key.der_bytes().len() != length(request.public_key.algorithm()) {
        return Err(refused(
            "its signature is of another kind than its key: P-256 goes with SHA-256, P-384 with SHA-384",
        ));
    }
    Ok(request)
}

/// Bytes of a public key: an uncompressed point (SEC 1 section 2.3.3), or one of Ed25519 (RFC 8032).
fn length(algorithm: &SignatureAlgorithm) -> usize {
    match algorithm {
        of if *of == PKCS_ECDSA_P256_SHA256 => 1 + 2 * 32,
        of if *of == PKCS_ECDSA_P384_SHA384 => 1 + 2 * 48,
        _ => 32,
    }
}

/// Signs a leaf over the key of `request`; nothing else of the request is used.
pub(super) fn leaf(
    ca: &Ca,
    mut request: CertificateSigningRequestParams,
    identity: Identity,
    lifetime: Duration,
    now: u64,
) -> Result<Issued, IdentityError> {
    request.params = params(&identity, lifetime, now)?;
    let (not_before, not_after) = validity(&request.params);
    let serial = request.params.serial_number.as_ref().map(ToString::to_string).unwrap_or_default();
    let certificate = request.signed_by(ca.issuer()).map_err(IdentityError::Signing)?;
    Ok(Issued { chain: vec![certificate.der().clone()], identity, serial, not_before, not_after })
}

/// A new key and a leaf over it, by which a server proves to have this DNS name, and nothing else.
pub(super) fn serving(ca: &Ca, name: &str, lifetime: Duration, now: u64) -> Result<KeyedCertificate, IdentityError> {
    let name = SanType::DnsName(name.try_into().map_err(IdentityError::Signing)?);
    let mut params = of_names(name, lifetime, now)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    over_new_key(ca, &[], &params)
}

/// A new key and a leaf over it.
pub(super) fn keyed(
    ca: &Ca,
    crosses: &[CertificateDer<'static>],
    identity: Identity,
    lifetime: Duration,
    now: u64,
) -> Result<KeyedCertificate, IdentityError> {
    over_new_key(ca, crosses, &params(&identity, lifetime, now)?)
}

fn over_new_key(
    ca: &Ca,
    crosses: &[CertificateDer<'static>],
    params: &CertificateParams,
) -> Result<KeyedCertificate, IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Signing)?;
    let certificate = params.signed_by(&key, ca.issuer()).map_err(IdentityError::Signing)?;
    let leaf = [certificate.der().clone()];
    Ok(KeyedCertificate {
        chain: [&leaf, crosses, &[ca.certificate().clone()]].concat(),
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        not_after: validity(params).1,
    })
}

fn params(identity: &Identity, lifetime: Duration, now: u64) -> Result<CertificateParams, IdentityError> {
    of_names(SanType::URI(uri(&identity.to_string())?), lifetime, now)
}

fn of_names(name: SanType, lifetime: Duration, now: u64) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![name];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial()?);
    params.not_before = backdated(now)?;
    params.not_after = moment(now)? + lifetime;
    Ok(params)
}

fn validity(params: &CertificateParams) -> (i64, i64) {
    (params.not_before.unix_timestamp(), params.not_after.unix_timestamp())
}
