//! TLS settings of the webhook: a certificate for the name of its Service, always current.

use std::{sync::Arc, time::Duration};

use rustls::{ServerConfig, crypto::aws_lc_rs};
use selvedge_inject::policy::webhook::host;
use tokio::{sync::watch, time::sleep};

use crate::{Error, clock, identity::Authority};

/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// TLS settings that are always current, and the task that keeps them so while somebody reads them.
pub(super) fn config(
    authority: &Arc<Authority>,
) -> Result<(watch::Receiver<Arc<ServerConfig>>, impl Future<Output = ()> + use<>), Error> {
    let (first, due) = build(authority)?;
    let (configs, current) = watch::channel(first);
    Ok((current, renew(configs, Arc::clone(authority), due)))
}

/// Settings around a new certificate, and when it is to be renewed, in seconds since the Unix epoch.
fn build(authority: &Authority) -> Result<(Arc<ServerConfig>, u64), Error> {
    let now = clock::unix();
    let own = authority.serving(&host(), now)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(own.chain, own.key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let left = u64::try_from(own.not_after).unwrap_or(0).saturating_sub(now);
    Ok((Arc::new(config), now + (left * 2 / 3).max(1)))
}

/// Renews when two thirds of the lifetime are over, and when another authority signs.
async fn renew(configs: watch::Sender<Arc<ServerConfig>>, authority: Arc<Authority>, mut due: u64) {
    let mut changes = authority.changes();
    loop {
        tokio::select! {
            () = clock::reached(due) => {}
            Ok(()) = changes.changed() => {}
            () = configs.closed() => return,
        }
        match build(&authority) {
            Ok((fresh, next)) => {
                configs.send_replace(fresh);
                due = next;
            }
            Err(e) => {
                tracing::error!(error = &e as &dyn std::error::Error, "the certificate of the webhook was not renewed");
                sleep(RETRY).await;
            }
        }
    }
}
