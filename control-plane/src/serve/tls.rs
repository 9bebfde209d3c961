//! TLS of the port sidecars connect to, with a certificate that renews itself.
//!
//! Guarantees: TLS 1.3 only; a client certificate, when there is one, is a valid X.509-SVID of the trust domain; no
//! session outlives its connection, so every connection proves itself anew.

use std::{sync::Arc, time::Duration};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use crate::{Error, clock, identity::Authority, telemetry::Telemetry};

/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// The control plane's own certificate.
#[derive(Debug)]
pub(super) struct OwnCertificate {
    current: watch::Receiver<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.borrow()))
    }
}

/// TLS settings, and the task that keeps their certificate fresh for as long as the settings are in use.
pub(super) fn config(
    authority: &Arc<Authority>,
    telemetry: &Telemetry,
) -> Result<(Arc<ServerConfig>, impl Future<Output = ()> + use<>), Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(Error::Verifier)?;
    let (certificate, not_after) = issue(authority, &provider)?;
    telemetry.certificate_expiry.set(not_after);
    let (sender, current) = watch::channel(certificate);
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(OwnCertificate { current }));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let renewal = renew(sender, Arc::clone(authority), provider, telemetry.clone(), not_after);
    Ok((Arc::new(config), renewal))
}

fn issue(authority: &Authority, provider: &CryptoProvider) -> Result<(Arc<CertifiedKey>, i64), Error> {
    let own = authority.own(clock::unix())?;
    let key = provider.key_provider.load_private_key(own.key)?;
    Ok((Arc::new(CertifiedKey::new(own.chain, key)), own.not_after))
}

async fn renew(
    certificate: watch::Sender<Arc<CertifiedKey>>,
    authority: Arc<Authority>,
    provider: Arc<CryptoProvider>,
    telemetry: Telemetry,
    mut not_after: i64,
) {
    let mut wait = until_renewal(not_after);
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = certificate.closed() => return,
        }
        wait = match issue(&authority, &provider) {
            Ok((fresh, end)) => {
                certificate.send_replace(fresh);
                telemetry.certificate_expiry.set(end);
                not_after = end;
                until_renewal(not_after)
            }
            Err(e) => {
                tracing::error!(error = &e as &dyn std::error::Error, "the own certificate was not renewed");
                RETRY
            }
        };
    }
}

/// Two thirds of what is left.
fn until_renewal(not_after: i64) -> Duration {
    let left = u64::try_from(not_after).unwrap_or(0).saturating_sub(clock::unix());
    Duration::from_secs(left * 2 / 3).max(Duration::from_secs(1))
}
