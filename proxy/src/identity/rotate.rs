//! The task that keeps credentials valid.

use std::{fs, sync::Arc, time::Duration};

use rcgen::KeyPair;
use tokio::{sync::watch, time::sleep};

use super::{Credentials, IdentityError, Settings, join, store};
use crate::{clock, xds::channel::explain};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Shortest time between two certificates.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

/// Publishes valid credentials for as long as somebody listens: those of the disk at once, new ones as they come.
pub async fn keep(settings: Settings, credentials: watch::Sender<Option<Arc<Credentials>>>) {
    let mut current = stored(&settings).map(Arc::new);
    credentials.send_replace(current.clone());
    let mut joining = None;
    let mut pause = FIRST_PAUSE;
    let mut wait = current.as_deref().map_or(Duration::ZERO, until_renewal);
    loop {
        tokio::select! {
            () = sleep(wait) => {}
            () = credentials.closed() => return,
        }
        match obtain(&settings, current.as_deref(), &mut joining).await {
            Ok(new) => {
                save(&settings, &new);
                let new = Arc::new(new);
                current = Some(Arc::clone(&new));
                wait = until_renewal(&new);
                credentials.send_replace(Some(new));
                pause = FIRST_PAUSE;
                joining = None;
            }
            Err(e) => {
                wait = pause.mul_f64(0.5 + 0.5 * fastrand::f64());
                pause = (pause * 2).min(LONGEST_PAUSE);
                tracing::warn!(problem = explain(&e), "no new certificate; trying again");
            }
        }
    }
}

fn save(settings: &Settings, new: &Credentials) {
    tracing::info!(identity = %new.svid.identity, not_after = new.svid.not_after, "certificate in force");
    if let Err(e) = store::save(&settings.state_dir, new) {
        tracing::error!(problem = explain(&e), "the certificate was not saved; a restart will need a new token");
    }
}

/// `joining` keeps the key between attempts to join, because a token is worth one key.
async fn obtain(
    settings: &Settings,
    current: Option<&Credentials>,
    joining: &mut Option<KeyPair>,
) -> Result<Credentials, IdentityError> {
    let Settings { control_plane, workload, .. } = settings;
    if let Some(current) = current.filter(|current| left(current) > Duration::ZERO) {
        return join::renew(control_plane, workload, current).await;
    }
    let path = settings.join_token_file.as_ref().ok_or(IdentityError::NoToken)?;
    // Read anew each time: an operator may put a fresh token there while we wait.
    let token = fs::read_to_string(path).map_err(|source| IdentityError::File {
        action: "reading",
        path: path.clone(),
        source,
    })?;
    let key = match joining.take() {
        Some(key) => key,
        None => join::new_key()?,
    };
    join::join(control_plane, workload, token.trim(), joining.insert(key)).await
}

fn stored(settings: &Settings) -> Option<Credentials> {
    match store::load(&settings.state_dir) {
        Ok(stored) => stored.filter(|credentials| left(credentials) > Duration::ZERO),
        Err(e) => {
            tracing::warn!(problem = explain(&e), "joining anew");
            None
        }
    }
}

fn left(credentials: &Credentials) -> Duration {
    let end = Duration::from_secs(u64::try_from(credentials.svid.not_after).unwrap_or(0));
    end.saturating_sub(clock::since_epoch())
}

/// About two thirds of the life that is left, so that many sidecars started at once do not renew at once.
fn until_renewal(credentials: &Credentials) -> Duration {
    left(credentials).mul_f64(0.60 + 0.08 * fastrand::f64()).max(SHORTEST_WAIT)
}
