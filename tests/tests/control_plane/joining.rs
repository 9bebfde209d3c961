//! How a workload gets its certificate, and the next.

use std::{sync::Arc, time::Duration};

use selvedge_control_plane::identity::Grant;
use selvedge_proxy::{Credentials, IdentityError, IdentitySettings, Tenure, explain, keep, renew};
use tempfile::TempDir;
use tokio::{sync::watch, time::timeout};

use super::kit::{ControlPlane, DOMAIN, PATIENCE, WORKLOAD, grant, join};

#[tokio::test]
async fn a_join_token_is_worth_one_certificate() {
    let control_plane = ControlPlane::start().await;
    let token = control_plane.token(grant("web"));
    let credentials = join(&control_plane.address(), &token).await.unwrap();
    assert_eq!(credentials.svid.identity, grant("web").identity);
    let refused = join(&control_plane.address(), &token).await.unwrap_err();
    assert!(matches!(&refused, IdentityError::Refused(why) if why.contains("used already")), "{refused}");
}

#[tokio::test]
async fn of_many_that_redeem_a_token_at_once_one_gets_a_certificate() {
    let control_plane = ControlPlane::start().await;
    let (address, token) = (control_plane.address(), control_plane.token(grant("web")));
    let attempts = (0..8).map(|_| join(&address, &token));
    let joined = futures_util::future::join_all(attempts).await;
    assert_eq!(joined.iter().filter(|result| result.is_ok()).count(), 1, "{joined:?}");
}

#[tokio::test]
async fn worthless_tokens_are_refused() {
    let control_plane = ControlPlane::start().await;
    let address = control_plane.address();
    let expired = control_plane.token(Grant { expires: 1, ..grant("web") });
    assert!(matches!(join(&address, &expired).await, Err(IdentityError::Refused(_))));

    let bound = control_plane.token(Grant { workload: Some("shop/other".into()), ..grant("web") });
    let refused = join(&address, &bound).await.unwrap_err();
    assert!(refused.to_string().contains("another workload"), "{refused}");

    let good = control_plane.token(grant("web"));
    let mut wrong_secret = good.clone();
    wrong_secret.replace_range(21..25, if &good[21..25] == "0000" { "1111" } else { "0000" });
    assert!(matches!(join(&address, &wrong_secret).await, Err(IdentityError::Refused(_))));

    let pin = good.rfind('.').unwrap() + 1;
    let wrong_pin = format!("{}{}", &good[..pin], "ab".repeat(32));
    let refused = join(&address, &wrong_pin).await.unwrap_err();
    let words = explain(&refused);
    assert!(words.contains("not the one the join token pins"), "{words}");

    join(&address, &good).await.expect("failures by others do not use a token up");
}

#[tokio::test]
async fn a_certificate_renews_itself_and_only_itself() {
    let control_plane = ControlPlane::start().await;
    let current = control_plane.join().await;
    let renewed = renew(&control_plane.address(), WORKLOAD, &current).await.unwrap();
    assert_eq!(renewed.svid.identity, current.svid.identity);
    assert_ne!(renewed.svid.key.secret_der(), current.svid.key.secret_der());

    let stranger = ControlPlane::start().await.join().await;
    let refused = renew(&control_plane.address(), WORKLOAD, &stranger).await;
    assert!(matches!(refused, Err(IdentityError::Connect { .. } | IdentityError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn credentials_survive_a_restart_and_are_renewed_in_time() {
    let control_plane = ControlPlane::start_with(Duration::from_secs(8), DOMAIN).await;
    let state = TempDir::new().unwrap();
    let token_file = state.path().join("token");
    std::fs::write(&token_file, control_plane.token(grant("web"))).unwrap();
    let settings = IdentitySettings {
        control_plane: control_plane.address(),
        workload: WORKLOAD.into(),
        join_token_file: Some(token_file),
        service_account: None,
        state_dir: state.path().join("state"),
        tenure: Tenure::default(),
    };
    let next = async |receiver: &mut watch::Receiver<Option<Arc<Credentials>>>| {
        timeout(PATIENCE, receiver.changed()).await.expect("credentials in time").unwrap();
        receiver.borrow_and_update().clone()
    };
    let (sender, mut receiver) = watch::channel(None);
    let keeper = tokio::spawn(keep(settings.clone(), sender));
    assert!(next(&mut receiver).await.is_none(), "nothing is stored yet");
    let first = next(&mut receiver).await.unwrap();
    let second = next(&mut receiver).await.unwrap();
    assert!(second.svid.not_after > first.svid.not_after);
    keeper.abort();

    let (sender, mut receiver) = watch::channel(None);
    tokio::spawn(keep(settings, sender));
    let restored = next(&mut receiver).await.expect("the disk has credentials");
    assert_eq!(restored.svid.chain, second.svid.chain);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(state.path().join("state/credentials.json")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}
