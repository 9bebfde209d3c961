//! What makes a leaf certificate an X.509-SVID (SPIFFE X.509-SVID sections 2, 4 and 5.2).
//!
//! Guarantees: a [`Leaf`] has exactly one URI name, it is an [`Identity`], and the certificate can sign no other
//! certificate. Signature, validity and trust in the issuer are checked by TLS, not here.

use selvedge_policies::facts::{Identity, IdentityError};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

/// The facts of a workload certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Whom it stands for.
    pub identity: Identity,
    /// Start of validity, seconds since the Unix epoch.
    pub not_before: i64,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
}

/// Why a certificate is not an X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// Not DER, or an extension is broken or doubled.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// Zero, or more than one, URI name.
    #[error("the certificate has {0} URI names, a workload certificate has exactly one")]
    UriNames(usize),
    /// The URI is no identity.
    #[error("the certificate's URI name is no identity")]
    Identity(#[source] IdentityError),
    /// CA:TRUE, keyCertSign or cRLSign.
    #[error("the certificate may sign other certificates, so it cannot stand for a workload")]
    Signing,
    /// Of another trust domain.
    #[error("the certificate is of trust domain '{found}', expected '{expected}'")]
    TrustDomain {
        /// The trust domain that the certificate names.
        found: Box<str>,
        /// The trust domain of this mesh.
        expected: Box<str>,
    },
}

impl Leaf {
    /// Reads the leaf certificate `der`.
    pub fn from_der(der: &[u8]) -> Result<Self, SvidError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| SvidError::Unreadable)?;
        if !rest.is_empty() {
            return Err(SvidError::Unreadable);
        }
        // An extension the parser gives up on could hide a name or a right.
        let is_broken = |e: &ParsedExtension<'_>| matches!(e, ParsedExtension::ParseError { .. });
        if certificate.extensions().iter().any(|e| is_broken(e.parsed_extension())) {
            return Err(SvidError::Unreadable);
        }
        if may_sign(&certificate)? {
            return Err(SvidError::Signing);
        }
        let validity = certificate.validity();
        Ok(Self {
            identity: uri_name(&certificate)?.parse().map_err(SvidError::Identity)?,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// [`Leaf::from_der`] for a certificate that must be of `trust_domain`.
    pub fn of_trust_domain(der: &[u8], trust_domain: &str) -> Result<Self, SvidError> {
        let leaf = Self::from_der(der)?;
        if *leaf.identity.trust_domain != *trust_domain {
            return Err(SvidError::TrustDomain { found: leaf.identity.trust_domain, expected: trust_domain.into() });
        }
        Ok(leaf)
    }
}

fn may_sign(certificate: &X509Certificate<'_>) -> Result<bool, SvidError> {
    let usage = certificate.key_usage().map_err(|_| SvidError::Unreadable)?;
    let constraints = certificate.basic_constraints().map_err(|_| SvidError::Unreadable)?;
    Ok(usage.is_some_and(|u| u.value.key_cert_sign() || u.value.crl_sign()) || constraints.is_some_and(|c| c.value.ca))
}

fn uri_name<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, SvidError> {
    let names = certificate.subject_alternative_name().map_err(|_| SvidError::Unreadable)?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri),
        (None, _) => Err(SvidError::UriNames(0)),
        (Some(_), more) => Err(SvidError::UriNames(more + 1)),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    const WEB: &str = "spiffe://mesh.local/ns/shop/sa/web";

    fn uri(text: &str) -> SanType {
        SanType::URI(text.to_owned().try_into().unwrap())
    }

    /// A certificate for `web`, changed.
    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri(WEB)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn with_extension(oid: &[u64], content: &[u8]) -> Vec<u8> {
        certificate(|p| p.custom_extensions = vec![CustomExtension::from_oid_content(oid, content.to_vec())])
    }

    #[test]
    fn a_leaf_has_one_identity_and_may_sign_nothing() {
        assert_eq!(Leaf::from_der(&certificate(|_| ())).unwrap().identity.to_string(), WEB);
        let of = |change: fn(&mut CertificateParams)| Leaf::from_der(&certificate(change));
        assert_eq!(of(|p| p.subject_alt_names.clear()), Err(SvidError::UriNames(0)));
        assert_eq!(of(|p| p.subject_alt_names.push(uri("spiffe://mesh.local/x"))), Err(SvidError::UriNames(2)));
        assert!(matches!(of(|p| p.subject_alt_names = vec![uri("https://x")]), Err(SvidError::Identity(_))));
        assert_eq!(of(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), Err(SvidError::Signing));
        assert_eq!(of(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)), Err(SvidError::Signing));
        assert_eq!(of(|p| p.key_usages.push(KeyUsagePurpose::CrlSign)), Err(SvidError::Signing));
        let other = Leaf::of_trust_domain(&certificate(|_| ()), "other.local");
        assert!(matches!(other, Err(SvidError::TrustDomain { .. })), "{other:?}");
        assert!(Leaf::of_trust_domain(&certificate(|_| ()), "mesh.local").is_ok());
    }

    #[test]
    fn what_another_reader_may_read_otherwise_is_unreadable() {
        let good = certificate(|_| ());
        for bad in [&good[..good.len() - 1], &[&good[..], &[0]].concat(), &[&good[..], &good[..]].concat(), b""] {
            assert_eq!(Leaf::from_der(bad), Err(SvidError::Unreadable), "{} bytes", bad.len());
        }
        // Key usage, names, basic constraints, name constraints, revocation lists, extended key usage (RFC 5280 4.2.1).
        for arc in [15, 17, 19, 30, 31, 37] {
            let broken = Leaf::from_der(&with_extension(&[2, 5, 29, arc], &[0xff, 0x01]));
            assert_eq!(broken, Err(SvidError::Unreadable), "2.5.29.{arc}");
        }
        assert!(Leaf::from_der(&with_extension(&[1, 3, 6, 1, 4, 1, 99_999, 1], &[0xff, 0x01])).is_ok(), "unknown");
    }
}
