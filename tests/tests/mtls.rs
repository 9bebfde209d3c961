//! Between sidecars everything is mutual TLS with the identity that the control plane named, and nothing else.

use std::time::Duration;

use http::Method;
use selvedge_tests::{
    client::{self, request},
    mesh::Workload,
    pair::{HOST, Pair},
    upstream::Upstream,
    wait,
};

#[tokio::test]
async fn the_wire_between_sidecars_shows_no_plaintext() {
    let pair = Pair::start().await;
    let count = pair.api.metric("selvedge_requests_total", &["tls=\"mtls\""]).await;
    assert!(count >= 1.0, "no request over mTLS in\n{}", pair.api.metrics().await);
}

#[tokio::test]
async fn a_strict_workload_refuses_plaintext_and_says_why() {
    let pair = Pair::start().await;
    let served = pair.upstream.served();
    let answer = client::call(pair.api.inbound(8080), request(Method::GET, HOST, "/")).await;
    if let Ok(answer) = answer {
        assert_eq!(answer.status, 403, "{}", answer.text());
    }
    assert_eq!(pair.upstream.served(), served, "a plaintext request reached a strict workload");
}

#[tokio::test]
async fn a_permissive_workload_takes_plaintext() {
    let pair = Pair::start().await;
    let permissive = "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: api, namespace: \
                      shop}\nspec:\n  targetRef: {kind: Workload, name: api}\n  mtls: {inbound: PERMISSIVE}\n";
    pair.mesh.write("permissive.yaml", permissive);
    let address = pair.api.inbound(8080);
    wait::until_true("plaintext is taken", || async move {
        client::call(address, request(Method::GET, HOST, "/")).await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(pair.get("/").await.status, 200, "mTLS still works");
}

#[tokio::test]
async fn a_peer_with_another_identity_than_announced_is_not_called() {
    let pair = Pair::start().await;
    let impostor = Upstream::start("impostor").await;
    let other = pair.mesh.sidecar(Workload::new("shop/impostor").serves(8080, impostor.address())).await;
    // The endpoint of `api` now leads to the impostor's sidecar, which can prove only its own identity.
    let yaml = format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: api, namespace: shop, labels: {{app: \
         api}}}}\nspec:\n  serviceAccount: api\n  address: 127.0.0.1\n  ports: [{{port: 8080, dial: {}}}]\n",
        other.inbound(8080).port()
    );
    pair.mesh.write("workload-shop-api.yaml", &yaml);
    let answer = pair.until_status("/", 503).await;
    assert_eq!(answer.reason(), "upstream_identity_mismatch", "{}", answer.text());
    assert_eq!(impostor.served(), 0);
}

#[tokio::test]
async fn bytes_that_are_no_handshake_end_quickly_and_harm_nobody() {
    let pair = Pair::start().await;
    for garbage in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16\x03\x01\xff\xff", b"\0\0\0\0", b"\x16"] {
        client::exchange(pair.api.inbound(8080), garbage, Duration::from_millis(300)).await;
    }
    assert_eq!(pair.get("/").await.status, 200);
}
