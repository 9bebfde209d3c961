//! `TrafficPolicy`: what fails is tried again within bounds, what hangs is given up, what keeps failing is left alone.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_tests::{
    client::{self, Connection},
    mesh::Workload,
    pair::{HOST, Pair},
    pattern::{self, assert_same},
    ports::Crowded,
    process::binary,
    upstream::{Scenario, Upstream},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    time::Instant,
};

fn policy(body: &str) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: api, namespace: shop}}\nspec:\n  \
         targetRef: {{kind: Service, name: api}}\n{body}"
    )
}

/// The policy is in force when a request that needs it succeeds.
async fn retrying(body: &str) -> Pair {
    let pair = Pair::start().await;
    pair.mesh.write("traffic.yaml", &policy(body));
    let pair_ref = &pair;
    selvedge_tests::wait::until_true("a failed try is repeated", || async move {
        pair_ref.upstream.play(Scenario::Fail(1, 503));
        pair_ref.get("/").await.status == 200
    })
    .await;
    pair
}

/// What the caller's sidecar has counted of its retries: success, failure, over budget, not replayable.
async fn counted(pair: &Pair) -> [f64; 4] {
    let of = async |outcome: &str| {
        let labels = ["destination_service=\"shop/api\"", &format!("outcome=\"{outcome}\"")];
        pair.web.metrics().so_far("selvedge_retries_total", &labels).await
    };
    [of("success").await, of("failure").await, of("over_budget").await, of("not_replayable").await]
}

/// What is counted more after a request than before, with the status it gets when the service plays `scenario`.
async fn grown(pair: &Pair, scenario: Scenario) -> (u16, [f64; 4]) {
    let before = counted(pair).await;
    pair.upstream.play(scenario);
    let status = pair.get("/").await.status.as_u16();
    let after = counted(pair).await;
    (status, std::array::from_fn(|n| after[n] - before[n]))
}

#[tokio::test]
async fn every_retry_is_counted_by_what_came_of_it() {
    let pair = &retrying("  retry: {attempts: 2, codes: [429]}\n").await;
    for (scenario, status, counted) in [
        (Scenario::Echo, 200, [0.0, 0.0, 0.0, 0.0]),
        (Scenario::Fail(1, 502), 200, [1.0, 0.0, 0.0, 0.0]),
        (Scenario::Fail(2, 502), 200, [1.0, 1.0, 0.0, 0.0]),
        (Scenario::Fail(3, 504), 504, [0.0, 2.0, 0.0, 0.0]),
        (Scenario::Fail(3, 429), 429, [0.0, 2.0, 0.0, 0.0]),
        (Scenario::Fail(1, 500), 500, [0.0, 0.0, 0.0, 0.0]),
        (Scenario::Close, 502, [0.0, 2.0, 0.0, 0.0]),
    ] {
        assert_eq!(grown(pair, scenario).await, (status, counted), "{scenario:?}");
    }
    pair.mesh.write("traffic.yaml", &policy("  retry: {attempts: 2, budget: {percent: 0, minPerSecond: 0}}\n"));
    selvedge_tests::wait::until_true("no retry is allowed any more", || async move {
        pair.upstream.play(Scenario::Fail(1, 503));
        pair.get("/").await.status == 503
    })
    .await;
    assert_eq!(grown(pair, Scenario::Fail(1, 503)).await, (503, [0.0, 0.0, 1.0, 0.0]));
}

#[tokio::test]
async fn a_post_is_not_repeated_unless_asked_and_its_body_is_replayed_whole() {
    let body = pattern::bytes(1, 50_000);
    let post = || Request::post("/").header("host", HOST).body(Full::new(body.clone())).unwrap();
    let pair = retrying("  retry: {attempts: 3}\n").await;
    pair.upstream.play(Scenario::Fail(1, 503));
    assert_eq!(client::call(pair.entry(), post()).await.unwrap().status, 503);
    pair.mesh.write("traffic.yaml", &policy("  retry: {attempts: 3, retryNonIdempotent: true}\n"));
    let pair = &pair;
    selvedge_tests::wait::until_true("a POST is repeated", || async {
        pair.upstream.play(Scenario::Fail(1, 503));
        client::call(pair.entry(), post()).await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    let arrived = pair.upstream.take_bodies();
    assert_eq!(arrived.len(), 1);
    assert_same("the body that was sent again", &arrived[0], &body);
}

/// The bodies of the PUTs that a service was sent.
type Puts = Arc<Mutex<Vec<Bytes>>>;

/// Reads each request whole; answers a PUT with 503 and everything else with 200. Speaks both versions.
async fn fails_puts() -> (SocketAddr, Puts) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, puts) = (listener.local_addr().unwrap(), Puts::default());
    let kept = puts.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = kept.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let kept = kept.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    let put = head.method == Method::PUT;
                    if put {
                        kept.lock().await.push(body);
                    }
                    let status = if put { 503 } else { 200 };
                    Ok::<_, hyper::Error>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
                }
            });
            tokio::spawn(async move {
                let mut start = [0; 4];
                let is_http2 = stream.peek(&mut start).await.is_ok() && &start == b"PRI ";
                let io = TokioIo::new(stream);
                // How a connection ends is the business of the sidecar.
                let _ = match is_http2 {
                    true => http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await,
                    false => http1::Builder::new().serve_connection(io, service).await,
                };
            });
        }
    });
    (address, puts)
}

#[tokio::test]
async fn a_body_that_is_too_large_to_keep_is_not_sent_again() {
    let (application, puts) = fails_puts().await;
    let pair = &Pair::in_front_of(application, "http").await;
    pair.mesh.write("traffic.yaml", &policy("  retry: {attempts: 2, budget: {percent: 100, minPerSecond: 100}}\n"));
    let http1 = &Mutex::new(Connection::open(pair.entry()).await.unwrap());
    let http2 = &Mutex::new(Connection::open_http2(pair.entry()).await.unwrap());
    // How often a body of this length is sent, whole each time.
    let tries = |connection: &'static str, length: usize| {
        let puts = puts.clone();
        async move {
            let body = pattern::bytes(2, length);
            let put = Request::put("/").header("host", HOST).body(Full::new(body.clone())).unwrap();
            let connection = if connection == "HTTP/1" { http1 } else { http2 };
            assert_eq!(connection.lock().await.call(put).await.unwrap().status, 503);
            let sent = std::mem::take(&mut *puts.lock().await);
            sent.iter().for_each(|sent| assert_same("one of the tries", sent, &body));
            sent.len()
        }
    };
    let limit = 64 * 1024;
    selvedge_tests::wait::until_true("the largest body that is kept is sent three times", || async {
        tries("HTTP/1", limit).await == 3
    })
    .await;
    for version in ["HTTP/1", "HTTP/2"] {
        for (length, times) in [(1, 3), (4097, 3), (20_000, 3), (limit, 3), (limit + 1, 1), (1_000_000, 1)] {
            assert_eq!(tries(version, length).await, times, "{version}, {length}");
        }
    }
}

#[tokio::test]
async fn a_body_too_large_to_be_sent_again_is_not_retried_and_that_is_counted() {
    let pair = retrying("  retry: {attempts: 3}\n").await;
    let not_made = ["destination_service=\"shop/api\"", "outcome=\"not_replayable\""];
    pair.web.metrics().until("selvedge_retries_total", &not_made, 0.0).await;
    pair.upstream.play(Scenario::Fail(1, 503));
    let put = Request::put("/").header("host", HOST).body(Full::new(pattern::bytes(3, 70_000))).unwrap();
    assert_eq!(client::call(pair.entry(), put).await.unwrap().status, 503);
    pair.web.metrics().until("selvedge_retries_total", &not_made, 1.0).await;
}

#[tokio::test]
async fn retries_do_not_multiply_the_load_on_a_service_that_is_down() {
    let pair = retrying("  retry: {attempts: 3, budget: {percent: 20, minPerSecond: 1}}\n").await;
    pair.upstream.play(Scenario::Fail(u32::MAX, 503));
    let (before, start) = (pair.upstream.served(), Instant::now());
    let mut held_back = 0;
    for _ in 0..100 {
        let before = pair.upstream.served();
        assert_eq!(pair.get("/").await.status, 503);
        held_back += u32::from(pair.upstream.served() - before < 4);
    }
    let tries = pair.upstream.served() - before;
    // A fifth, and one in each second, however many seconds a busy machine makes of it.
    let most = 150 + start.elapsed().as_secs();
    assert!((100..=most).contains(&tries.into()), "{tries} tries for 100 requests, and at most {most}");
    let over = ["destination_service=\"shop/api\"", "outcome=\"over_budget\""];
    pair.web.metrics().until("selvedge_retries_total", &over, held_back.into()).await;
}

#[tokio::test]
async fn a_share_of_the_requests_may_be_tried_again() {
    let pair = retrying("  retry: {attempts: 1, budget: {percent: 50, minPerSecond: 0}}\n").await;
    pair.upstream.play(Scenario::Fail(u32::MAX, 503));
    let before = pair.upstream.served();
    for _ in 0..100 {
        assert_eq!(pair.get("/").await.status, 503);
    }
    let retries = pair.upstream.served() - before - 100;
    // Half of a hundred, and of the few before them; what is ten seconds old on a busy machine is none any more.
    assert!((40..=60).contains(&retries), "{retries} retries for 100 requests");
}

#[tokio::test]
async fn a_retry_goes_to_another_instance_where_there_is_one() {
    let pair = Pair::start().await;
    let twin = Upstream::start("twin").await;
    let second = Workload::new("shop/api-2").runs_as("api").backs("api").serves(8080, twin.address());
    let _second = pair.mesh.sidecar(second).await;
    let budget = "budget: {percent: 100, minPerSecond: 100}";
    pair.mesh.write("traffic.yaml", &policy(&format!("  balancer: random\n  retry: {{attempts: 1, {budget}}}\n")));
    let (pair, failed) = (&pair, || twin.targets().iter().filter(|target| *target == "/fail-at/twin").count());
    let failed = &failed;
    selvedge_tests::wait::until_true("what the twin fails is answered", || async move {
        let before = failed();
        pair.get("/fail-at/twin").await.status == 200 && failed() > before
    })
    .await;
    let before = failed();
    selvedge_tests::wait::within("the twin fails often enough", async {
        while failed() - before < 20 {
            let answer = pair.get("/fail-at/twin").await;
            assert_eq!(answer.status, 200, "both tries went to {}", answer.header("served-by"));
            // Good answers in between: whoever only fails is left alone anyway.
            for _ in 0..4 {
                assert_eq!(pair.get("/").await.status, 200);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_nobody_takes_is_given_up_in_time() {
    let (pair, crowded) = (Pair::start().await, Crowded::start().await);
    let workload = format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: api, namespace: shop, labels: {{app: \
         api}}}}\nspec: {{serviceAccount: api, address: 127.0.0.1, ports: [{{port: 8080, dial: {}}}]}}\n",
        crowded.address().port()
    );
    pair.mesh.write("workload-shop-api.yaml", &workload);
    pair.until_reason("/", "upstream_connect_timeout").await;
    let took = async || {
        let start = Instant::now();
        assert_eq!(pair.get("/").await.reason(), "upstream_connect_timeout");
        start.elapsed()
    };
    let by_default = took().await;
    assert!((1000..9000).contains(&by_default.as_millis()), "{by_default:?}");
    pair.mesh.write("traffic.yaml", &policy("  timeouts: {connect: 200ms}\n"));
    selvedge_tests::wait::until_true("the limit is a shorter one", || async { took().await.as_millis() < 900 }).await;
    assert!(took().await.as_millis() >= 200);
}

/// How long a request takes that the service would answer after 20 s.
async fn given_up(pair: &Pair, reason: &str) -> Duration {
    pair.upstream.play(Scenario::Slow(Duration::from_secs(20)));
    let start = Instant::now();
    let answer = pair.get("/").await;
    assert_eq!((answer.status.as_u16(), answer.reason()), (504, reason), "{}", answer.text());
    start.elapsed()
}

#[tokio::test]
async fn a_try_that_hangs_is_given_up_in_time() {
    let pair = retrying("  retry: {attempts: 1}\n  timeouts: {request: 9s, backendRequest: 200ms}\n").await;
    let took = given_up(&pair, "attempt_timeout").await;
    assert!((200..8000).contains(&took.as_millis()), "{took:?}");
    let labels = ["direction=\"inbound\"", "response_code=\"499\"", "reason=\"downstream_closed\""];
    // The called side counts the try nobody waited for.
    pair.api.metrics().until("selvedge_requests_total", &labels, 1.0).await;
}

#[tokio::test]
async fn a_request_that_hangs_is_given_up_in_time_whatever_its_tries_have_left() {
    let budget = "backoff: {base: 1ms, max: 1ms}, budget: {percent: 100, minPerSecond: 100}";
    let limits = format!(
        "  retry: {{attempts: 9, on: [timeout, gatewayErrors], {budget}}}\n  timeouts: {{request: 2s, backendRequest: 700ms}}\n"
    );
    let pair = retrying(&limits).await;
    let before = pair.upstream.served();
    let took = given_up(&pair, "request_timeout").await;
    assert!((2000..8000).contains(&took.as_millis()), "{took:?}");
    let tries = pair.upstream.served() - before;
    assert!(
        (2..=3).contains(&tries),
        "{tries} tries: two of 700 ms, or what a busy machine makes of them, and one cut short"
    );
}

#[tokio::test]
async fn timeouts_of_a_route_win() {
    let pair = Pair::start().await;
    pair.mesh.write("traffic.yaml", &policy("  timeouts: {request: 8s, backendRequest: 8s}\n"));
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: api, namespace: \
                 shop}\nspec:\n  parentRefs: [{kind: Service, name: api}]\n  rules:\n  - matches: [{path: {type: Exact, \
                 value: /}}]\n    timeouts: ";
    for (number, (timeouts, reason)) in
        [("{request: 300ms}", "request_timeout"), ("{backendRequest: 300ms}", "attempt_timeout")].iter().enumerate()
    {
        // What no rule matches tells which version is in force.
        let mark = format!("  - matches: [{{path: {{type: Exact, value: /version-{number}}}}}]\n");
        pair.mesh.write("route.yaml", &format!("{route}{timeouts}\n{mark}"));
        pair.upstream.play(Scenario::Echo);
        pair.until_status(&format!("/version-{number}"), 200).await;
        pair.until_status("/other", 404).await;
        let took = given_up(&pair, reason).await;
        assert!((300..7000).contains(&took.as_millis()), "{timeouts}: {took:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_keeps_failing_is_left_alone_and_found_again() {
    let pair = Pair::start().await;
    pair.mesh.write("traffic.yaml", &policy("  breaker: {consecutiveFailures: 3, openFor: 300ms, maxOpen: 1s}\n"));
    pair.upstream.play(Scenario::Fail(u32::MAX, 503));
    let pair = &pair;
    selvedge_tests::wait::until_true(
        "the breaker opens",
        || async move { pair.get("/").await.reason() == "breaker_open" },
    )
    .await;
    pair.upstream.play(Scenario::Echo);
    pair.until_status("/", 200).await;
    for _ in 0..20 {
        assert_eq!(pair.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn the_breaker_that_is_shown_is_the_one_in_force() {
    let pair = Pair::start().await;
    let breaker = "  breaker: {consecutiveFailures: 1, openFor: 300ms, maxOpen: 1s}\n";
    pair.mesh.write("traffic.yaml", &policy(breaker));
    let of_api = ["destination_service=\"shop/api\""];
    let until = async |state: f64| pair.web.metrics().until("selvedge_breaker_state", &of_api, state).await;
    let (closed, half_open, open) = (0.0, 1.0, 2.0);
    // A breaker that never opened is closed.
    until(closed).await;
    let break_it = async || {
        pair.upstream.play(Scenario::Fail(u32::MAX, 503));
        selvedge_tests::wait::until_true("the breaker opens", || async {
            let reason = pair.get("/").await.reason() == "breaker_open";
            reason && pair.web.metric("selvedge_breaker_state", &of_api).await == open
        })
        .await;
        pair.upstream.play(Scenario::Echo);
    };
    break_it().await;
    // It opens half without a request, and closes when the probe is answered.
    until(half_open).await;
    pair.until_status("/", 200).await;
    assert_eq!(pair.web.metric("selvedge_breaker_state", &of_api).await, closed);

    break_it().await;
    pair.mesh.write("traffic.yaml", &policy(&format!("{breaker}  timeouts: {{connect: 900ms}}\n")));
    pair.until_status("/", 200).await;
    // The edit counts from what is answered now.
    until(closed).await;

    break_it().await;
    pair.mesh.remove("traffic.yaml");
    selvedge_tests::wait::until_true("without the policy there is no breaker", || async {
        !pair.web.metrics().text().await.contains("selvedge_breaker_state{")
    })
    .await;
}

#[tokio::test]
async fn an_edit_does_not_close_an_open_breaker() {
    let pair = Pair::start().await;
    let breaker = "  breaker: {consecutiveFailures: 3, openFor: 1m, maxOpen: 1m}\n";
    pair.mesh.write("traffic.yaml", &policy(breaker));
    pair.upstream.play(Scenario::Fail(u32::MAX, 503));
    let pair = &pair;
    selvedge_tests::wait::until_true(
        "the breaker opens",
        || async move { pair.get("/").await.reason() == "breaker_open" },
    )
    .await;
    pair.upstream.play(Scenario::Echo);
    pair.mesh.write("traffic.yaml", &policy(&format!("{breaker}  timeouts: {{request: 9s, connect: 3s}}\n")));
    selvedge_tests::wait::until_true("the edit is in force", || async move {
        let config = client::get(pair.web.admin(), "/config").await.unwrap().json();
        config["destinations"]["shop/api"]["traffic"]["timeouts"]["request"] == "9s"
    })
    .await;
    for _ in 0..20 {
        assert_eq!(pair.get("/").await.reason(), "breaker_open");
    }
}

#[tokio::test]
async fn when_no_endpoint_is_left_for_a_retry_the_failure_before_it_is_the_answer() {
    // Open for longer than the next request takes to come, however busy the machine is.
    let body = "  retry: {attempts: 2}\n  breaker: {consecutiveFailures: 2, openFor: 10s, maxOpen: 10s}\n";
    let pair = &retrying(body).await;
    for round in 0..2 {
        pair.upstream.play(Scenario::Echo);
        pair.until_status("/", 200).await;
        pair.upstream.play(Scenario::Fail(u32::MAX, 503));
        // The second failure opens the breaker, so the third try has nowhere to go.
        let answer = pair.get("/").await;
        assert_eq!((answer.status.as_u16(), answer.reason()), (503, ""), "round {round}: {}", answer.text());
        assert_eq!(answer.header("served-by"), "api", "the service's own answer");
        assert_eq!(pair.get("/").await.reason(), "breaker_open", "nothing was tried");
    }
}

#[tokio::test]
async fn a_service_without_endpoints_is_answered_at_once() {
    let pair = Pair::start().await;
    pair.mesh.remove("workload-shop-api.yaml");
    // Before its caller hears of it, its own sidecar may answer that it is not ready.
    assert_eq!(pair.until_reason("/", "no_endpoints").await.status, 503);
    // Whoever waits for a service to be found waits two seconds each time; a busy machine is late now and then.
    let pair = &pair;
    selvedge_tests::wait::until_true("it is answered within a second", || async move {
        let start = Instant::now();
        assert_eq!(pair.get("/").await.reason(), "no_endpoints");
        start.elapsed() < Duration::from_secs(1)
    })
    .await;
}

/// What [`refuses`] has been sent, and how much more of it is refused.
#[derive(Default)]
struct Refusing {
    streams: AtomicU32,
    left: AtomicU32,
}

/// A service that refuses HTTP/2 streams unprocessed (REFUSED_STREAM, RFC 9113 section 8.7) for as long as it is told to, and
/// answers 200 to everything else.
async fn refuses() -> (SocketAddr, Arc<Refusing>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, refusing) = (listener.local_addr().unwrap(), Arc::new(Refusing::default()));
    let told = refusing.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(refuse(stream, told.clone()));
        }
    });
    (address, refusing)
}

/// One connection, until its end.
async fn refuse(mut stream: TcpStream, told: Arc<Refusing>) -> io::Result<()> {
    let (settings, ping) = (4, 6);
    let frame = |kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]| {
        [&[0, 0, payload.len() as u8, kind, flags], &stream[..], payload].concat()
    };
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    if !preface.starts_with(b"PRI * HTTP/2.0") {
        return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    }
    stream.write_all(&frame(settings, 0, [0; 4], &[])).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await?;
        let answer = match kind {
            1 => {
                told.streams.fetch_add(1, Ordering::Relaxed);
                let refused = told.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
                // RST_STREAM with REFUSED_STREAM, or HEADERS with END_STREAM: the one field is `:status: 200`.
                if refused.is_ok() { frame(3, 0, id, &[0, 0, 0, 7]) } else { frame(1, 5, id, &[0x88]) }
            }
            _ if kind == settings && flags == 0 => frame(settings, 1, [0; 4], &[]),
            _ if kind == ping && flags == 0 => frame(ping, 1, [0; 4], &payload),
            _ => continue,
        };
        stream.write_all(&answer).await?;
    }
}

#[tokio::test]
async fn what_was_provably_not_processed_is_repeated_up_to_three_times_without_a_policy() {
    let (application, told) = refuses().await;
    let pair = &Pair::in_front_of(application, "http").await;
    let ask = async |refused: u32| {
        told.left.store(refused, Ordering::Relaxed);
        let before = told.streams.load(Ordering::Relaxed);
        // Not idempotent, which plays no part: it was not processed.
        let mut caller = Connection::open_http2(pair.entry()).await.unwrap();
        let answer = caller.call(client::request(Method::POST, HOST, "/")).await.unwrap();
        told.left.store(0, Ordering::Relaxed);
        (answer.status.as_u16(), told.streams.load(Ordering::Relaxed) - before)
    };
    assert_eq!(ask(0).await, (200, 1));
    assert_eq!(ask(1).await, (200, 2));
    assert_eq!(ask(3).await, (200, 4));
    assert_eq!(ask(4).await, (502, 4));
    let retries = async |outcome: &str| {
        let labels = ["destination_service=\"shop/api\"", &format!("outcome=\"{outcome}\"")];
        pair.api.metric("selvedge_retries_total", &labels).await
    };
    assert_eq!((retries("success").await, retries("failure").await), (2.0, 5.0));
}

#[tokio::test]
async fn fields_of_several_policies_hold_together_and_who_loses_one_is_told() {
    let pair = &retrying("  retry: {attempts: 3}\n").await;
    let timeouts = |spec: &str| {
        let text = policy(&format!("  timeouts: {{{spec}}}\n"));
        text.replace(
            "{name: api, namespace: shop}",
            "{name: waits, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}",
        )
    };
    pair.mesh.write("timeouts.yaml", &timeouts("connect: 4s"));
    pair.mesh.write("traffic.yaml", &policy("  retry: {attempts: 3}\n  timeouts: {connect: 2s, request: 9s}\n"));
    let in_force = async || {
        let config = client::get(pair.web.admin(), "/config").await.unwrap().json();
        config["destinations"]["shop/api"].clone()
    };
    let expected = serde_json::json!({
        "retry.attempts": "TrafficPolicy shop/api",
        "timeouts.connect": "TrafficPolicy shop/waits",
        "timeouts.request": "TrafficPolicy shop/api",
    });
    selvedge_tests::wait::until_true("both are in force", || async { in_force().await["trafficFrom"] == expected })
        .await;
    let timeouts = serde_json::json!({"request": "9s", "backendRequest": null, "connect": "4s"});
    assert_eq!(in_force().await["traffic"]["timeouts"], timeouts);
    assert_eq!(grown(pair, Scenario::Fail(3, 503)).await, (200, [1.0, 2.0, 0.0, 0.0]));

    let why = "this is not in force: TrafficPolicy shop/waits sets timeouts.connect of the same target";
    let status = client::get(pair.mesh.admin(), "/status").await.unwrap().json();
    let told = |name: &str| {
        let mut objects = status["objects"].as_array().unwrap().iter();
        let policy = objects.find(|object| object["kind"] == "TrafficPolicy" && object["name"] == name).unwrap();
        policy["problems"].to_string()
    };
    assert!(told("api").contains(why), "{}", told("api"));
    assert_eq!(told("waits"), "[]");
    let lint = std::process::Command::new(binary("selvedge")).arg("lint").arg(pair.mesh.config_dir()).output().unwrap();
    let text = String::from_utf8(lint.stdout).unwrap();
    assert!(lint.status.code() == Some(1) && text.contains(why), "{text}");
}
