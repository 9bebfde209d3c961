//! Certificates are renewed before they expire, and no request notices.

use selvedge_tests::{
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
