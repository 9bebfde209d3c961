//! What others have written for the metrics of Istio and of Linkerd, asked of a real Prometheus that scrapes the views of two
//! sidecars: each query has the value that is true of the load.
//!
//! The queries are facts of an interface, as they were published, with what their variables stand for put in.

use std::{net::SocketAddr, time::Duration};

use http::Method;
use selvedge_tests::{
    client::{self, request},
    mesh::{Mesh, Sidecar, Workload},
    pair::{DESTINATION, HOST},
    prometheus::{Job, Prometheus},
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// What `web` asks of `api`, again and again: one in four fails.
const CALLS: [&str; 4] = ["/", "/fail", "/", "/"];
/// How long each answer takes at least. It lies in the bucket from 10 to 25 ms, or above.
const TIME: Duration = Duration::from_millis(20);
/// What `web` says to `db`, which answers with [`ANSWER`].
const WORD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";
const FAILURE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// What a query comes to, give or take a share: what is scraped in the middle of four calls is not all of them.
enum Wanted {
    About(f64),
    /// A time in milliseconds of which only the least is known: machines may be as slow as they like.
    Milliseconds,
    /// Something is there, and above zero.
    Some,
}

use Wanted::{About, Milliseconds, Some as Anything};

const ISTIO: &[(&str, Wanted)] = &[
    // Flagger, pkg/metrics/observers/istio.go: request-success-rate and request-duration.
    (
        r#"sum(rate(istio_requests_total{reporter="destination",destination_workload_namespace="shop",destination_workload=~"api",response_code!~"5.*"}[1m])) / sum(rate(istio_requests_total{reporter="destination",destination_workload_namespace="shop",destination_workload=~"api"}[1m])) * 100"#,
        About(75.0),
    ),
    (
        r#"histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{reporter="destination",destination_workload_namespace="shop",destination_workload=~"api"}[1m])) by (le))"#,
        Milliseconds,
    ),
    // Argo Rollouts, docs/features/analysis.md: success-rate and error-rate.
    (
        r#"sum(irate(istio_requests_total{reporter="source",destination_service=~"api.shop.svc.cluster.local",response_code!~"5.*"}[5m])) / sum(irate(istio_requests_total{reporter="source",destination_service=~"api.shop.svc.cluster.local"}[5m]))"#,
        About(0.75),
    ),
    (
        r#"sum(irate(istio_requests_total{reporter="source",destination_service=~"api.shop.svc.cluster.local",response_code=~"5.*"}[5m])) / sum(irate(istio_requests_total{reporter="source",destination_service=~"api.shop.svc.cluster.local"}[5m]))"#,
        About(0.25),
    ),
    // Sloth's common SLI plugins, plugins/istio/v1: availability, and latency with the bucket 10.
    (
        r#"(sum(rate(istio_requests_total{ destination_service_name="api",destination_service_namespace="shop",response_code=~"(5..|429)" }[1m])) / (sum(rate(istio_requests_total{ destination_service_name="api",destination_service_namespace="shop" }[1m])) > 0)) OR on() vector(0)"#,
        About(0.25),
    ),
    (
        r#"1 - ((sum(rate(istio_request_duration_milliseconds_bucket{ destination_service_name="api",destination_service_namespace="shop",le="10" }[1m])) / (sum(rate(istio_request_duration_milliseconds_count{ destination_service_name="api",destination_service_namespace="shop" }[1m])) > 0)) OR on() vector(1))"#,
        About(1.0),
    ),
    // Kiali, prometheus/metrics.go: the rates of requests behind the health of a service and of a workload.
    (
        r#"rate(istio_requests_total{destination_service_name="api",destination_service_namespace="shop"}[1m]) > 0"#,
        Anything,
    ),
    (r#"rate(istio_requests_total{source_workload_namespace="shop",source_workload="web"}[1m]) > 0"#, Anything),
    // Kiali, graph/telemetry/istio/istio.go: edges of the graph, of requests and of connections. The second has no answer
    // from a service that every request has reached.
    (
        r#"sum(rate(istio_requests_total{reporter="destination",destination_workload_namespace="shop"} [60s])) by (source_cluster,source_workload_namespace,source_workload,source_canonical_service,source_canonical_revision,destination_cluster,destination_service_namespace,destination_service,destination_service_name,destination_workload_namespace,destination_workload,destination_canonical_service,destination_canonical_revision,request_protocol,response_code,grpc_response_status,response_flags) > 0"#,
        Anything,
    ),
    (
        r#"sum(rate(istio_requests_total{reporter="source",source_workload_namespace="shop",destination_workload="unknown",destination_service=~"^.+\\.shop\\..+$"} [60s])) by (source_workload,response_flags) > 0"#,
        Anything,
    ),
    (
        r#"sum(rate(istio_tcp_sent_bytes_total{reporter="source",source_workload_namespace="shop"} [60s])) by (source_workload,destination_service_name,destination_canonical_service) > 0"#,
        Anything,
    ),
    // Istio's boards for Grafana, manifests/addons/dashboards: mesh and service.
    (
        r#"sum(rate(istio_requests_total{reporter=~"source|waypoint",response_code!~"5..",destination_service=~"api.shop.svc.cluster.local"}[1m])) / sum(rate(istio_requests_total{reporter=~"source|waypoint",destination_service=~"api.shop.svc.cluster.local"}[1m]))"#,
        About(0.75),
    ),
    (
        r#"histogram_quantile(0.5, sum(irate(istio_request_duration_milliseconds_bucket{reporter=~"destination",destination_service=~"api.shop.svc.cluster.local"}[1m])) by (le))"#,
        Milliseconds,
    ),
    (
        r#"sum(irate(istio_requests_total{connection_security_policy="mutual_tls",destination_service=~"api.shop.svc.cluster.local",reporter=~"destination",source_workload=~"web",source_workload_namespace=~"shop"}[5m])) by (source_workload, source_workload_namespace, response_code)"#,
        Anything,
    ),
    (
        r#"sum(irate(istio_response_bytes_sum{reporter=~"destination",destination_service=~"api.shop.svc.cluster.local"}[1m])) / sum(irate(istio_response_bytes_count{reporter=~"destination",destination_service=~"api.shop.svc.cluster.local"}[1m]))"#,
        About(3.0),
    ),
];

const LINKERD: &[(&str, Wanted)] = &[
    // Flagger, pkg/metrics/observers/linkerd.go: request-success-rate and request-duration.
    (
        r#"sum(rate(response_total{namespace="shop",deployment=~"api",classification!="failure",direction="inbound"}[1m])) / sum(rate(response_total{namespace="shop",deployment=~"api",direction="inbound"}[1m])) * 100"#,
        About(75.0),
    ),
    (
        r#"histogram_quantile(0.99, sum(rate(response_latency_ms_bucket{namespace="shop",deployment=~"api",direction="inbound"}[1m])) by (le))"#,
        Milliseconds,
    ),
    // Sloth's common SLI plugins, plugins/linkerd/v2/availability.
    (
        r#"(sum(increase(response_total{ deployment="api",classification="failure", direction="inbound" }[1m])) / sum(increase(response_total{ deployment="api",direction="inbound" }[1m]))) OR on() vector(0)"#,
        About(0.25),
    ),
    // Linkerd's boards for Grafana, grafana/dashboards: top line and deployment.
    (
        r#"sum(irate(response_total{classification="success", deployment=~"api"}[30s])) / sum(irate(response_total{deployment=~"api"}[30s]))"#,
        About(0.75),
    ),
    (r#"count(count(request_total{namespace=~"shop"}) by (namespace, deployment))"#, About(2.0)),
    (
        r#"sum(irate(response_total{classification="success", namespace=~"shop", direction="inbound"}[30s])) by (namespace) / sum(irate(response_total{namespace=~"shop", direction="inbound"}[30s])) by (namespace)"#,
        About(0.75),
    ),
    (r#"sum(irate(request_total{namespace=~"shop", direction="inbound", tls="true"}[30s])) by (namespace)"#, Anything),
    (
        r#"histogram_quantile(0.95, sum(irate(response_latency_ms_bucket{namespace=~"shop", direction="inbound"}[30s])) by (le, namespace))"#,
        Milliseconds,
    ),
    (
        r#"sum(irate(response_total{classification="success", namespace="shop", deployment="web", direction="outbound", dst_deployment="api"}[30s])) by (dst_deployment)"#,
        Anything,
    ),
    (r#"sum(tcp_open_connections{direction="inbound", peer="src"})"#, Anything),
];

impl Wanted {
    fn is(&self, value: &str) -> bool {
        let Ok(value) = value.parse::<f64>() else { return false };
        match self {
            About(wanted) => (value - wanted).abs() <= wanted * 0.15,
            Milliseconds => (10.0..=60_000.0).contains(&value),
            Anything => value > 0.0,
        }
    }
}

/// An application that takes its time over each answer, and fails at `/fail`.
async fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut asked).await {
                    tokio::time::sleep(TIME).await;
                    let answer = if asked[..read].starts_with(b"GET /fail ") { FAILURE } else { ANSWER };
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    address
}

/// `web` calls `api`, `db` without a word of HTTP, and `gone`, which is nowhere, until the handle is dropped.
fn load(web: &Sidecar) -> JoinHandle<()> {
    let [api, db, gone] = [DESTINATION, "shop/db:5432", "shop/gone:80"].map(|destination| web.outbound(destination));
    tokio::spawn(async move {
        loop {
            for path in CALLS {
                let _ = client::call(api, request(Method::GET, HOST, path)).await;
            }
            let _ = client::call(gone, request(Method::GET, "gone.shop", "/")).await;
            client::exchange(db, WORD, Duration::from_millis(100)).await;
        }
    })
}

#[tokio::test]
async fn what_was_written_for_other_meshes_has_the_values_that_are_true_of_this_one() {
    let Some(program) = Prometheus::installed() else { return };
    let (mesh, application) = (Mesh::start().await, application().await);
    mesh.service("shop/api", 80, 8080, "http");
    mesh.service("shop/gone", 80, 8080, "http");
    mesh.service("shop/db", 5432, 5432, "tcp");
    let api = mesh.start_sidecar(Workload::new("shop/api").serves(8080, application));
    let db = mesh.start_sidecar(Workload::new("shop/db").serves(5432, application));
    let web = Workload::new("shop/web").calls(DESTINATION).calls("shop/db:5432").calls("shop/gone:80");
    let web = mesh.start_sidecar(web);
    api.ready().await;
    db.ready().await;
    web.ready().await;
    let targets = || [&web, &api].map(|sidecar| sidecar.metrics().address()).to_vec();
    let jobs = [
        Job { name: "istio", targets: targets(), path: "/metrics/istio" },
        Job { name: "linkerd", targets: targets(), path: "/metrics/linkerd" },
    ];
    let prometheus = Prometheus::start(&program, mesh.folder(), &jobs);
    let load = load(&web);
    for (query, wanted) in ISTIO.iter().chain(LINKERD) {
        wait::until_true(&format!("the true value of {query}"), || async {
            prometheus.ask(query).await.is_some_and(|series| series.first().is_some_and(|(_, value)| wanted.is(value)))
        })
        .await;
    }
    load.abort();
}
