//! One certificate authority: a P-256 key and its certificate, in one file of mode 0600, so that neither can be there
//! without the other.

use std::{fmt, fs, io, os::unix::fs::PermissionsExt, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use selvedge_identity::file;
use time::Duration;
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use super::{IdentityError, failed, fields};

/// Ten years; an authority is [rotated](super::rotation) long before.
const LIFETIME: Duration = Duration::days(3650);
/// Where the certificate begins in the file, behind the key.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE";

/// An opened authority.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive() // the key is not for logs
    }
}

impl Ca {
    /// Founds an authority in the file `path`. False, with nothing changed, when the file exists already: of two
    /// processes that found one at once one wins.
    pub(super) fn found(path: &Path, trust_domain: &str, now: u64) -> Result<bool, IdentityError> {
        let pem = founded(trust_domain, now)?;
        file::create(path, pem.as_bytes()).map_err(|source| failed("writing", path, source))
    }

    /// Reads the authority in the file `path`.
    pub(super) fn read(path: &Path, trust_domain: &str, now: u64) -> Result<Self, IdentityError> {
        let (pem, mode) = content(path)?;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: path.to_owned(), mode });
        }
        let ca = Self::parse(&pem).map_err(|problem| damaged(path, problem))?;
        check(path, &ca.certificate, trust_domain, now)?;
        Ok(ca)
    }

    fn parse(pem: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(pem).map_err(|e| format!("it has no usable private key ({e})"))?;
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| format!("it has no certificate ({e})"))?;
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&certificate)
            .map_err(|e| format!("its certificate cannot be read ({e})"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err("its key does not belong to its certificate".to_owned());
        }
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|e| format!("its certificate is no CA's ({e})"))?;
        Ok(Self { issuer, certificate })
    }

    /// This authority as `old` knows it: a certificate over its key that whoever trusts `old` alone believes, as long as
    /// that one lasts. PEM.
    pub(super) fn certified_by(&self, old: &Self, trust_domain: &str, now: u64) -> Result<String, IdentityError> {
        let mut params = params(trust_domain, now)?;
        // It may stand between an older authority and a newer one.
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let end = not_after(&self.certificate).min(not_after(&old.certificate));
        params.not_after = fields::moment(u64::try_from(end).unwrap_or_default())?;
        let signed = params.signed_by(self.issuer.key(), &old.issuer).map_err(IdentityError::Signing)?;
        Ok(signed.pem())
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// Reads a certificate without its key.
pub(super) fn read_certificate(
    path: &Path,
    trust_domain: &str,
    now: u64,
) -> Result<CertificateDer<'static>, IdentityError> {
    let (pem, _) = content(path)?;
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| damaged(path, format!("it has no certificate ({e})")))?;
    check(path, &certificate, trust_domain, now)?;
    Ok(certificate)
}

/// The certificate of the authority in the file `path`, as PEM and without the key.
pub(super) fn certificate_pem(path: &Path) -> Result<String, IdentityError> {
    let (pem, _) = content(path)?;
    let at = pem.find(CERTIFICATE).ok_or_else(|| damaged(path, "it has no certificate".to_owned()))?;
    Ok(pem[at..].to_owned())
}

/// A certificate as PEM.
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let lines: String = text.as_bytes().chunks(64).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect();
    format!("{CERTIFICATE}-----\n{lines}-----END CERTIFICATE-----\n")
}

/// End of validity, seconds since the Unix epoch; 0 for what is no certificate.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> i64 {
    facts(certificate).map_or(0, |(_, not_after)| not_after)
}

fn check(path: &Path, certificate: &CertificateDer<'_>, trust_domain: &str, now: u64) -> Result<(), IdentityError> {
    let (found, not_after) = facts(certificate).map_err(|problem| damaged(path, problem))?;
    if found != trust_domain {
        return Err(IdentityError::OtherTrustDomain {
            path: path.to_owned(),
            found,
            expected: trust_domain.to_owned(),
        });
    }
    if not_after <= i64::try_from(now).unwrap_or(i64::MAX) {
        return Err(damaged(path, "the CA's certificate has expired".to_owned()));
    }
    Ok(())
}

fn damaged(path: &Path, problem: String) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), problem }
}

/// Content and permission bits of the same open file.
fn content(path: &Path) -> Result<(String, u32), IdentityError> {
    let read = || -> io::Result<(String, u32)> {
        let file = fs::File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        Ok((io::read_to_string(file)?, mode))
    };
    read().map_err(|source| IdentityError::File { action: "reading", path: path.to_owned(), source })
}

/// A new key and its certificate as PEM.
fn founded(trust_domain: &str, now: u64) -> Result<String, IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Signing)?;
    let certificate = params(trust_domain, now)?.self_signed(&key).map_err(IdentityError::Signing)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// What stands in the certificate of any authority of the trust domain.
fn params(trust_domain: &str, now: u64) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Selvedge");
    params.distinguished_name.push(DnType::CommonName, format!("{trust_domain} workloads"));
    params.subject_alt_names = vec![SanType::URI(fields::uri(&format!("spiffe://{trust_domain}"))?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(fields::random_serial()?);
    params.not_before = fields::backdated(now)?;
    params.not_after = params.not_before + LIFETIME;
    Ok(params)
}

/// Trust domain and end of validity of a CA certificate.
fn facts(certificate: &CertificateDer<'_>) -> Result<(String, i64), String> {
    let unreadable = |e: &dyn fmt::Display| format!("its certificate cannot be read ({e})");
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).map_err(|e| unreadable(&e))?;
    let names = parsed.subject_alternative_name().map_err(|e| unreadable(&e))?;
    let trust_domain = names.iter().flat_map(|e| &e.value.general_names).find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
        _ => None,
    });
    let trust_domain = trust_domain.ok_or_else(|| "its certificate names no trust domain".to_owned())?;
    Ok((trust_domain.to_owned(), parsed.validity().not_after.timestamp()))
}
