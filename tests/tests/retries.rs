//! `TrafficPolicy`: what fails is tried again within bounds, what hangs is given up, what keeps failing is left alone.

use std::{
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
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use selvedge_tests::{
    client,
    client::request,
    pair::{HOST, Pair},
    upstream::Scenario,
};
use tokio::{net::TcpListener, time::Instant};

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
        pair.web.metric("selvedge_retries_total", &labels).await
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
    let post = || Request::post("/").header("host", HOST).body(Full::from(Bytes::from(vec![b'x'; 50_000]))).unwrap();
    let pair = retrying("  retry: {attempts: 3}\n").await;
    pair.upstream.play(Scenario::Fail(1, 503));
    assert_eq!(client::call(pair.entry(), post()).await.unwrap().status, 503);
    pair.mesh.write("traffic.yaml", &policy("  retry: {attempts: 3, retryNonIdempotent: true}\n"));
    let pair = &pair;
    let answer = selvedge_tests::wait::until("a POST is repeated", || async move {
        pair.upstream.play(Scenario::Fail(1, 503));
        let answer = client::call(pair.entry(), post()).await.ok()?;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.json()["bodyLength"], 50_000);
}

/// Reads each request whole; answers a PUT with 503 and everything else with 200. Counts the PUTs.
async fn fails_puts() -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, puts) = (listener.local_addr().unwrap(), Arc::new(AtomicU32::new(0)));
    let counted = puts.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = counted.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let counted = counted.clone();
                async move {
                    let (head, body) = request.into_parts();
                    body.collect().await?;
                    let put = head.method == Method::PUT;
                    counted.fetch_add(u32::from(put), Ordering::Relaxed);
                    let status = if put { 503 } else { 200 };
                    Ok::<_, hyper::Error>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, puts)
}

#[tokio::test]
async fn a_body_that_is_too_large_to_keep_is_not_sent_again() {
    let (application, puts) = fails_puts().await;
    let pair = &Pair::in_front_of(application, "http").await;
    pair.mesh.write("traffic.yaml", &policy("  retry: {attempts: 2, budget: {percent: 100, minPerSecond: 100}}\n"));
    let tries = |length: usize| {
        let puts = puts.clone();
        async move {
            let before = puts.load(Ordering::Relaxed);
            let put = Request::put("/").header("host", HOST).body(Full::from(Bytes::from(vec![b'x'; length]))).unwrap();
            assert_eq!(client::call(pair.entry(), put).await.unwrap().status, 503);
            puts.load(Ordering::Relaxed) - before
        }
    };
    let limit = 64 * 1024;
    selvedge_tests::wait::until_true("the largest body that is kept is sent three times", || async {
        tries(limit).await == 3
    })
    .await;
    assert_eq!(tries(limit + 1).await, 1);
    assert_eq!(tries(1_000_000).await, 1);
}

#[tokio::test]
async fn a_body_too_large_to_be_sent_again_is_not_retried_and_that_is_counted() {
    let pair = retrying("  retry: {attempts: 3}\n").await;
    let not_made = ["destination_service=\"shop/api\"", "outcome=\"not_replayable\""];
    assert_eq!(pair.web.metric("selvedge_retries_total", &not_made).await, 0.0);
    pair.upstream.play(Scenario::Fail(1, 503));
    let put = Request::put("/").header("host", HOST).body(Full::from(Bytes::from(vec![b'x'; 70_000]))).unwrap();
    assert_eq!(client::call(pair.entry(), put).await.unwrap().status, 503);
    assert_eq!(pair.web.metric("selvedge_retries_total", &not_made).await, 1.0);
}

#[tokio::test]
async fn retries_do_not_multiply_the_load_on_a_service_that_is_down() {
    let pair = retrying("  retry: {attempts: 3, budget: {percent: 20, minPerSecond: 1}}\n").await;
    pair.upstream.play(Scenario::Fail(u32::MAX, 503));
    let before = pair.upstream.served();
    for _ in 0..100 {
        assert_eq!(pair.get("/").await.status, 503);
    }
    let tries = pair.upstream.served() - before;
    assert!((100..=150).contains(&tries), "{tries} tries for 100 requests");
}

#[tokio::test]
async fn what_hangs_is_given_up_in_time() {
    let pair = retrying("  retry: {attempts: 1}\n  timeouts: {request: 600ms, backendRequest: 200ms}\n").await;
    pair.upstream.play(Scenario::Slow(Duration::from_secs(20)));
    let start = Instant::now();
    let answer = pair.get("/").await;
    assert_eq!(answer.status, 504);
    assert!(matches!(answer.reason(), "attempt_timeout" | "request_timeout"), "{}", answer.reason());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let api = &pair.api;
    selvedge_tests::wait::until_true("the called side counts the try nobody waited for", || async move {
        let labels = ["direction=\"inbound\"", "response_code=\"499\"", "reason=\"downstream_closed\""];
        api.metric("selvedge_requests_total", &labels).await == 1.0
    })
    .await;
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
    let web = &pair.web;
    let shown = async || {
        let of_api = |line: &&str| line.starts_with("selvedge_breaker_state{") && line.contains("\"shop/api\"");
        let states = web.metrics().await;
        states.lines().filter(of_api).map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let until = async |what: &str, states: &[&str]| {
        selvedge_tests::wait::until_true(what, || async { shown().await == states }).await;
    };
    until("a breaker that never opened is closed", &["0"]).await;
    let open = async |pair: &Pair| {
        pair.upstream.play(Scenario::Fail(u32::MAX, 503));
        selvedge_tests::wait::until_true("the breaker opens", || async {
            pair.get("/").await.reason() == "breaker_open" && shown().await == ["2"]
        })
        .await;
        pair.upstream.play(Scenario::Echo);
    };
    open(&pair).await;
    until("it opens half without a request", &["1"]).await;
    pair.until_status("/", 200).await;
    assert_eq!(shown().await, ["0"], "the probe was answered");

    open(&pair).await;
    pair.mesh.write("traffic.yaml", &policy(&format!("{breaker}  timeouts: {{connect: 900ms}}\n")));
    pair.until_status("/", 200).await;
    until("the edit counts from what is answered now", &["0"]).await;

    open(&pair).await;
    pair.mesh.remove("traffic.yaml");
    until("without the policy there is no breaker", &[]).await;
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
    let body = "  retry: {attempts: 2}\n  breaker: {consecutiveFailures: 2, openFor: 3s, maxOpen: 3s}\n";
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
    let answer = pair.until_status("/", 503).await;
    assert_eq!(answer.reason(), "no_endpoints", "{}", answer.text());
    let again = client::call(pair.entry(), request(Method::GET, HOST, "/")).await.unwrap();
    assert_eq!(again.status, 503);
}
