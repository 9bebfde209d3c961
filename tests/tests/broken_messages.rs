//! What callers leave unfinished, and what only looks like a message, is charged to them and carried to nobody.

use std::time::Duration;

use selvedge_tests::{
    around::talk_to_the_end,
    client,
    pair::{HOST, Pair},
    upstream::Scenario,
    wait,
};
use tokio::io::AsyncWriteExt;

/// Waits until `web`'s sidecar has counted one request with this reason, once and only once.
async fn counted(pair: &Pair, reason: &str) {
    pair.web.metrics().until("selvedge_requests_total", &[&format!("reason=\"{reason}\"")], 1.0).await;
}

#[tokio::test]
async fn content_of_a_connect_is_not_taken_for_the_next_request() {
    let pair = Pair::start().await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: api.shop\r\n\r\n";
    for framing in [format!("Content-Length: {}", hidden.len()), "Transfer-Encoding: chunked".into()] {
        let served = pair.upstream.served();
        let head = format!("CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n{framing}\r\n\r\n{hidden}");
        let mut stream = client::connect(pair.entry()).await.unwrap();
        let answer = talk_to_the_end(&mut stream, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("malformed_framing"), "{answer}");
        assert_eq!(pair.upstream.served(), served, "{:?}", pair.upstream.targets());
    }
}

#[tokio::test]
async fn a_tunnel_is_not_a_way_around_a_denial() {
    let pair = Pair::start().await;
    pair.mesh.write(
        "deny.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: no-admin, namespace: shop}\n\
         spec:\n  targetRef: {kind: Service, name: api}\n  action: DENY\n  rules: [{to: [{paths: [/admin/*]}]}]\n",
    );
    assert_eq!(pair.until_status("/admin/x", 403).await.reason(), "policy_denied");
    let served = pair.upstream.served();
    let head = format!("CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\nConnection: close\r\n\r\n");
    let mut stream = client::connect(pair.entry()).await.unwrap();
    let answer = talk_to_the_end(&mut stream, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("policy_denied"), "{answer}");
    assert_eq!(pair.upstream.served(), served);
}

#[tokio::test]
async fn a_caller_that_closes_is_noticed_while_the_service_thinks() {
    let pair = Pair::start().await;
    pair.upstream.play(Scenario::Slow(Duration::from_secs(60)));
    let served = pair.upstream.served();
    let mut stream = client::connect(pair.entry()).await.unwrap();
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
    let upstream = &pair.upstream;
    wait::until_true("the service has the request", || async move { upstream.served() > served }).await;
    drop(stream);
    counted(&pair, "downstream_closed").await;
}

#[tokio::test]
async fn an_upload_that_its_caller_breaks_off_is_not_the_services_failure() {
    let pair = Pair::start().await;
    let mut stream = client::connect(pair.entry()).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\nten bytes.");
    let served = pair.upstream.served();
    stream.write_all(head.as_bytes()).await.unwrap();
    let upstream = &pair.upstream;
    wait::until_true("the service has the head", || async move { upstream.served() > served }).await;
    drop(stream);
    counted(&pair, "downstream_closed").await;
    pair.web.metrics().absent("selvedge_requests_total", &["reason=\"upstream_reset\""]).await;
}

#[tokio::test]
async fn content_of_a_get_in_chunks_arrives() {
    let pair = Pair::start().await;
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    let mut stream = client::connect(pair.entry()).await.unwrap();
    let answer = talk_to_the_end(&mut stream, format!("{head}5\r\nhello\r\n0\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"bodyLength\":5"), "{answer}");
}
