//! From the control thread to the workers: recompiles when resources or certificates change and publishes the
//! whole.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use selvedge_xds::proto::mesh::TrustBundle;
use tokio::sync::watch;

use super::{RuntimeConfig, compile::Compiler};
use crate::{
    identity::Credentials,
    telemetry::Telemetry,
    tls::{TlsContext, TlsError},
    xds::Resources,
};

/// What the publisher watches and feeds.
pub struct Publisher {
    /// The control plane's resources.
    pub resources: watch::Receiver<Arc<Resources>>,
    /// The workload's certificate and the trust bundle.
    pub credentials: watch::Receiver<Option<Arc<Credentials>>>,
    /// Where workers take the configuration.
    pub configs: watch::Sender<Arc<RuntimeConfig>>,
    /// TLS towards services outside the mesh.
    pub external_tls: Option<Arc<rustls::ClientConfig>>,
    /// Gauges for generation, last error and certificate expiry.
    pub telemetry: Telemetry,
}

impl Publisher {
    /// Publishes until both sources are gone.
    pub async fn run(mut self) {
        let mut compiler = Compiler::default();
        let mut trust = Trust::default();
        loop {
            let credentials = self.credentials.borrow_and_update().clone();
            let resources = self.resources.borrow_and_update().clone();
            let refused = trust.update(credentials, resources.bundle.as_ref()).err().map(|error| error.to_string());
            let mut config = compiler.compile(&resources, trust.context.clone());
            config.external_tls.clone_from(&self.external_tls);
            if let Some(credentials) = &trust.credentials {
                let expiry = u64::try_from(credentials.svid.not_after).unwrap_or_default();
                self.telemetry.set_certificate_expiration(expiry);
            }
            self.telemetry.config_applied(config.generation);
            self.telemetry.config_error(refused.as_deref().or(resources.last_error.as_deref()));
            self.telemetry.set_xds_connected(resources.connected);
            self.configs.send_replace(Arc::new(config));
            tokio::select! {
                changed = self.resources.changed() => if changed.is_err() { return },
                changed = self.credentials.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// What we prove and whom we trust, in TLS form. Made anew only when one of them changes: a new context has no
/// sessions to resume.
#[derive(Default)]
struct Trust {
    credentials: Option<Arc<Credentials>>,
    bundle: Option<Arc<TrustBundle>>,
    context: Option<Arc<TlsContext>>,
}

impl Trust {
    /// Takes what is new. The authorities of the discovery stream win over those that came with the certificate,
    /// because they change without a renewal. On an error the context before stays in force.
    fn update(
        &mut self,
        credentials: Option<Arc<Credentials>>,
        bundle: Option<&Arc<TrustBundle>>,
    ) -> Result<(), TlsError> {
        let Some(credentials) = credentials else { return Ok(()) };
        let known = self.credentials.as_ref().is_some_and(|old| Arc::ptr_eq(old, &credentials));
        if known && self.bundle.as_ref() == bundle {
            return Ok(());
        }
        self.credentials = Some(credentials.clone());
        self.bundle = bundle.cloned();
        let announced = bundle.map(|bundle| &bundle.roots_der).filter(|roots| !roots.is_empty());
        let roots: Vec<CertificateDer<'static>> = match announced {
            Some(roots) => roots.iter().map(|root| root.to_vec().into()).collect(),
            None => credentials.roots.to_vec(),
        };
        let svid = &credentials.svid;
        self.context = Some(Arc::new(TlsContext::new(svid, &roots, &svid.identity.trust_domain)?));
        Ok(())
    }
}
