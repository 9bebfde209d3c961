//! Certificates are renewed before they expire, and no request notices.

use std::time::Duration;

use selvedge_tests::{
    around::talk,
    client,
    load::{self, Load, Plan},
    pair::{HOST, Pair},
    wait,
};

#[tokio::test]
async fn renewals_under_load_lose_no_request() {
    let pair = Pair::start_with("", &["--certificate-lifetime", "6s"]).await;
    let expiry = async || pair.api.metric("selvedge_certificate_expiration_timestamp_seconds", &[]).await;
    let first = expiry().await;
    assert!(first > 0.0, "{}", pair.api.metrics().await);
    let kept = Load::start(&Plan::new(pair.entry(), HOST, "/"), 3, load::ok);
    let streams = Load::start(&Plan::new(pair.entry(), HOST, "/").over_http2(), 2, load::ok);
    // Three lifetimes on, the certificate in use is a later one each time.
    wait::until_true("the certificate is renewed again and again", || async { expiry().await >= first + 15.0 }).await;
    kept.stop().await.assert_flawless(200);
    streams.stop().await.assert_flawless(100);
}

#[tokio::test]
async fn a_tunnel_outlives_the_certificates_it_was_opened_with() {
    let pair = Pair::start_with("", &["--certificate-lifetime", "5s"]).await;
    let expiry = async || pair.web.metric("selvedge_certificate_expiration_timestamp_seconds", &[]).await;
    let first = expiry().await;
    let mut tunnel = client::connect(pair.entry()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(talk(&mut tunnel, head.as_bytes(), "\r\n\r\n", 1).await.starts_with("HTTP/1.1 101"));
    // Two lifetimes on, neither certificate of the handshake is valid any more.
    while expiry().await < first + 10.0 {
        assert_eq!(talk(&mut tunnel, b"ping", "ping", 1).await, "ping");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(talk(&mut tunnel, b"last", "last", 1).await, "last");
}
