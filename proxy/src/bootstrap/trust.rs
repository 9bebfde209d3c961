//! The authorities that a pod is created with.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::Deserialize;

/// Certificates of authorities, in the file as one PEM text.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct TrustBundle(Vec<CertificateDer<'static>>);

impl TrustBundle {
    /// The certificates; there is at least one.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

impl TryFrom<String> for TrustBundle {
    type Error = String;

    fn try_from(pem: String) -> Result<Self, String> {
        let problem = |problem: &dyn std::fmt::Display| {
            format!("trustBundle is no PEM text of certificates ({problem}); in a pod the injector writes it")
        };
        let roots = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let roots = roots.map_err(|error| problem(&error))?;
        let mut usable = RootCertStore::empty();
        for root in &roots {
            usable.add(root.clone()).map_err(|error| problem(&error))?;
        }
        if usable.is_empty() { Err(problem(&"it has none")) } else { Ok(Self(roots)) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::bootstrap::Bootstrap;

    const GOOD: &str = "workload: shop/web-1\ncontrolPlane: 127.0.0.1:15010\nstateDir: /tmp/x\n";

    fn parse(text: &str) -> Result<Bootstrap, String> {
        Bootstrap::parse(text, Path::new("sidecar.yaml")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_token_of_a_service_account_needs_authorities_and_nothing_else() {
        let root = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
        };
        let bundle = format!("trustBundle: |\n  {}\n", (root() + &root()).replace('\n', "\n  "));
        let token = "serviceAccountTokenFile: /var/run/token\n";
        let bootstrap = parse(&format!("{GOOD}{token}{bundle}")).unwrap();
        assert_eq!(bootstrap.trust_bundle.unwrap().roots().len(), 2);
        for (extra, expected) in [
            (token.to_owned(), "serviceAccountTokenFile needs trustBundle"),
            (format!("{token}{bundle}joinTokenFile: /t\n"), "is given beside joinTokenFile"),
            (format!("{token}trustBundle: ''\n"), "trustBundle is no PEM text of certificates (it has none)"),
            (format!("{token}{}", bundle.replace("MII", "M!I")), "trustBundle is no PEM text"),
        ] {
            let message = parse(&format!("{GOOD}{extra}")).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let message = parse(&format!("{GOOD}{token}trustBundle: nothing\n")).unwrap_err();
        assert!(message.contains("line 5"), "the line is named: {message}");
    }
}
