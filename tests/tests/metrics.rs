//! Every metric has the number that its page promises, of the sidecar and of the control plane.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_tests::{
    around::Around,
    client::{self, Connection, expect_bytes},
    load::{self, Load, Plan},
    mesh::{Mesh, Workload},
    metrics,
    pair::{DESTINATION, HOST, Pair},
    pattern,
    source::rust_files,
    upstream::{
        Scenario, Upstream,
        raw::{RawUpstream, Script},
    },
    wait,
};
use tokio::{io::AsyncWriteExt, net::TcpListener};

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [{ kind: Service, name: api }]
  rules:
  - { name: one, matches: [{ path: { type: Exact, value: /one } }] }
  - { name: download, matches: [{ path: { type: PathPrefix, value: /bytes } }] }
";

/// Labels of everything that was carried under the rule `rule`.
fn under(rule: &str) -> [String; 5] {
    [
        format!("route=\"shop/orders/{rule}\""),
        "destination_service=\"shop/api\"".into(),
        "source_identity=\"spiffe://mesh.local/ns/shop/sa/web\"".into(),
        "destination_identity=\"spiffe://mesh.local/ns/shop/sa/api\"".into(),
        "tls=\"mtls\"".into(),
    ]
}

#[tokio::test]
async fn a_request_is_counted_with_its_bytes_its_time_and_its_route_on_both_sides() {
    let pair = Pair::start().await;
    pair.mesh.write("route.yaml", ROUTE);
    pair.mesh.write(
        "log.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: log, namespace: shop}\nspec: {accessLog: all}\n",
    );
    pair.until_reason("/nowhere", "no_route").await;
    wait::until_true("everything is logged", || async {
        pair.get("/bytes/1").await;
        let logs = [pair.web.access_log(), pair.api.access_log()];
        logs.iter().all(|lines| lines.iter().any(|line| line["url.path"] == "/bytes/1"))
    })
    .await;
    pair.upstream.play(Scenario::Slow(Duration::from_millis(300)));
    let asked = Request::put("/one").header("host", HOST).body(Full::new(pattern::bytes(1, 1000))).unwrap();
    let answer = client::call(pair.entry(), asked).await.unwrap();
    assert_eq!(answer.json()["bodyLength"], 1000);
    let sent = answer.body.len() as f64;
    let mut ids = Vec::new();
    for (sidecar, direction) in [(&pair.web, "outbound"), (&pair.api, "inbound")] {
        let labels = [&under("one")[..], &[format!("direction=\"{direction}\"")]].concat();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let metrics = sidecar.metrics();
        let good = [&labels[..], &["response_code=\"200\"", "protocol=\"http1\"", "reason=\"\"", "grpc_status=\"\""]];
        metrics.until("selvedge_requests_total", &good.concat(), 1.0).await;
        metrics.until("selvedge_request_bytes_total", &labels, 1000.0).await;
        metrics.until("selvedge_response_bytes_total", &labels, sent).await;
        metrics.until("selvedge_request_duration_seconds_count", &labels, 1.0).await;
        let took = metrics.value("selvedge_request_duration_seconds_sum", &labels).await;
        assert!((0.3..20.0).contains(&took), "{took} s for an answer after 300 ms");
        let within = [&labels[..], &["le=\"0.25\""]].concat();
        assert_eq!(metrics.value("selvedge_request_duration_seconds_bucket", &within).await, 0.0);
        let line = wait::until("it is logged", || async {
            sidecar.access_log().into_iter().find(|line| line["url.path"] == "/one")
        })
        .await;
        let sizes = [&line["http.request.body.size"], &line["http.response.body.size"]].map(|size| size.as_f64());
        assert_eq!(sizes, [Some(1000.0), Some(sent)], "{line}");
        assert_eq!((&line["http.route"], &line["selvedge.direction"]), (&"shop/orders/one".into(), &direction.into()));
        let logged = line["duration_s"].as_f64().unwrap();
        assert!((0.3..20.0).contains(&logged), "{line}");
        ids.push(line["request_id"].as_str().unwrap_or_default().to_owned());
    }
    assert!(ids[0].len() == 36 && ids[0] == ids[1], "the caller sent no id, and the lines are joined: {ids:?}");
}

/// A gRPC service that answers every call with NOT_FOUND, in trailers.
async fn finds_nothing() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async {
                request.into_body().collect().await?;
                let name = HeaderName::from_static("grpc-status");
                let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static("5"))]);
                let frames = [Frame::data(Bytes::from_static(b"\0\0\0\0\0")), Frame::trailers(trailers)];
                let body = StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, hyper::Error>)));
                Ok::<_, hyper::Error>(
                    Response::builder().header("content-type", "application/grpc").body(body).unwrap(),
                )
            });
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn the_status_of_a_grpc_call_is_the_one_in_its_trailers() {
    let around = Around::launch(finds_nothing().await, "grpc").await;
    around.mesh.write(
        "log.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: log, namespace: shop}\nspec: {accessLog: all}\n",
    );
    let entry = around.entry();
    let call = async || {
        let asked = Request::post("/shop.Api/Find").header("host", HOST).header("content-type", "application/grpc");
        let asked = asked.header("te", "trailers").body(Full::new(Bytes::from_static(b"\0\0\0\0\0"))).unwrap();
        Connection::open_http2(entry).await.ok()?.call(asked).await.ok()
    };
    wait::until_true("a call is answered and logged", || async {
        call().await;
        let logs = [around.web.access_log(), around.api.access_log()];
        logs.iter().all(|lines| lines.iter().any(|line| line["rpc.grpc.status_code"] == 5))
    })
    .await;
    let labels = ["protocol=\"grpc\"", "response_code=\"200\"", "grpc_status=\"5\"", "reason=\"\""];
    let before = around.web.metric("selvedge_requests_total", &labels).await;
    let at_service = around.api.metric("selvedge_requests_total", &labels).await;
    let answer = call().await.expect("an answer");
    assert_eq!((answer.status.as_u16(), &answer.trailers["grpc-status"]), (200, &HeaderValue::from_static("5")));
    around.web.metrics().until("selvedge_requests_total", &labels, before + 1.0).await;
    around.api.metrics().until("selvedge_requests_total", &labels, at_service + 1.0).await;
}

#[tokio::test]
async fn connections_and_their_bytes_are_counted_in_the_direction_they_went() {
    let upstream = RawUpstream::start(Script::greets(b"eleven byte")).await;
    let mesh = Mesh::start().await;
    mesh.service("shop/store", 6000, 6000, "tcp");
    let store = mesh.sidecar(Workload::new("shop/store").serves(6000, upstream.address())).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls("shop/store:6000")).await;
    let entry = web.outbound("shop/store:6000");
    wait::until_true("the service answers", || async move {
        client::exchange(entry, b"", Duration::from_millis(500)).await == b"eleven byte"
    })
    .await;
    let sidecars = [(&web, "outbound"), (&store, "inbound")];
    let open = async |wanted: f64| {
        for (sidecar, direction) in sidecars {
            let label = format!("direction=\"{direction}\"");
            sidecar.metrics().until("selvedge_tcp_connections_open", &[&label], wanted).await;
        }
    };
    open(0.0).await;
    let labels = ["destination_service=\"shop/store\"", "protocol=\"tcp\"", "tls=\"mtls\""];
    let (received, sent) = ("selvedge_tcp_received_bytes_total", "selvedge_tcp_sent_bytes_total");
    let (opened, closed) = ("selvedge_tcp_connections_opened_total", "selvedge_tcp_connections_closed_total");
    let mut before = Vec::new();
    for (sidecar, _) in sidecars {
        let value = async |metric: &'static str, labels: &[&str]| sidecar.metric(metric, labels).await;
        before.push([
            value(opened, &["tls=\"mtls\""]).await,
            value(closed, &labels).await,
            sidecar.metrics().so_far(received, &labels).await,
            value(sent, &labels).await,
        ]);
    }
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client::connect(entry).await.unwrap());
    }
    open(3.0).await;
    for stream in &mut streams {
        expect_bytes(stream, b"eleven byte").await;
        stream.write_all(b"seven b").await.unwrap();
        expect_bytes(stream, b"seven b").await;
    }
    drop(streams);
    open(0.0).await;
    for ((sidecar, _), before) in sidecars.iter().zip(before) {
        let metrics = sidecar.metrics();
        metrics.until("selvedge_tcp_connections_opened_total", &["tls=\"mtls\""], before[0] + 3.0).await;
        metrics.until("selvedge_tcp_connections_closed_total", &labels, before[1] + 3.0).await;
        metrics.until("selvedge_tcp_received_bytes_total", &labels, before[2] + 3.0 * 7.0).await;
        metrics.until("selvedge_tcp_sent_bytes_total", &labels, before[3] + 3.0 * 18.0).await;
    }
}

#[tokio::test]
async fn what_a_connection_speaks_is_found_out_at_once_and_after_a_moment_of_silence() {
    let pair = Pair::start().await;
    let count = async |protocol: &str| {
        let labels = [&format!("protocol=\"{protocol}\"")[..]];
        pair.web.metrics().so_far("selvedge_detection_duration_seconds_count", &labels).await
    };
    let http1 = count("http1").await;
    pair.web.metrics().absent("selvedge_detection_duration_seconds_count", &["protocol=\"http2\""]).await;
    pair.get("/").await;
    let mut connection = Connection::open_http2(pair.entry()).await.unwrap();
    connection.call(client::request(http::Method::GET, HOST, "/")).await.unwrap();
    for (protocol, wanted) in [("http1", http1 + 1.0), ("http2", 1.0)] {
        let labels = [&format!("protocol=\"{protocol}\"")[..]];
        pair.web.metrics().until("selvedge_detection_duration_seconds_count", &labels, wanted).await;
        let took = pair.web.metric("selvedge_detection_duration_seconds_sum", &labels).await / wanted;
        assert!(took < 5.0, "{took} s to tell {protocol} from its first bytes");
    }
    // Whoever waits for the service to speak waits 10 ms before it is dialled.
    let mail = RawUpstream::start(Script::greets(b"220 mail ready\r\n")).await;
    let mesh = Mesh::start().await;
    mesh.service("shop/mail", 25, 2525, "");
    let _mail = mesh.sidecar(Workload::new("shop/mail").serves(2525, mail.address())).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls("shop/mail:25")).await;
    let entry = web.outbound("shop/mail:25");
    wait::until_true("the service is reached", || async move {
        client::exchange(entry, b"", Duration::from_millis(500)).await == b"220 mail ready\r\n"
    })
    .await;
    let opaque = ["protocol=\"tcp\""];
    let sum = async || web.metric("selvedge_detection_duration_seconds_sum", &opaque).await;
    let (before, so_far) = (sum().await, web.metric("selvedge_detection_duration_seconds_count", &opaque).await);
    let mut fastest = f64::MAX;
    let mut last = before;
    for number in 1..=5_u32 {
        let mut stream = client::connect(entry).await.unwrap();
        expect_bytes(&mut stream, b"220 mail ready\r\n").await;
        let count = so_far + f64::from(number);
        web.metrics().until("selvedge_detection_duration_seconds_count", &opaque, count).await;
        let now = sum().await;
        fastest = fastest.min(now - last);
        last = now;
    }
    assert!((0.010..0.5).contains(&fastest), "the service was heard after {fastest} s");
}

#[tokio::test]
async fn a_sidecar_tells_what_it_is_and_what_it_takes() {
    let mut pair = Pair::start().await;
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    let labels = [&version[..], "workload=\"web\"", "namespace=\"shop\""];
    assert_eq!(pair.web.metric("selvedge_build_info", &labels).await, 1.0);
    pair.web.metrics().absent("selvedge_config_last_error_info", &[]).await;
    assert_eq!(pair.web.metric("selvedge_config_refused_total", &[]).await, 0.0);

    let shown = pair.web.metric("selvedge_process_resident_memory_bytes", &[]).await;
    let measured = pair.web.process().resident_bytes() as f64;
    assert!((0.7..1.4).contains(&(shown / measured)), "{shown} bytes shown, {measured} measured");

    let load = Load::start(&Plan::new(pair.entry(), HOST, "/"), 4, load::ok);
    load.progress(500).await;
    load.stop().await.assert_flawless(500);
    let process = pair.web.process().id();
    let before = cpu_seconds(process);
    let shown = pair.web.metric("selvedge_process_cpu_seconds_total", &[]).await;
    let after = cpu_seconds(process);
    let rounding = 1e-9;
    let measured = before - rounding..=after + rounding;
    assert!(before > 0.0 && measured.contains(&shown), "{shown} s shown, {before} to {after} measured");

    let generation = async || client::get(pair.web.admin(), "/config").await.unwrap().json()["generation"].as_f64();
    let first = generation().await.expect("a number");
    pair.web.metrics().until("selvedge_config_generation", &[], first).await;
    pair.mesh.write("route.yaml", ROUTE);
    pair.until_reason("/nowhere", "no_route").await;
    let second = generation().await.expect("a number");
    assert!(second > first, "{first}, then {second}");
    pair.web.metrics().until("selvedge_config_generation", &[], second).await;
}

/// User and system time of a process (proc(5): fields 14 and 15 of `stat`, in hundredths of a second).
fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
    ticks.sum::<f64>() / 100.0
}

#[tokio::test]
async fn lines_that_nobody_reads_are_lost_and_counted() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "http");
    mesh.write(
        "log.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: log, namespace: shop}\nspec: {accessLog: all}\n",
    );
    // Where the sidecar of `web` will write its log.
    let pipe = mesh.folder().join("sidecar-shop-web/access.log");
    fs::create_dir(pipe.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let _api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address())).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION)).await;
    let entry = web.outbound(DESTINATION);
    wait::until_true("the service answers", || client::answers(entry)).await;
    assert_eq!(web.metric("selvedge_access_log_lost_lines_total", &[]).await, 0.0);
    // A pipe holds 64 KiB, and as many batches wait as may; long paths fill both soon.
    let path = format!("/{}", "p".repeat(1000));
    let load = Load::start(&Plan::new(entry, HOST, &path), 8, load::ok);
    wait::until_true("lines are lost", || async {
        web.metric("selvedge_access_log_lost_lines_total", &[]).await > 0.0
    })
    .await;
    load.stop().await.assert_flawless(64);
    let read = Arc::new(AtomicU32::new(0));
    let lines = read.clone();
    std::thread::spawn(move || {
        let line = |line: std::io::Result<Vec<u8>>| line.is_ok().then(|| lines.fetch_add(1, Ordering::Relaxed));
        BufReader::new(reader).split(b'\n').map_while(line).for_each(drop);
    });
    wait::until_true("each request has a line, or is counted as one whose line is lost", || async {
        let lost = web.metric("selvedge_access_log_lost_lines_total", &[]).await;
        let requests = web.metric("selvedge_requests_total", &[]).await;
        f64::from(read.load(Ordering::Relaxed)) + lost == requests
    })
    .await;
}

#[tokio::test]
async fn what_comes_after_two_thousand_series_is_counted_under_one() {
    let pair = Pair::start().await;
    let rule =
        |number: usize| format!("  - {{name: r{number}, matches: [{{path: {{type: Exact, value: /r{number}}}}}]}}\n");
    let rules: String = (0..2_100).map(rule).collect();
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: many, namespace: shop}\nspec:\n  \
                 parentRefs: [{kind: Service, name: api}]\n  rules:\n";
    pair.mesh.write("route.yaml", &format!("{route}{rules}"));
    pair.until_reason("/nowhere", "no_route").await;
    let total = async || pair.web.metric("selvedge_requests_total", &[]).await;
    let before = total().await;
    pair.web.metrics().absent("selvedge_metrics_overflow_total", &[]).await;
    let mut connection = Connection::open(pair.entry()).await.unwrap();
    for number in 0..2_100 {
        let asked = client::request(http::Method::GET, HOST, &format!("/r{number}"));
        assert_eq!(connection.call(asked).await.unwrap().status, 200);
    }
    pair.web.metrics().until("selvedge_requests_total", &[], before + 2_100.0).await;
    let text = pair.web.metrics().text().await;
    let series = text.lines().filter(|line| line.starts_with("selvedge_requests_total{")).count();
    assert_eq!(series, 2_001, "two thousand, and the one for all others");
    let over = pair.web.metric("selvedge_requests_total", &["route=\"overflow\""]).await;
    let labels = ["metric=\"selvedge_requests_total\""];
    pair.web.metrics().until("selvedge_metrics_overflow_total", &labels, over).await;
    assert!((100.0..120.0).contains(&over), "{over} requests under the overflow series");
}

#[tokio::test]
async fn the_control_plane_counts_objects_by_their_state() {
    let mesh = Mesh::start().await;
    let objects = async |state: &str, wanted: f64| {
        let labels = [&format!("state=\"{state}\"")[..]];
        mesh.metrics().until("selvedge_control_plane_objects", &labels, wanted).await;
    };
    objects("current", 0.0).await;
    let snapshot = async || mesh.metrics().value("selvedge_control_plane_snapshot", &[]).await;
    let first = snapshot().await;
    mesh.service("shop/api", 80, 8080, "http");
    mesh.service("shop/other", 80, 8080, "http");
    objects("current", 2.0).await;
    assert!(snapshot().await > first, "what is in force has another number");
    mesh.write(
        "service-shop-api.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: {prts: []}\n",
    );
    mesh.write("new.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: new, namespace: shop}\nspec: {prts: []}\n");
    objects("current", 1.0).await;
    objects("stale", 1.0).await;
    objects("refused", 1.0).await;
}

#[tokio::test]
async fn the_control_plane_counts_the_sidecars_that_listen() {
    let pair = Pair::start().await;
    let sidecars = async |wanted: f64| {
        pair.mesh.metrics().until("selvedge_control_plane_sidecars", &[], wanted).await;
    };
    sidecars(2.0).await;
    drop(pair.web);
    sidecars(1.0).await;
}

#[test]
fn every_metric_is_named_by_a_test_of_its_number() {
    let tests: String = rust_files("tests/tests").into_iter().map(|file| file.text).collect();
    let asked = |name: &str| {
        let parts = ["", "_count", "_sum"].map(|part| format!("\"{name}{part}\""));
        let asks =
            |at: usize| [".until(", ".value(", ".metric("].iter().any(|call| tests[..at].trim_end().ends_with(call));
        parts.iter().any(|part| tests.match_indices(part.as_str()).any(|(at, _)| asks(at)))
    };
    let missing: Vec<&str> = metrics::declared().filter(|name| !asked(name)).collect();
    assert!(metrics::declared().count() > 30 && !asked("selvedge_no_such_metric_total"));
    assert!(missing.is_empty(), "no test looks at the number of {missing:#?}");
}
