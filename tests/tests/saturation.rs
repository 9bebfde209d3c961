//! What is under way, kept, and left of what is limited can be seen, of each service and of the programs themselves.

use std::{fs, net::SocketAddr};

use http::Method;
use selvedge_tests::{
    around::Around,
    client::{Connection, request},
    pair::{HOST, Pair},
    upstream::Scenario,
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const SERVICE: &str = "destination_service=\"shop/api\"";

/// An application that answers `GET /` and nothing else.
async fn mostly_silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut asked).await {
                    if asked[..read].starts_with(b"GET / ") {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn calls_under_way_are_seen_at_both_ends_with_what_they_take() {
    let around = Around::start(mostly_silent().await, "http").await;
    let (web, api) = (around.web.metrics(), around.api.metrics());
    let mut callers = Vec::new();
    for _ in 0..3 {
        let mut caller = Connection::open(around.entry()).await.unwrap();
        callers.push(tokio::spawn(async move { caller.send(request(Method::GET, HOST, "/silent")).await.is_ok() }));
    }
    web.until("selvedge_calls_in_flight", &["direction=\"outbound\"", SERVICE], 3.0).await;
    api.until("selvedge_calls_in_flight", &["direction=\"inbound\""], 3.0).await;
    web.until("selvedge_upstream_streams", &[SERVICE], 3.0).await;
    let shared = web.value("selvedge_upstream_connections", &[SERVICE, "state=\"shared\""]).await;
    assert!(shared >= 1.0, "{shared} connections for three requests");
    web.until("selvedge_endpoints", &[SERVICE, "state=\"available\""], 1.0).await;
    web.until("selvedge_endpoints", &[SERVICE, "state=\"breaker_open\""], 0.0).await;
    assert!(web.value("selvedge_retry_budget_remaining", &[SERVICE]).await > 0.0);
    let open = api.value("selvedge_tcp_connections_open", &["direction=\"inbound\""]).await;
    let limit = api.value("selvedge_tcp_connections_limit", &["direction=\"inbound\""]).await;
    assert!(open < limit, "{open} of {limit}");
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    for (metrics, direction) in [(web, "direction=\"outbound\""), (api, "direction=\"inbound\"")] {
        metrics.until("selvedge_calls_in_flight", &[direction], 0.0).await;
    }
}

#[tokio::test]
async fn what_fails_at_an_endpoint_is_seen_behind_retries_and_so_is_its_breaker() {
    let pair = Pair::start().await;
    pair.mesh.write(
        "breaker.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: api, namespace: shop}\nspec:\n  \
         targetRef: {kind: Service, name: api}\n  breaker: {consecutiveFailures: 3, openFor: 10m, maxOpen: 10m}\n",
    );
    let web = pair.web.metrics();
    web.until("selvedge_breaker_switches_total", &[SERVICE, "to=\"open\""], 0.0).await;
    web.until("selvedge_tries_total", &[SERVICE, "outcome=\"failure\""], 0.0).await;
    let well = web.value("selvedge_tries_total", &[SERVICE, "outcome=\"success\""]).await;
    assert_eq!(pair.get("/").await.status, 200);
    web.until("selvedge_tries_total", &[SERVICE, "outcome=\"success\""], well + 1.0).await;
    pair.upstream.play(Scenario::Fail(u32::MAX, 503));
    for _ in 0..2 {
        assert_eq!(pair.get("/").await.status, 503);
    }
    web.until("selvedge_tries_total", &[SERVICE, "outcome=\"failure\""], 2.0).await;
    wait::until_true("a breaker opens", || async {
        pair.get("/").await;
        web.so_far("selvedge_breaker_switches_total", &[SERVICE, "to=\"open\""]).await >= 1.0
    })
    .await;
    web.until("selvedge_endpoints", &[SERVICE, "state=\"breaker_open\""], 1.0).await;
}

#[tokio::test]
async fn what_was_tried_at_an_endpoint_that_has_left_is_counted() {
    let pair = Pair::start().await;
    let web = pair.web.metrics();
    let well = web.value("selvedge_tries_total", &[SERVICE, "outcome=\"success\""]).await;
    for _ in 0..8 {
        assert_eq!(pair.get("/").await.status, 200);
    }
    pair.mesh.remove("workload-shop-api.yaml");
    // Until it has left nobody looks at the metrics.
    pair.until_reason("/", "no_endpoints").await;
    let at_last = web.value("selvedge_tries_total", &[SERVICE, "outcome=\"success\""]).await;
    assert!(at_last >= well + 8.0, "{at_last} tries of {well} and eight more");
}

/// Asserts that a process may have as many files open as is shown, and has as many.
async fn assert_files(process: u32, most: f64, open: impl AsyncFn() -> f64) {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    assert_eq!(most, limit.unwrap().parse::<f64>().unwrap());
    wait::until_true("as many files are open as the kernel says", || async {
        let before = files(process);
        let shown = open().await;
        before.min(files(process)) - 3.0 <= shown && shown <= before.max(files(process)) + 3.0
    })
    .await;
}

#[tokio::test]
async fn what_the_programs_take_is_what_the_kernel_says() {
    let mut pair = Pair::start().await;
    let (sidecar, control_plane) = (pair.web.metrics(), pair.mesh.metrics());
    let most = sidecar.value("selvedge_process_max_fds", &[]).await;
    let open = async || sidecar.value("selvedge_process_open_fds", &[]).await;
    assert_files(pair.web.process().id(), most, open).await;
    let most = control_plane.value("selvedge_control_plane_process_max_fds", &[]).await;
    let open = async || control_plane.value("selvedge_control_plane_process_open_fds", &[]).await;
    assert_files(pair.mesh.control_plane_id(), most, open).await;
    let lag = pair.web.metric("selvedge_worker_lag_seconds", &[]).await;
    assert!((0.0..30.0).contains(&lag), "{lag} s");
    let memory = control_plane.value("selvedge_control_plane_process_resident_memory_bytes", &[]).await;
    assert!(memory > 1e6, "{memory} bytes");
    assert!(control_plane.value("selvedge_control_plane_process_cpu_seconds_total", &[]).await > 0.0);
    let ends = control_plane.value("selvedge_control_plane_authority_expiry_seconds", &[]).await;
    assert!(ends > control_plane.value("selvedge_control_plane_certificate_expiry_seconds", &[]).await);
}

/// Files and sockets that a process has open.
fn files(process: u32) -> f64 {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as f64
}
