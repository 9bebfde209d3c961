//! What `selvedge token create` prints is worth what it says, to a control plane that runs.

use selvedge_control_plane::clock;
use selvedge_proxy::{Credentials, IdentityError, new_key};
use selvedge_tests::{mesh::Mesh, wait};

/// Asks for a certificate, with a key of its own.
async fn join(mesh: &Mesh, workload: &str, token: &str) -> Result<Credentials, IdentityError> {
    let key = new_key().expect("a key");
    selvedge_proxy::join(&mesh.control_plane_address().to_string(), workload, token, &key).await
}

fn create(mesh: &Mesh, ttl: &str) -> String {
    let whom = ["--identity", "shop/web", "--workload", "shop/web-1"];
    mesh.selvedge(&[&["token", "create", "--ttl", ttl], &whom[..]].concat())
}

#[tokio::test]
async fn a_token_is_worth_one_certificate_and_only_to_its_workload() {
    let mesh = Mesh::start().await;
    let token = create(&mesh, "1h");
    let refused = join(&mesh, "shop/web-2", &token).await.expect_err("another workload").to_string();
    assert!(refused.contains("it is for another workload"), "{refused}");
    let joined = join(&mesh, "shop/web-1", &token).await.expect("its workload gets a certificate");
    assert_eq!(joined.svid.identity.to_string(), "spiffe://mesh.local/ns/shop/sa/web");
    let again = join(&mesh, "shop/web-1", &token).await.expect_err("another key").to_string();
    assert!(again.contains("used already"), "{again}");
    let log = mesh.control_plane_log();
    assert!(log.contains("it is for another workload"), "{log}");
    // Who has which certificate is known afterwards.
    let issued = log.lines().find(|line| line.contains("certificate issued")).unwrap_or_else(|| panic!("{log}"));
    let expires = joined.svid.not_after.to_string();
    for part in ["shop/sa/web", "shop/web-1", "127.0.0.1", "serial", &expires] {
        assert!(issued.contains(part), "{part} is not in {issued}");
    }
}

#[tokio::test]
async fn a_token_is_worth_nothing_once_its_time_is_over() {
    let mesh = Mesh::start().await;
    let token = create(&mesh, "1s");
    let end = clock::unix() + 1;
    wait::until_true("its time is over", || async { clock::unix() > end }).await;
    let refused = join(&mesh, "shop/web-1", &token).await.expect_err("it has expired").to_string();
    assert!(refused.contains("it has expired") && refused.contains("selvedge token create"), "{refused}");
}
