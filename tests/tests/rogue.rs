//! A workload of the mesh with a good certificate, that does not keep to what its sidecar would do, gains nothing by it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::ClientConfig;
use selvedge_control_plane::clock;
use selvedge_proxy::TlsContext;
use selvedge_tests::{
    frames::{ACK, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, frame, hello, parse},
    pair::Pair,
    upstream::{Scenario, Upstream},
    wait::{DEADLINE, within},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

#[path = "rogue/stolen.rs"]
mod stolen;

use stolen::{connect, older, stolen};

/// Sends `bytes` as `selvedge-tcp` and returns what comes back until it says `wanted`, or the peer closes or is silent for
/// `patience`.
async fn as_opaque(tls: &TlsContext, peer: SocketAddr, bytes: &str, wanted: &str, patience: Duration) -> String {
    let mut stream = connect(&tls.tcp, peer).await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let (mut answer, mut text) = (Vec::new(), String::new());
    while !text.contains(wanted) && matches!(timeout(patience, stream.read_buf(&mut answer)).await, Ok(Ok(1..))) {
        text = String::from_utf8_lossy(&answer).into_owned();
    }
    text
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
    let ask = |text: &'static str, wanted: &'static str| as_opaque(&tls, peer, text, wanted, DEADLINE);
    let served = pair.upstream.served();
    let limited = ask("GET /opaque HTTP/1.1\r\nHost: api.shop\r\n\r\n", "rate_limited").await;
    assert!(limited.starts_with("HTTP/1.1 429") && limited.contains("rate_limited"), "{limited}");
    let malformed = ask("GET /opaque HTTP/1.1\r\nHost: api.shop\r\nHost: other\r\n\r\n", "\r\n\r\n").await;
    assert!(malformed.starts_with("HTTP/1.1 400"), "{malformed}");
    // Nothing is answered.
    as_opaque(&tls, peer, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 200", Duration::from_secs(1)).await;
    assert_eq!(pair.upstream.served(), served, "{:?}", pair.upstream.targets());
    // It is counted as a request.
    pair.api.metrics().until("selvedge_requests_total", &["reason=\"malformed_host\""], 1.0).await;
}

/// How long the service takes for an answer, so that there is nearly always a request under way.
const THINKING: Duration = Duration::from_millis(500);

/// Asks again and again on one connection until the peer announces its end, which nothing but the end of the certificate
/// is a reason for; each answer must be whole and good.
async fn ask_until_closed(config: &Arc<ClientConfig>, peer: SocketAddr, service: &Upstream) {
    let mut stream = connect(config, peer).await;
    for answered in 0.. {
        if stream.write_all(b"GET /closed HTTP/1.1\r\nHost: api.shop\r\n\r\n").await.is_err() {
            return; // it was closed while nothing was asked
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            if !matches!(within("the answer", stream.read_buf(&mut answer)).await, Ok(1..)) {
                // A request may cross the end of a connection that had none.
                let served = service.targets().iter().filter(|target| *target == "/closed").count();
                let crossed = answer.is_empty() && served == answered;
                return assert!(crossed, "cut off after {:?}", String::from_utf8_lossy(&answer));
            }
        }
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        if answer.contains("connection: close") {
            let end = within("the end", stream.read(&mut [0; 16])).await;
            return assert!(matches!(end, Ok(0) | Err(_)), "bytes after the last answer: {end:?}");
        }
    }
}

/// The same over HTTP/2, where the announcement is GOAWAY without an error.
async fn ask_until_goaway(config: &Arc<ClientConfig>, peer: SocketAddr) {
    let mut stream = connect(config, peer).await;
    stream.write_all(&hello()).await.unwrap();
    let (mut bytes, mut asked) = (Vec::new(), 0);
    let goaway = loop {
        asked += 1;
        let get = frame(HEADERS, END_HEADERS | END_STREAM, 2 * asked - 1, GET);
        stream.write_all(&get).await.unwrap();
        while let Ok(Ok(1..)) = timeout(THINKING / 5, stream.read_buf(&mut bytes)).await {}
        if let Some(goaway) = parse(&bytes).into_iter().find(|frame| frame.kind == GOAWAY) {
            break goaway;
        }
    };
    // The peer asks for an echo, to know that what was sent before the announcement came has arrived.
    while !parse(&bytes).iter().any(|frame| frame.kind == PING) {
        within("the question", stream.read_buf(&mut bytes)).await.unwrap();
    }
    let ping = parse(&bytes).into_iter().find(|frame| frame.kind == PING).expect("it is there");
    stream.write_all(&frame(PING, ACK, 0, &ping.payload)).await.unwrap();
    assert_eq!(goaway.code(), 0, "{goaway:?}");
    // Of what came too late for the peer, the last request is the only one.
    let _ = within("the end", stream.read_to_end(&mut bytes)).await;
    let answered = parse(&bytes).iter().filter(|frame| frame.stream > 0 && frame.flags & END_STREAM > 0).count();
    assert!(answered + 1 >= asked as usize, "{answered} of {asked} requests were answered");
    // `:status: 200` is number 8 of the static table.
    let good = parse(&bytes).iter().filter(|frame| frame.kind == HEADERS && frame.payload[0] == 0x88).count();
    assert_eq!(good, answered, "every answer is good");
}

/// How many seconds after the end of the certificate that `web` has now `asking` with it ends.
async fn outlived(pair: &Pair, asking: impl AsyncFnOnce(TlsContext, SocketAddr)) -> f64 {
    // A renewal in between makes the certificate last longer than this.
    let end = pair.web.metric("selvedge_certificate_expiration_timestamp_seconds", &[]).await;
    within("the connection ends", asking(stolen(pair.web.home()), pair.api.inbound(8080))).await;
    clock::unix() as f64 - end
}

#[tokio::test]
async fn a_connection_lives_as_long_as_its_callers_certificate() {
    let pair = Pair::start_with("", &["--certificate-lifetime", "6s"]).await;
    pair.upstream.play(Scenario::Slow(THINKING));
    let (http1, http2) = tokio::join!(
        outlived(&pair, async |tls, peer| ask_until_closed(&tls.http1, peer, &pair.upstream).await),
        outlived(&pair, async |tls, peer| ask_until_goaway(&older(&tls), peer).await),
    );
    for outlived in [http1, http2] {
        // A tenth of the lifetime for clocks that differ; the next certificate, should it be that one, is 4 s younger.
        assert!((0.0..8.0).contains(&outlived), "ended {outlived} s after the certificate");
    }
    assert_eq!(pair.get("/").await.status, 200, "who has a newer certificate is served");
}
