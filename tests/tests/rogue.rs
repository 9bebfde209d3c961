//! A workload of the mesh with a good certificate, that does not keep to what its sidecar would do, gains nothing by it.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use selvedge_proxy::{credentials::Svid, tls::TlsContext};
use selvedge_tests::{pair::Pair, wait};
use serde_json::Value;
use tokio::time::Instant;

/// TLS with the credentials that the sidecar with this `home` has stored.
fn stolen(home: &Path) -> TlsContext {
    let text = fs::read(home.join("state/credentials.json")).unwrap();
    let stored: Value = serde_json::from_slice(&text).unwrap();
    let pem = |label: &str, der: &Value| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", der.as_str().unwrap()).into_bytes()
    };
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        let all = stored[name].as_array().unwrap().iter();
        all.map(|der| CertificateDer::from_pem_slice(&pem("CERTIFICATE", der)).unwrap()).collect()
    };
    let key = PrivateKeyDer::from_pem_slice(&pem("PRIVATE KEY", &stored["key"])).unwrap();
    let identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
    let svid = Svid { identity, chain: certificates("chain"), key, not_before: 0, not_after: 0 };
    TlsContext::new(&svid, &certificates("roots"), "mesh.local").unwrap()
}

/// A connection to the sidecar at `peer` with one of the protocols of the mesh.
fn connect(config: &Arc<ClientConfig>, peer: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
    let socket = TcpStream::connect(peer).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let session = ClientConnection::new(config.clone(), "api.shop".try_into().unwrap()).unwrap();
    StreamOwned::new(session, socket)
}

/// Sends `bytes` as `selvedge-tcp` and returns all that comes back until the peer closes or is silent for a while.
fn as_opaque(tls: &TlsContext, peer: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(&tls.tcp, peer);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer); // a timeout is an end too
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn http_called_opaque_meets_the_limits_and_checks_for_requests() {
    let pair = Pair::start_with("", &[]).await;
    pair.mesh.write(
        "limit.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: RateLimit\nmetadata: {name: three, namespace: shop}\nspec:\n  \
         targetRef: {kind: Service, name: api}\n  limits: [{requests: 3, per: 1h, key: [identity], match: [{methods: [GET]}]}]\n",
    );
    pair.until_status("/", 429).await;
    let (tls, peer) = (stolen(pair.web.home()), pair.api.inbound(8080));
    let ask = |text: &'static str| {
        let tls = tls.clone();
        async move { tokio::task::spawn_blocking(move || as_opaque(&tls, peer, text.as_bytes())).await.unwrap() }
    };
    let served = pair.upstream.served();
    let limited = ask("GET /opaque HTTP/1.1\r\nHost: api.shop\r\n\r\n").await;
    assert!(limited.starts_with("HTTP/1.1 429") && limited.contains("rate_limited"), "{limited}");
    let malformed = ask("GET /opaque HTTP/1.1\r\nHost: api.shop\r\nHost: other\r\n\r\n").await;
    assert!(malformed.starts_with("HTTP/1.1 400"), "{malformed}");
    ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(pair.upstream.served(), served, "{:?}", pair.upstream.targets());
    let api = &pair.api;
    wait::until_true("it is counted as a request", || async move {
        api.metric("selvedge_requests_total", &["reason=\"malformed_host\""]).await >= 1.0
    })
    .await;
}

/// Asks again and again on one connection, until it is closed; each answer must be whole and good. How long that took.
fn ask_until_closed(config: &Arc<ClientConfig>, peer: SocketAddr) -> Duration {
    let (mut stream, began) = (connect(config, peer), Instant::now());
    let mut answers = 0;
    loop {
        let mut chunk = [0; 4096];
        let asked = stream.write_all(b"GET /bytes/3 HTTP/1.1\r\nHost: api.shop\r\n\r\n").and_then(|()| stream.flush());
        let read = asked.and_then(|()| stream.read(&mut chunk)).unwrap_or(0);
        let answer = String::from_utf8_lossy(&chunk[..read]).to_lowercase();
        if read == 0 {
            assert!(answers > 3, "closed after {answers} answers");
            return began.elapsed();
        }
        answers += 1;
        assert!(answer.starts_with("http/1.1 200") && answer.ends_with("xxx"), "{answer}");
        if answer.contains("connection: close") {
            return began.elapsed();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_callers_certificate() {
    let pair = Pair::start_with("http", &["--certificate-lifetime", "6s"]).await;
    let (tls, peer) = (stolen(pair.web.home()), pair.api.inbound(8080));
    let lived = tokio::task::spawn_blocking(move || ask_until_closed(&tls.http1, peer)).await.unwrap();
    assert!(lived < Duration::from_secs(20), "three lifetimes and still open: {lived:?}");
    assert_eq!(pair.get("/").await.status, 200, "who has a newer certificate is served");
}
