//! Between sidecars everything is mutual TLS with the identity that the control plane named, and nothing else.

use std::{net::SocketAddr, time::Duration};

use http::Method;
use selvedge_tests::{
    around::talk_to_the_end,
    client::{self, request},
    mesh::Workload,
    pair::{HOST, Pair},
    relay::Relay,
    upstream::Upstream,
    wait,
};
use tokio::time::Instant;

/// `api` as peers find it: at `address`.
fn api_at(address: SocketAddr) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: api, namespace: shop, labels: {{app: \
         api}}}}\nspec:\n  serviceAccount: api\n  address: 127.0.0.1\n  ports: [{{port: 8080, dial: {}}}]\n",
        address.port()
    )
}

#[tokio::test]
async fn the_wire_between_sidecars_shows_no_plaintext() {
    let pair = Pair::start().await;
    let wire = Relay::start(pair.api.inbound(8080)).await;
    pair.mesh.write("workload-shop-api.yaml", &api_at(wire.address()));
    // The service repeats in its answer what it was asked for, so the words would show in both directions.
    let asked = || {
        let mut asked = request(Method::POST, HOST, "/a-secret-path");
        *asked.body_mut() = "a-secret-body".into();
        asked
    };
    wait::until_true("a request goes over the relay", || async {
        let answer = client::call(pair.entry(), asked()).await;
        wire.carried() > 0 && answer.is_ok_and(|answer| answer.text().contains("/a-secret-path"))
    })
    .await;
    assert!(!wire.saw("a-secret-path") && !wire.saw("a-secret-body") && !wire.saw("HTTP/1.1"), "plaintext on the wire");

    client::call(wire.address(), asked()).await.ok();
    assert!(wire.saw("a-secret-path") && wire.saw("a-secret-body"), "the relay sees what is not encrypted");
}

#[tokio::test]
async fn a_strict_workload_refuses_plaintext_and_says_why() {
    let pair = Pair::start().await;
    let served = pair.upstream.served();
    let answer = client::call(pair.api.inbound(8080), request(Method::GET, HOST, "/")).await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(answer.json()["error"], "plaintext_refused", "{}", answer.text());
    assert_eq!(pair.upstream.served(), served, "a plaintext request reached a strict workload");
    pair.api.metrics().until("selvedge_denials_total", &["reason=\"plaintext_refused\""], 1.0).await;
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
    pair.mesh.write("workload-shop-api.yaml", &api_at(other.inbound(8080)));
    pair.until_reason("/", "upstream_identity_mismatch").await;
    assert_eq!(impostor.served(), 0);
}

#[tokio::test]
async fn what_has_no_sidecar_is_called_in_plaintext_only_where_callers_may() {
    let pair = Pair::start().await;
    let bare = api_at(pair.upstream.address()) + "  sidecar: false\n";
    pair.mesh.write("workload-shop-api.yaml", &bare);
    let refused = pair.until_reason("/", "unknown_destination").await;
    assert!(refused.text().contains("REQUIRE"), "{}", refused.text());
    let prefer = "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: web, namespace: \
                  shop}\nspec:\n  mtls: {outbound: PREFER}\n";
    pair.mesh.write("prefer.yaml", prefer);
    pair.until_status("/", 200).await;
    pair.mesh.remove("prefer.yaml");
    pair.until_reason("/", "unknown_destination").await;
}

#[tokio::test]
async fn bytes_that_are_no_handshake_end_quickly_and_harm_nobody() {
    let pair = Pair::start().await;
    let inside = pair.api.inbound(8080);
    let sent = [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16\x03\x01\xff\xff", b"\0\0\0\0", b"\x16"];
    let ended = sent.map(|garbage| async move {
        let (start, mut stream) = (Instant::now(), client::connect(inside).await.unwrap());
        // The caller keeps it open.
        let answer = talk_to_the_end(&mut stream, garbage).await;
        assert!(!answer.contains("200"), "{garbage:?}: {answer}");
        // What may still become something gets ten seconds.
        assert!(start.elapsed() < Duration::from_secs(13), "{garbage:?}: {:?}", start.elapsed());
    });
    futures_util::future::join_all(ended).await;
    assert_eq!(pair.get("/").await.status, 200);
}
