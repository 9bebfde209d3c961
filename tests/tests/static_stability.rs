//! The data plane outlives the control plane: traffic, policy and certificates go on without it.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use http::Method;
use selvedge_tests::{
    client::{self, request},
    load::{self, Load, Plan},
    mesh::{Mesh, Workload},
    pair::{HOST, Pair},
    wait,
};
use tokio::time::Instant;

const DENY: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: shop }
spec:
  targetRef: { kind: Service, name: api }
  action: DENY
  rules: [{ to: [{ paths: [/admin] }] }]
";

#[tokio::test]
async fn a_control_plane_that_dies_and_returns_under_load_costs_no_request() {
    let mut pair = Pair::start().await;
    let load = Load::start(&Plan::new(pair.entry(), HOST, "/"), 4, load::ok);
    load.progress(100).await;
    pair.mesh.kill_control_plane();
    load.progress(300).await;
    pair.mesh.write("deny.yaml", DENY);
    pair.mesh.start_control_plane().await;
    // Both sidecars find it again and learn what changed while it was away.
    pair.until_status("/admin", 403).await;
    load.progress(100).await;
    load.stop().await.assert_flawless(500);
}

#[tokio::test]
async fn a_sidecar_restarted_without_a_control_plane_serves_from_disk() {
    let mut pair = Pair::start().await;
    pair.mesh.write("deny.yaml", DENY);
    pair.until_status("/admin", 403).await;
    // What was received is on disk a moment later.
    for (sidecar, known) in [(&pair.web, "shop/api"), (&pair.api, "no-admin")] {
        let file = sidecar.home().join("state/resources.pb");
        wait::until_true("the configuration is on disk", || {
            let stored = std::fs::read(&file).unwrap_or_default();
            std::future::ready(stored.windows(known.len()).any(|bytes| bytes == known.as_bytes()))
        })
        .await;
    }
    pair.mesh.kill_control_plane();
    pair.web.restart();
    pair.api.restart();
    pair.web.ready().await;
    pair.api.ready().await;
    pair.until_status("/", 200).await;
    assert_eq!(pair.get("/admin").await.reason(), "policy_denied", "policy survives the restart");
}

#[tokio::test]
async fn a_policy_with_a_typo_stays_in_force_over_a_restart_of_the_control_plane() {
    let mut pair = Pair::start().await;
    pair.mesh.write("deny.yaml", DENY);
    pair.until_status("/admin", 403).await;
    let file = pair.mesh.folder().join("state/last-good.json");
    wait::until_true("the policy is on disk", || {
        std::future::ready(std::fs::read_to_string(&file).is_ok_and(|kept| kept.contains("no-admin")))
    })
    .await;
    pair.mesh.write("deny.yaml", &DENY.replace("action:", "actoin:"));
    pair.mesh.kill_control_plane();
    pair.mesh.write("more.yaml", &DENY.replace("/admin", "/more").replace("no-admin", "no-more"));
    pair.mesh.start_control_plane().await;
    // What is new shows that the sidecars have heard of the new process.
    pair.until_status("/more", 403).await;
    assert_eq!(pair.get("/admin").await.reason(), "policy_denied");
}

#[tokio::test]
async fn the_loss_of_the_control_plane_shows_in_the_metrics() {
    let mut pair = Pair::start().await;
    let connected = async |pair: &Pair, wanted: f64| {
        pair.web.metrics().until("selvedge_xds_connected", &[], wanted).await;
    };
    connected(&pair, 1.0).await;
    pair.mesh.kill_control_plane();
    connected(&pair, 0.0).await;
    assert_eq!(pair.web.metric("selvedge_config_refused_total", &[]).await, 0.0, "a loss is no refusal");
    pair.mesh.start_control_plane().await;
    connected(&pair, 1.0).await;
}

#[tokio::test]
async fn without_a_control_plane_an_unknown_destination_is_refused_in_time() {
    let mut mesh = Mesh::start().await;
    let web = mesh.sidecar(Workload::new("shop/web").calls("shop/late:80")).await;
    mesh.kill_control_plane();
    mesh.service("shop/late", 80, 8080, "");
    let start = Instant::now();
    let asked = request(Method::GET, "late.shop", "/");
    let answer = client::call(web.outbound("shop/late:80"), asked).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.reason()), (503, "unknown_destination"), "{}", answer.text());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Callers of a sidecar that does not know its workload yet wait for it, and not for long.
#[tokio::test]
async fn a_caller_waits_for_a_sidecar_that_learns_who_may_call() {
    let pair = Pair::start().await;
    let strangers = "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: open, namespace: shop}\nspec: \
                     {mtls: {inbound: PERMISSIVE}}\n";
    pair.mesh.write("open.yaml", strangers);
    let inside = pair.api.inbound(8080);
    wait::until_true("strangers may call", || client::answers(inside)).await;
    let file = pair.mesh.config_dir().join("workload-shop-api.yaml");
    let workload = std::fs::read_to_string(file).unwrap();
    // A busy machine may need longer than the two seconds that a caller waits, and the next time it may not.
    wait::until_within(3 * wait::DEADLINE, "a caller is answered once the sidecar knows", || async {
        pair.mesh.remove("workload-shop-api.yaml");
        wait::until_true("it knows no more", || async { asked(inside).await.0 == 503 }).await;
        let (status, took) = asked(inside).await;
        assert!(status == 503 && took.as_millis() >= 1900, "{status} after {took:?}");
        let is_short = took < Duration::from_secs(6);
        let waits = tokio::spawn(asked(inside));
        pair.mesh.write("workload-shop-api.yaml", &workload);
        (waits.await.unwrap().0 == 200 && is_short).then_some(())
    })
    .await;
}

/// The status that a stranger gets, and after how long.
async fn asked(inside: SocketAddr) -> (u16, Duration) {
    let start = Instant::now();
    let answer = client::call(inside, request(Method::GET, HOST, "/")).await.unwrap();
    (answer.status.as_u16(), start.elapsed())
}

#[tokio::test]
async fn a_sidecar_restarted_with_an_expired_certificate_is_not_ready() {
    let mut pair = Pair::start_with("", &["--certificate-lifetime", "10s"]).await;
    pair.mesh.kill_control_plane();
    let expiry = pair.web.metric("selvedge_certificate_expiration_timestamp_seconds", &[]).await;
    let folder = pair.mesh.folder().to_path_buf();
    wait::until_true("the certificate expires", || std::future::ready(now(&folder) > expiry)).await;
    pair.web.restart();
    assert_eq!(pair.until_reason("/", "not_ready").await.status, 503);
    assert!(!pair.web.is_ready().await);
}

/// Seconds since the epoch, as the file system has it.
fn now(folder: &Path) -> f64 {
    let file = folder.join("now");
    std::fs::write(&file, "").unwrap();
    let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
    modified.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
