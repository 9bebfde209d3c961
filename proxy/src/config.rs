//! What a worker goes by: the configuration that decides, and beside it the trust with which decisions are carried out.
//!
//! The control thread publishes both at once; workers never see a part of either. What decides is compiled by
//! [`selvedge_decide`] and knows no TLS.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rustls::pki_types::CertificateDer;
use selvedge_decide::compile;
pub(crate) use selvedge_decide::config::{
    AppProtocol, ClusterConfig, Destination, EndpointConfig, Own, RuntimeConfig, Traffic, Transport,
};
use selvedge_xds::{kinds::TRUST_BUNDLE, proto::mesh::TrustBundle, resource::Encoded};

use crate::tls::{self, ExternalTls, TlsContext};

pub(crate) mod publish;

/// What is in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct InForce {
    /// What is decided by.
    pub config: Arc<RuntimeConfig>,
    /// What connections are made with.
    pub trust: Arc<Trust>,
}

/// What a sidecar proves and whom it trusts, in TLS form.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Between sidecars; `None` before the first certificate.
    pub mesh: Option<Arc<TlsContext>>,
    /// Towards services outside the mesh; `None` when no authorities could be read.
    pub external: Option<Arc<ExternalTls>>,
}

impl InForce {
    /// True when traffic can be carried: there is a certificate and the workload's own view.
    pub(crate) fn is_complete(&self) -> bool {
        self.trust.mesh.is_some() && self.config.is_own_known()
    }
}

/// Whether one resource can be put in force: it compiles, and authorities are certificates that can be trusted.
///
/// # Errors
/// The user's object and what is wrong with it.
pub(crate) fn check(resource: &Encoded) -> Result<(), String> {
    compile::check(resource)?;
    if resource.kind == TRUST_BUNDLE {
        let bundle = TrustBundle::decode(resource.body.clone()).map_err(|error| error.to_string())?;
        if !bundle.roots_der.is_empty() {
            tls::root_store(&authorities(&bundle.roots_der)).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// The certificates of the authorities of a bundle.
fn authorities(roots: &[Bytes]) -> Vec<CertificateDer<'static>> {
    roots.iter().map(|root| root.to_vec().into()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::ServerName;
    use selvedge_xds::{
        kinds::ENDPOINTS,
        proto::mesh::{Endpoint, Endpoints},
    };

    use super::*;

    proptest! {
        #[test]
        fn the_server_names_that_compile_are_those_that_tls_takes(name in "[a0x1F:._-]{1,9}|([a-z0-9-]{1,64}[.]){1,5}") {
            let endpoint = Endpoint { address: "198.51.100.1:443".into(), tls_server_name: name.clone(), ..Default::default() };
            let endpoints = Endpoints { endpoints: vec![endpoint], ..Default::default() };
            let checked = check(&Encoded::new(ENDPOINTS, "shop/api:443", Vec::new(), &endpoints));
            prop_assert_eq!(checked.is_ok(), ServerName::try_from(name.as_str()).is_ok(), "{}", name);
        }
    }

    #[test]
    fn a_bundle_that_cannot_be_trusted_is_refused() {
        let bundle = |roots: &[&[u8]]| {
            let roots_der = roots.iter().map(|root| root.to_vec().into()).collect();
            let message = TrustBundle { trust_domain: "mesh.local".to_owned(), roots_der, ..TrustBundle::default() };
            check(&Encoded::new(TRUST_BUNDLE, "mesh.local", Vec::new(), &message))
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        bundle(&[root.der()]).unwrap();
        bundle(&[]).unwrap();
        let refused = bundle(&[root.der(), b"no certificate"]).unwrap_err();
        assert!(refused.contains("authority 1"), "{refused}");
    }
}
