//! Certificates are renewed before they expire, the authority that signs them is replaced, and no request notices.

use std::time::Duration;

use selvedge_tests::{
    around::talk,
    client,
    load::{self, Load, Plan},
    mesh::{Mesh, Sidecar, Workload},
    pair::{DESTINATION, HOST, Pair},
    wait,
};
use serde_json::Value;
use tokio::{net::TcpStream, sync::mpsc};

/// Certificates are renewed after two thirds of it: a machine that stands still for the rest of it loses them.
const LIFETIME: f64 = 12.0;

/// An authority is trusted for a lifetime after it has signed the last time.
const PATIENCE: Duration = Duration::from_secs(90);

async fn renewing() -> Pair {
    Pair::start_with("", &["--certificate-lifetime", &format!("{LIFETIME}s")]).await
}

#[tokio::test]
async fn renewals_under_load_lose_no_request() {
    let pair = renewing().await;
    let expiry = async || pair.api.metric("selvedge_certificate_expiration_timestamp_seconds", &[]).await;
    let first = expiry().await;
    let now = selvedge_control_plane::clock::unix() as f64;
    assert!((now..now + LIFETIME + 1.0).contains(&first), "{first} at {now}, with a lifetime of {LIFETIME} s");
    let kept = Load::start(&Plan::new(pair.entry(), HOST, "/"), 3, load::ok);
    let streams = Load::start(&Plan::new(pair.entry(), HOST, "/").over_http2(), 2, load::ok);
    wait::until_true("the certificate is renewed again and again", || async { expiry().await > first + LIFETIME })
        .await;
    kept.stop().await.assert_flawless(200);
    streams.stop().await.assert_flawless(100);
}

#[tokio::test]
async fn a_tunnel_outlives_the_certificates_it_was_opened_with() {
    let pair = renewing().await;
    let expiry = async || pair.web.metric("selvedge_certificate_expiration_timestamp_seconds", &[]).await;
    let first = expiry().await;
    let mut tunnel = tunnel(&pair).await;
    // The third is in use when neither certificate of the handshake is valid any more.
    wait::within("the second renewal", async {
        while expiry().await <= first + LIFETIME {
            assert_eq!(talk(&mut tunnel, b"ping", "ping", 1).await, "ping");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(talk(&mut tunnel, b"last", "last", 1).await, "last");
}

/// Requests go on, a tunnel stays open, and sidecars that connect anew during and after each step understand each other.
#[tokio::test]
async fn a_new_authority_takes_over_under_load_and_no_connection_notices() {
    let pair = renewing().await;
    let first = fingerprints(&pair.mesh);
    assert_eq!(trusted(&pair.api).await, first);
    let kept = Load::start(&Plan::new(pair.entry(), HOST, "/"), 3, load::ok);
    let streams = Load::start(&Plan::new(pair.entry(), HOST, "/").over_http2(), 2, load::ok);
    let mut tunnel = tunnel(&pair).await;
    let mut late = pair.mesh.sidecar(Workload::new("shop/late").calls(DESTINATION)).await;

    pair.mesh.selvedge(&["ca", "rotate"]);
    // A restart may take longer than a step, and must not hide the next.
    let (began, mut beginning) = mpsc::unbounded_channel();
    let restarts = tokio::spawn(async move {
        while beginning.recv().await.is_some() {
            late.restart();
            let entry = late.outbound(DESTINATION);
            wait::until_true("a sidecar that connects anew gets through", || client::answers(entry)).await;
        }
    });
    let mut steps = Vec::new();
    while steps.last().map(String::as_str) != Some("signs") || fingerprints(&pair.mesh) == first {
        let step = roles(&pair.mesh).join("+");
        if steps.last() != Some(&step) {
            steps.push(step);
            began.send(()).expect("the restarts go on");
        }
        assert_eq!(talk(&mut tunnel, b"ping", "ping", 1).await, "ping");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(began);
    restarts.await.unwrap();
    steps.retain(|step| !step.contains("requested"));
    assert_eq!(steps, ["signs+signsFrom", "signs+trustedUntil", "signs"].map(String::from), "first {first:?}");
    let second = fingerprints(&pair.mesh);
    for sidecar in [&pair.web, &pair.api] {
        let is_alone = async || (trusted(sidecar).await == second).then_some(());
        wait::until_within(PATIENCE, "the sidecars trust the new authority alone", is_alone).await;
    }
    assert_eq!(talk(&mut tunnel, b"last", "last", 1).await, "last");
    kept.stop().await.assert_flawless(200);
    streams.stop().await.assert_flawless(100);
}

async fn tunnel(pair: &Pair) -> TcpStream {
    let mut tunnel = client::connect(pair.entry()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(talk(&mut tunnel, head.as_bytes(), "\r\n\r\n", 1).await.starts_with("HTTP/1.1 101"));
    tunnel
}

fn authorities(mesh: &Mesh, field: &str) -> Vec<String> {
    let shown: Vec<Value> = serde_json::from_str(&mesh.selvedge(&["ca", "show", "-o", "json"])).unwrap();
    shown.iter().map(|authority| authority[field].as_str().unwrap().to_owned()).collect()
}

fn roles(mesh: &Mesh) -> Vec<String> {
    authorities(mesh, "role")
}

fn fingerprints(mesh: &Mesh) -> Vec<String> {
    authorities(mesh, "fingerprint")
}

/// The authorities a sidecar has in force.
async fn trusted(sidecar: &Sidecar) -> Vec<String> {
    let config = client::get(sidecar.admin(), "/config").await.unwrap().json();
    serde_json::from_value(config["authorities"].clone()).unwrap()
}
