//! TLS of the port sidecars connect to, with a certificate and a trust bundle that renew themselves.
//!
//! Guarantees: TLS 1.3 only; a client certificate, when there is one, is a valid X.509-SVID of the trust domain; no
//! session outlives its connection, so every connection proves itself anew.

use std::{sync::Arc, time::Duration};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio::sync::watch;

use crate::{Error, clock, identity::Authority, telemetry::Telemetry};

/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// TLS settings that are always current, and the task that keeps them so while somebody reads them.
pub(super) fn config(
    authority: &Arc<Authority>,
    telemetry: &Telemetry,
) -> Result<(watch::Receiver<Arc<ServerConfig>>, impl Future<Output = ()> + use<>), Error> {
    let changes = authority.changes();
    let (first, not_after) = build(authority)?;
    show_ends(telemetry, authority, not_after);
    let (configs, current) = watch::channel(first);
    Ok((current, renew(configs, Arc::clone(authority), changes, telemetry.clone(), not_after)))
}

/// Settings around a new certificate, and its end of validity.
fn build(authority: &Authority) -> Result<(Arc<ServerConfig>, i64), Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(Error::Verifier)?;
    let own = authority.own(clock::unix())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.chain, own.key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((Arc::new(config), own.not_after))
}

/// Says when the own certificate ends, and the authority that signed it.
fn show_ends(telemetry: &Telemetry, authority: &Authority, own: i64) {
    telemetry.certificate_expiry.set(own);
    let signs = authority.describe().first().map(|signs| signs.not_after);
    telemetry.authority_expiry.set(signs.unwrap_or_default());
}

async fn renew<T>(
    configs: watch::Sender<Arc<ServerConfig>>,
    authority: Arc<Authority>,
    mut changes: watch::Receiver<T>,
    telemetry: Telemetry,
    not_after: i64,
) {
    let (mut due, mut wait) = (renewal(not_after), Duration::ZERO);
    loop {
        let turn = async {
            clock::reached(due).await;
            tokio::time::sleep(wait).await;
        };
        tokio::select! {
            () = turn => {}
            Ok(()) = changes.changed() => {}
            () = configs.closed() => return,
        }
        (due, wait) = match build(&authority) {
            Ok((fresh, end)) => {
                configs.send_replace(fresh);
                show_ends(&telemetry, &authority, end);
                (renewal(end), Duration::ZERO)
            }
            Err(e) => {
                tracing::error!(error = &e as &dyn std::error::Error, "the own certificate was not renewed");
                (0, RETRY)
            }
        };
    }
}

/// When two thirds of what is left are over, in seconds since the Unix epoch.
fn renewal(not_after: i64) -> u64 {
    let now = clock::unix();
    let left = u64::try_from(not_after).unwrap_or(0).saturating_sub(now);
    now + (left * 2 / 3).max(1)
}
