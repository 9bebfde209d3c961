//! The task that keeps credentials valid.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use rcgen::KeyPair;
use tokio::{sync::watch, time::sleep};

use super::{IdentityError, Settings, join, store};
use crate::{channel::explain, clock, credentials::Credentials};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Shortest time between two certificates.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

/// Publishes valid credentials for as long as somebody listens: those of the disk at once, new ones as they come.
pub async fn keep(settings: Settings, credentials: watch::Sender<Option<Arc<Credentials>>>) {
    // Of what has expired the authorities still count.
    let mut current = stored(&settings).map(Arc::new);
    let valid = current.clone().filter(|stored| left(stored) > Duration::ZERO);
    let mut due = valid.as_deref().map_or(Duration::ZERO, renewal);
    credentials.send_replace(valid);
    let mut joining = None;
    let mut pause = FIRST_PAUSE;
    let mut wait = Duration::ZERO;
    let mut said = String::new();
    let mut tenure = settings.tenure.clone();
    loop {
        let turn = async {
            clock::reached(due).await;
            sleep(wait).await;
            tenure.begun().await;
        };
        tokio::select! {
            () = turn => {}
            () = credentials.closed() => return,
        }
        match obtain(&settings, current.as_deref(), &mut joining).await {
            Ok(new) => {
                // What another process keeps by now is newer.
                if settings.tenure.is_ours() {
                    save(&settings, &new);
                }
                let new = Arc::new(new);
                current = Some(Arc::clone(&new));
                (due, wait) = (renewal(&new), Duration::ZERO);
                credentials.send_replace(Some(new));
                pause = FIRST_PAUSE;
                joining = None;
                said.clear();
            }
            Err(e) => {
                wait = pause.mul_f64(0.5 + 0.5 * fastrand::f64());
                pause = (pause * 2).min(LONGEST_PAUSE);
                let problem = explain(&e);
                if problem == said {
                    tracing::debug!(problem, "no new certificate yet");
                } else {
                    tracing::warn!(problem, "no new certificate; trying again until there is one");
                    said = problem;
                }
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
    let key = match joining.take() {
        Some(key) => key,
        None => join::new_key()?,
    };
    let key = joining.insert(key);
    if let Some(account) = &settings.service_account {
        let token = read(&account.token_file)?;
        let stored = current.map_or(&[][..], |stored| &stored.roots);
        let roots = [&*account.trust_bundle, stored].concat();
        return join::join_pod(control_plane, workload, token.trim(), &roots, key).await;
    }
    let path = settings.join_token_file.as_ref().ok_or(IdentityError::NoToken)?;
    let token = read(path).map_err(|error| match error {
        IdentityError::File { source, path, .. } if source.kind() == io::ErrorKind::NotFound => {
            IdentityError::NoTokenThere { path, workload: workload.clone() }
        }
        error => error,
    })?;
    join::join(control_plane, workload, token.trim(), key).await
}

/// The token in a file, read anew for each attempt: an operator may put a fresh one there while we wait, and the kubelet
/// does so all the time.
fn read(path: &Path) -> Result<String, IdentityError> {
    let failed = |source| IdentityError::File { action: "reading", path: path.to_owned(), source };
    fs::read_to_string(path).map_err(failed)
}

fn stored(settings: &Settings) -> Option<Credentials> {
    match store::load(&settings.state_dir) {
        Ok(stored) => stored,
        Err(e) => {
            tracing::warn!(problem = explain(&e), "joining anew");
            None
        }
    }
}

fn left(credentials: &Credentials) -> Duration {
    end(credentials).saturating_sub(clock::since_epoch())
}

fn end(credentials: &Credentials) -> Duration {
    Duration::from_secs(u64::try_from(credentials.svid.not_after).unwrap_or(0))
}

/// When a certificate is renewed, as time since the Unix epoch.
fn renewal(credentials: &Credentials) -> Duration {
    renewal_between(clock::since_epoch(), end(credentials))
}

/// After about two thirds of the life that is left, so that many sidecars started at once do not renew at once.
fn renewal_between(now: Duration, end: Duration) -> Duration {
    now + end.saturating_sub(now).mul_f64(0.60 + 0.08 * fastrand::f64()).max(SHORTEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::ServiceAccount, tenure::Tenure};

    #[test]
    fn a_certificate_is_renewed_at_about_two_thirds_of_its_life_and_not_all_at_once() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        fastrand::seed(seed);
        let (now, life) = (Duration::from_secs(1_800_000_000), Duration::from_secs(24 * 3600));
        let shares: Vec<f64> =
            (0..1000).map(|_| (renewal_between(now, now + life) - now).div_duration_f64(life)).collect();
        assert!(shares.iter().all(|share| (0.60..=0.68).contains(share)), "{shares:?}");
        for tenth in 0..8 {
            let from = 0.60 + 0.01 * f64::from(tenth);
            let count = shares.iter().filter(|share| (from..from + 0.01).contains(*share)).count();
            assert!((60..=200).contains(&count), "{count} of 1000 renew between {from} and a hundredth later");
        }
        assert_eq!(renewal_between(now, now), now + SHORTEST_WAIT, "what has run out is not asked for in a tight loop");
    }

    #[tokio::test]
    async fn who_has_no_token_is_told_how_to_get_one() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            control_plane: "127.0.0.1:1".to_owned(),
            workload: "shop/web-1".to_owned(),
            join_token_file: Some(folder.path().join("token")),
            service_account: None,
            state_dir: folder.path().join("state"),
            tenure: Tenure::default(),
        };
        let missing = obtain(&settings, None, &mut None).await.err().map(|error| explain(&error)).unwrap_or_default();
        assert!(missing.contains("selvedge token create --identity NS/SA --workload shop/web-1"), "{missing}");
        fs::write(folder.path().join("token"), "sv1.what").unwrap();
        let broken = obtain(&settings, None, &mut None).await.err().map(|error| explain(&error)).unwrap_or_default();
        assert!(broken.contains("as `selvedge token create` prints it"), "{broken}");
    }

    #[tokio::test]
    async fn the_control_plane_is_asked_by_one_of_two_processes() {
        let folder = tempfile::tempdir().unwrap();
        let control_plane = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = rcgen::CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.path().join("token"), "token").unwrap();
        let (ours, tenure) = Tenure::new(false);
        let settings = Settings {
            control_plane: control_plane.local_addr().unwrap().to_string(),
            workload: "shop/web-1".to_owned(),
            join_token_file: None,
            service_account: Some(ServiceAccount {
                token_file: folder.path().join("token"),
                trust_bundle: vec![authority.der().clone()],
            }),
            state_dir: folder.path().join("state"),
            tenure,
        };
        let (sender, _receiver) = watch::channel(None);
        tokio::spawn(keep(settings, sender));
        let early = tokio::time::timeout(Duration::from_millis(300), control_plane.accept()).await;
        assert!(early.is_err(), "the other one is about it");
        ours.send_replace(true);
        tokio::time::timeout(Duration::from_secs(60), control_plane.accept()).await.expect("it asks").unwrap();
    }
}
