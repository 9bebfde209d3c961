//! From the control thread to the workers: recompiles when resources or certificates change and publishes the
//! whole.

use std::sync::Arc;

use tokio::sync::watch;

use super::{RuntimeConfig, compile::Compiler};
use crate::{identity::Credentials, telemetry::Telemetry, tls::TlsContext, xds::Resources};

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
        let mut tls: Option<Arc<TlsContext>> = None;
        let mut current: Option<Arc<Credentials>> = None;
        loop {
            let credentials = self.credentials.borrow_and_update().clone();
            let resources = self.resources.borrow_and_update().clone();
            let mut refused = resources.last_error.clone();
            if let Some(new) = credentials.filter(|new| current.as_ref().is_none_or(|old| !Arc::ptr_eq(old, new))) {
                match TlsContext::new(&new.svid, &new.roots, &new.svid.identity.trust_domain) {
                    Ok(context) => tls = Some(Arc::new(context)),
                    Err(error) => refused = Some(error.to_string()),
                }
                let expiry = u64::try_from(new.svid.not_after).unwrap_or_default();
                self.telemetry.set_certificate_expiration(expiry);
                current = Some(new);
            }
            let mut config = compiler.compile(&resources, tls.clone());
            config.external_tls.clone_from(&self.external_tls);
            self.telemetry.config_applied(config.generation);
            self.telemetry.config_error(refused.as_deref());
            self.telemetry.set_xds_connected(resources.connected);
            self.configs.send_replace(Arc::new(config));
            tokio::select! {
                changed = self.resources.changed() => if changed.is_err() { return },
                changed = self.credentials.changed() => if changed.is_err() { return },
            }
        }
    }
}
