//! `FaultInjection` through two real sidecars: calls wait and fail as is written, and the service is spared the blame.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use selvedge_tests::{
    client::{self, Connection},
    mesh::{Mesh, Workload},
    pair::{HOST, Pair},
    upstream::raw::{RawUpstream, Script},
    wait,
};
use tokio::time::Instant;

fn fault(service: &str, expires: &str, faults: &str) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: FaultInjection\nmetadata: {{name: chaos, namespace: shop}}\nspec:\n  \
         targetRef: {{kind: Service, name: {service}}}\n  expires: '{expires}'\n  faults:\n{faults}"
    )
}

const NEVER: &str = "2999-01-01T00:00:00Z";
const OVER: &str = "2001-01-01T00:00:00Z";

const FAULTS: &str = "
  - { from: [{ serviceAccounts: [web] }], to: [{ paths: [/fails] }], abort: { percentage: 100, httpStatus: 502 } }
  - { to: [{ paths: [/slow] }], delay: { percentage: 100, duration: 700ms } }
  - { from: [{ namespaces: [pay] }], to: [{ paths: [/theirs] }], abort: { percentage: 100, httpStatus: 500 } }
  - { to: [{ paths: [/shop.Api/Find] }], abort: { percentage: 100, grpcStatus: NOT_FOUND } }
";

/// What would hide a fault, or blame the service for it.
const TRAFFIC: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: api, namespace: shop }
spec:
  targetRef: { kind: Service, name: api }
  retry: { attempts: 3, on: [connect-failure, reset, timeout], codes: [502, 503] }
  breaker: { consecutiveFailures: 1, openFor: 1h }
";

#[tokio::test]
async fn calls_fail_and_wait_as_is_written_until_it_is_over() {
    let pair = Pair::start().await;
    pair.mesh.write("traffic.yaml", TRAFFIC);
    pair.mesh.write("fault.yaml", &fault("api", NEVER, FAULTS));
    let answer = pair.until_status("/fails", 502).await;
    assert_eq!(answer.reason(), "fault_injected");
    assert_eq!((&answer.json()["error"], &answer.json()["policy"]), (&"fault_injected".into(), &"shop/chaos".into()));

    let failed = ["reason=\"fault_injected\"", "response_code=\"502\"", "destination_service=\"shop/api\""];
    let before = pair.web.metric("selvedge_requests_total", &failed).await;
    let served = pair.upstream.served();
    for _ in 0..5 {
        assert_eq!(pair.get("/fails").await.reason(), "fault_injected");
    }
    pair.web.metrics().until("selvedge_requests_total", &failed, before + 5.0).await;
    pair.web.metrics().until("selvedge_retries_total", &[], 0.0).await;
    pair.api.metrics().absent("selvedge_requests_total", &["reason=\"fault_injected\""]).await;
    assert_eq!(pair.upstream.served(), served, "nothing of it comes to the service");
    let line = wait::until("the fault is logged", || async {
        pair.web.access_log().into_iter().find(|line| line["selvedge.reason"] == "fault_injected")
    })
    .await;
    assert_eq!((&line["selvedge.policy"], &line["selvedge.response_flag"]), (&"shop/chaos".into(), &"FI".into()));
    assert_eq!(pair.get("/").await.status, 200, "no breaker has opened for it");
    assert_eq!(pair.get("/theirs").await.status, 200, "callers of another namespace are meant");

    let start = Instant::now();
    assert_eq!(pair.get("/slow").await.status, 200, "it goes on after the wait");
    assert!(start.elapsed() >= Duration::from_millis(700), "{:?}", start.elapsed());

    let asked = Request::post("/shop.Api/Find").header("host", HOST).header("content-type", "application/grpc");
    let asked = asked.body(Full::new(Bytes::from_static(b"\0\0\0\0\0"))).unwrap();
    let answer = Connection::open_http2(pair.entry()).await.unwrap().call(asked).await.unwrap();
    let told = (answer.status.as_u16(), answer.header("grpc-status"), answer.reason());
    assert_eq!(told, (200, "5", "fault_injected"));

    pair.mesh.write("fault.yaml", &fault("api", OVER, FAULTS));
    pair.until_status("/fails", 200).await;
}

#[tokio::test]
async fn connections_wait_and_are_closed() {
    let upstream = RawUpstream::start(Script::echo()).await;
    let mesh = Mesh::start().await;
    mesh.service("shop/store", 6000, 6000, "tcp");
    let _store = mesh.sidecar(Workload::new("shop/store").serves(6000, upstream.address())).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls("shop/store:6000")).await;
    let entry = web.outbound("shop/store:6000");
    let echoes = async || client::exchange(entry, b"\0ping", Duration::from_millis(500)).await == b"\0ping";
    wait::until_true("the service answers", echoes).await;

    mesh.write("fault.yaml", &fault("store", NEVER, "  - { abort: { percentage: 100, httpStatus: 503 } }\n"));
    let closed = ["reason=\"fault_injected\"", "destination_service=\"shop/store\""];
    wait::until_true("a connection is closed", || async { !echoes().await }).await;
    let before = web.metric("selvedge_tcp_connections_closed_total", &closed).await;
    assert!(!echoes().await);
    web.metrics().until("selvedge_tcp_connections_closed_total", &closed, before + 1.0).await;

    mesh.write("fault.yaml", &fault("store", NEVER, "  - { delay: { percentage: 100, duration: 1s } }\n"));
    let start = wait::until("a connection is let through again", || async {
        let start = Instant::now();
        let answer = client::exchange(entry, b"\0ping", Duration::from_secs(3)).await;
        (answer == b"\0ping").then_some(start)
    })
    .await;
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}
