//! From the control thread to the workers: recompiles when resources or certificates change and publishes the
//! whole.

use std::sync::Arc;

use bytes::Bytes;
use selvedge_decide::{compile::Compiler, config::Locality, resources::Resources};
use selvedge_xds::proto::mesh::TrustBundle;
use tokio::sync::watch;

use super::{InForce, Trust, authorities};
use crate::{
    credentials::Credentials,
    telemetry::Telemetry,
    tls::{ExternalTls, TlsContext, TlsError},
};

/// What the publisher watches and feeds.
pub(crate) struct Publisher {
    /// The control plane's resources.
    pub resources: watch::Receiver<Arc<Resources>>,
    /// The workload's certificate and the trust bundle.
    pub credentials: watch::Receiver<Option<Arc<Credentials>>>,
    /// Where workers take the configuration.
    pub configs: watch::Sender<InForce>,
    /// TLS towards services outside the mesh.
    pub external_tls: Option<Arc<ExternalTls>>,
    /// Where the workload is, as its own file says.
    pub locality: Locality,
    /// Gauges for generation, last error and certificate expiry.
    pub telemetry: Telemetry,
}

impl Publisher {
    /// Publishes until both sources are gone.
    pub(crate) async fn run(mut self) {
        let mut compiler = Compiler::at(std::mem::take(&mut self.locality));
        let mut keeper = Keeper::new(self.external_tls.take());
        let mut told = None;
        let mut in_force: Option<InForce> = None;
        loop {
            let credentials = self.credentials.borrow_and_update().clone();
            let resources = self.resources.borrow_and_update().clone();
            let refused = keeper.update(credentials, resources.bundle.as_ref()).err().map(|error| error.to_string());
            if let Some(credentials) = &keeper.credentials {
                let expiry = u64::try_from(credentials.svid.not_after).unwrap_or_default();
                self.telemetry.set_certificate_expiration(expiry);
            }
            let error = refused.or_else(|| resources.refusal.clone());
            if error != told {
                self.telemetry.config_error(error.as_deref());
                told = error;
            }
            self.telemetry.set_xds_connected(resources.connected);
            // Who holds a connection looks at each that is published: only one that is another one is.
            let known = in_force.take().filter(|known| known.config.resources.generation == resources.generation);
            let is_same = known.as_ref().is_some_and(|known| Arc::ptr_eq(&known.trust, &keeper.trust));
            let config = known.map_or_else(|| Arc::new(compiler.compile(&resources)), |known| known.config);
            let now = in_force.insert(InForce { config, trust: Arc::clone(&keeper.trust) });
            if !is_same {
                self.telemetry.config_applied(&now.config);
                self.configs.send_replace(now.clone());
            }
            tokio::select! {
                changed = self.resources.changed() => if changed.is_err() { return },
                changed = self.credentials.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Makes [`Trust`] anew, and only when what we prove or whom we trust changes: a new context has no sessions to resume.
#[derive(Default)]
struct Keeper {
    credentials: Option<Arc<Credentials>>,
    /// The authorities that the stream announced last.
    announced: Option<Vec<Bytes>>,
    trust: Arc<Trust>,
}

impl Keeper {
    fn new(external: Option<Arc<ExternalTls>>) -> Self {
        Self { trust: Arc::new(Trust { mesh: None, external }), ..Self::default() }
    }

    /// Takes what is new. Authorities come with the discovery stream and with each certificate; the last to bring news
    /// wins, so neither a stream nor a renewal that is late takes back what the other has brought. On an error the
    /// context before stays in force.
    fn update(
        &mut self,
        credentials: Option<Arc<Credentials>>,
        bundle: Option<&Arc<TrustBundle>>,
    ) -> Result<(), TlsError> {
        let Some(credentials) = credentials else { return Ok(()) };
        let known = self.credentials.as_ref().is_some_and(|old| Arc::ptr_eq(old, &credentials));
        let roots = bundle.map(|bundle| &bundle.roots_der);
        let announced = self.announced.as_ref() != roots;
        if known && !announced {
            return Ok(());
        }
        let first = self.credentials.is_none();
        let news = roots.filter(|roots| (first || announced) && !roots.is_empty());
        let trusted = news.map_or_else(|| credentials.roots.to_vec(), |roots| authorities(roots));
        let svid = &credentials.svid;
        let mesh = TlsContext::new(svid, &trusted, &svid.identity.trust_domain)?;
        self.trust = Arc::new(Trust { mesh: Some(Arc::new(mesh)), external: self.trust.external.clone() });
        // Only now: what could not be used is still news to be complained about the next time.
        self.credentials = Some(credentials);
        self.announced = roots.cloned();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;
    use crate::{credentials::Svid, telemetry::TelemetrySettings};

    fn root() -> CertificateDer<'static> {
        CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn credentials(roots: &[&CertificateDer<'static>]) -> Option<Arc<Credentials>> {
        let key = KeyPair::generate().unwrap();
        let chain = vec![CertificateParams::default().self_signed(&key).unwrap().der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
        let svid = Arc::new(Svid { identity, chain, key, not_before: 0, not_after: 0 });
        Some(Arc::new(Credentials { svid, roots: roots.iter().copied().cloned().collect() }))
    }

    fn bundle(roots: &[&CertificateDer<'static>]) -> Arc<TrustBundle> {
        let roots_der = roots.iter().map(|root| root.to_vec().into()).collect();
        Arc::new(TrustBundle { trust_domain: "mesh.local".to_owned(), roots_der, ..TrustBundle::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_counts_once_however_often_something_else_changes() {
        let settings = TelemetrySettings { access_log_file: Some("/dev/null".into()), ..TelemetrySettings::default() };
        let telemetry = Telemetry::new(&settings).unwrap();
        let (news, resources) = watch::channel(Arc::default());
        let (_credentials, credentials) = watch::channel(None);
        let (configs, mut published) = watch::channel(InForce::default());
        let (locality, telemetry_of) = (Locality::default(), telemetry.clone());
        let publisher =
            Publisher { resources, credentials, configs, external_tls: None, locality, telemetry: telemetry_of };
        tokio::spawn(publisher.run());
        let mut refused = async |generation, refusal: Option<&str>| {
            let refusal = refusal.map(str::to_owned);
            news.send_replace(Arc::new(Resources { generation, refusal, ..Resources::default() }));
            published.wait_for(|in_force| in_force.config.generation == generation).await.unwrap();
            let text = telemetry.render().await;
            let total = text.lines().find_map(|line| line.strip_prefix("selvedge_config_refused_total "));
            total.expect("the counter is there").to_owned()
        };
        assert_eq!(refused(1, Some("no such field")).await, "1");
        assert_eq!(refused(2, Some("no such field")).await, "1");
        assert_eq!(refused(3, None).await, "1");
        assert_eq!(refused(4, Some("no such field")).await, "2");
        assert_eq!(refused(5, Some("another one")).await, "3");
    }

    #[test]
    fn the_last_news_of_the_authorities_wins() {
        let (a, b) = (root(), root());
        let context = |keeper: &Keeper| keeper.trust.mesh.clone().unwrap();
        let mut keeper = Keeper::default();
        let mut trusted = |credentials: &Option<Arc<Credentials>>, bundle: Option<&Arc<TrustBundle>>| {
            keeper.update(credentials.clone(), bundle).unwrap();
            (context(&keeper).authorities.len(), context(&keeper))
        };
        let (first, both) = (credentials(&[&a]), bundle(&[&a, &b]));
        assert_eq!(trusted(&first, None).0, 1);
        let (count, in_force) = trusted(&first, Some(&both));
        assert_eq!(count, 2, "the stream announces a second authority");
        assert!(Arc::ptr_eq(&trusted(&first, Some(&both)).1, &in_force), "no news leaves sessions resumable");
        let elsewhere = TrustBundle { networks: vec!["10.244.1.0/24".to_owned()], ..TrustBundle::clone(&both) };
        assert!(Arc::ptr_eq(&trusted(&first, Some(&Arc::new(elsewhere))).1, &in_force), "nor do other networks");
        let renewed = credentials(&[&b]);
        assert_eq!(trusted(&renewed, Some(&both)).0, 1, "a renewal is newer than a stream that fell silent");
        assert_eq!(trusted(&renewed, Some(&bundle(&[&b, &a, &root()]))).0, 3);
        assert_eq!(trusted(&renewed, Some(&bundle(&[]))).0, 1, "an empty bundle is no news");

        let mut restarted = Keeper::default();
        restarted.update(first, Some(&both)).unwrap();
        assert_eq!(context(&restarted).authorities.len(), 2, "a restart takes up the stream's bundle");
    }

    #[test]
    fn what_cannot_be_used_is_complained_about_until_it_is_mended() {
        let (a, b) = (root(), root());
        let mut keeper = Keeper::default();
        let first = credentials(&[&a]);
        keeper.update(first.clone(), None).unwrap();
        let in_force = keeper.trust.clone();
        let unusable = bundle(&[&a, &CertificateDer::from(b"no certificate".to_vec())]);
        for _ in 0..3 {
            assert!(keeper.update(first.clone(), Some(&unusable)).is_err());
            assert!(Arc::ptr_eq(&keeper.trust, &in_force), "the context before stays");
        }
        keeper.update(first, Some(&bundle(&[&a, &b]))).unwrap();
        assert_eq!(keeper.trust.mesh.as_ref().unwrap().authorities.len(), 2);
    }
}
