//! Spans by OTLP: one trace through both sidecars, each try a span of its own, and a collector that costs no request.

use http::{Method, Request};
use http_body_util::Full;
use selvedge_tests::{
    client::{self, Answer},
    mesh::{Mesh, Workload},
    pair::{DESTINATION, HOST, Pair},
    ports::Reserved,
    upstream::{Scenario, Upstream},
    wait,
};

#[path = "spans/collector.rs"]
mod collector;

use collector::{Collector, Mood};

const PARENT: &str = "00f067aa0ba902b7";

/// A trace id that nobody else has.
fn new_trace() -> String {
    format!("{:032x}", fastrand::u128(1..))
}

/// The pair with these lines in the files of both sidecars.
async fn pair(lines: &str) -> Pair {
    let upstream = Upstream::start("api").await;
    let mesh = Mesh::start().await;
    mesh.service("shop/api", 80, 8080, "");
    let api = mesh.start_sidecar(Workload::new("shop/api").serves(8080, upstream.address()).with(lines));
    let web = mesh.start_sidecar(Workload::new("shop/web").calls(DESTINATION).with(lines));
    api.ready().await;
    web.ready().await;
    let pair = Pair { web, api, upstream, mesh };
    pair.until_status("/", 200).await;
    pair
}

/// `GET target` with these fields.
async fn get(pair: &Pair, target: &str, fields: &[(&str, &str)]) -> Answer {
    let builder = Request::builder().method(Method::GET).uri(target).header("host", HOST);
    let request = fields.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    client::call(pair.entry(), request.body(Full::default()).unwrap()).await.expect("the sidecar answers")
}

/// The field of this name that the application was sent; empty for none.
fn arrived(answer: &Answer, name: &str) -> String {
    let said: serde_json::Value = serde_json::from_str(&answer.text()).expect("the application says what it got");
    let fields = said["headers"].as_array().expect("fields");
    let found = fields.iter().find(|field| field[0] == name);
    found.and_then(|field| field[1].as_str()).unwrap_or_default().to_owned()
}

/// Asks in a trace that the caller records, and waits until both spans of it are there: all spans before them are, too.
async fn settle(pair: &Pair, collector: &Collector) {
    let trace = new_trace();
    get(pair, "/", &[("traceparent", &format!("00-{trace}-{PARENT}-01"))]).await;
    collector.until(&trace, 2).await;
}

#[tokio::test]
async fn a_trace_goes_from_the_caller_through_both_sidecars_to_the_application() {
    let collector = Collector::start().await;
    let pair = pair(&collector.grpc(", sampling: 0, headers: {x-tenant: shop}")).await;
    let trace = new_trace();
    let fields = [("traceparent", &*format!("00-{trace}-{PARENT}-01")), ("tracestate", "vendor=1")];
    let answer = get(&pair, "/orders?card=4242", &fields).await;
    let spans = collector.until(&trace, 2).await;
    let [client, server] = &spans[..] else { panic!("{spans:?}") };

    assert_eq!((client.is_server, server.is_server), (false, true));
    assert_eq!((&*client.parent, &server.parent), (PARENT, &client.id));
    assert_eq!(arrived(&answer, "traceparent"), format!("00-{trace}-{}-01", server.id));
    assert_eq!(arrived(&answer, "tracestate"), "vendor=1");
    for (span, service, instance) in [(client, "web", "shop/web"), (server, "api", "shop/api")] {
        assert_eq!(span.span.name, "GET");
        assert_eq!(
            (span.resource["service.name"].as_str(), span.resource["service.instance.id"].as_str()),
            (service, instance)
        );
        assert_eq!((span.text("http.request.method"), span.text("http.response.status_code")), ("GET", "200"));
        assert_eq!(
            (span.text("url.path"), span.text("url.scheme"), span.text("server.address")),
            ("/orders", "http", HOST)
        );
        assert_eq!(
            (span.text("source.identity"), span.text("selvedge.tls")),
            ("spiffe://mesh.local/ns/shop/sa/web", "mtls")
        );
        assert_eq!((span.text("error.type"), span.text("http.request.resend_count")), ("", ""));
        assert!(!format!("{:?}", span.attributes).contains("4242"), "{:?}", span.attributes);
        assert_eq!((span.span.trace_state.as_str(), span.fields["x-tenant"].to_str().unwrap()), ("vendor=1", "shop"));
        assert!(span.span.start_time_unix_nano <= span.span.end_time_unix_nano && span.span.status.is_none());
    }
    assert_eq!(server.text("client.address"), "127.0.0.1");

    let refused =
        get(&pair, "/", &[("traceparent", &fields[0].1.replace(&trace, &new_trace())), ("host", "x y")]).await;
    assert_ne!(refused.status, 200);
    let logged = wait::until("the request is logged", || async {
        pair.web.metrics().text().await; // asks for the lines, too
        pair.web.access_log().into_iter().find(|line| line["http.response.status_code"] == refused.status.as_u16())
    })
    .await;
    let trace = logged["trace_id"].as_str().expect("its trace");
    let spans = collector.until(trace, 1).await;
    assert_eq!(
        (&*spans[0].id, spans[0].text("error.type")),
        (logged["span_id"].as_str().unwrap(), logged["selvedge.reason"].as_str().unwrap())
    );
}

#[tokio::test]
async fn each_further_try_is_a_span_of_its_own_and_b3_is_spoken_where_the_caller_does() {
    let collector = Collector::start().await;
    let pair = pair(&collector.http("")).await;
    pair.mesh.write(
        "traffic.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: api, namespace: shop}\nspec:\n  targetRef: {kind: \
         Service, name: api}\n  retry: {attempts: 3}\n",
    );
    let of_pair = &pair;
    wait::until_true("a failed try is repeated", || async move {
        of_pair.upstream.play(Scenario::Fail(1, 503));
        of_pair.get("/").await.status == 200
    })
    .await;
    let trace = new_trace();
    pair.upstream.play(Scenario::Fail(2, 503));
    let answer = get(&pair, "/", &[("x-b3-traceid", &trace), ("x-b3-spanid", PARENT), ("x-b3-sampled", "1")]).await;
    assert_eq!(answer.status, 200);
    let spans = collector.until(&trace, 6).await;
    let (clients, servers) = spans.split_at(3);
    let told = |span: &collector::Taken| {
        ["http.request.resend_count", "http.response.status_code", "error.type"].map(|key| span.text(key).to_owned())
    };
    let told: Vec<[String; 3]> = clients.iter().map(told).collect();
    assert_eq!(told, [["", "503", "503"], ["1", "503", "503"], ["2", "200", ""]]);
    for (client, server) in clients.iter().zip(servers) {
        assert_eq!((client.is_server, &*client.parent), (false, PARENT), "tries are children of the caller's span");
        assert_eq!((server.is_server, &server.parent), (true, &client.id), "each reached the service by its own");
    }
    let last = &servers[2];
    assert_eq!((arrived(&answer, "x-b3-traceid"), arrived(&answer, "x-b3-spanid")), (trace.clone(), last.id.clone()));
    assert_eq!(
        (arrived(&answer, "x-b3-parentspanid"), arrived(&answer, "x-b3-sampled")),
        (clients[2].id.clone(), "1".into())
    );
    assert_eq!(arrived(&answer, "traceparent"), format!("00-{trace}-{}-01", last.id));
}

#[tokio::test]
async fn who_does_not_record_gets_no_span_and_of_roots_only_the_share() {
    let collector = Collector::start().await;
    let pair = pair(&collector.grpc(", sampling: 0")).await;
    let unrecorded = new_trace();
    let w3c = format!("00-{unrecorded}-{PARENT}-00");
    assert_eq!(arrived(&get(&pair, "/", &[("traceparent", &w3c)]).await, "traceparent"), w3c);
    let b3 = format!("{unrecorded}-{PARENT}-0");
    let answer = get(&pair, "/", &[("b3", &b3)]).await;
    assert_eq!((arrived(&answer, "b3"), arrived(&answer, "traceparent")), (b3, String::new()));
    let root = arrived(&pair.get("/").await, "traceparent");
    assert!(root.len() == 55 && root.ends_with("-00"), "{root}: nobody further on begins to record it");
    settle(&pair, &collector).await;
    assert!(collector.spans(&unrecorded).is_empty() && collector.spans(&root[3..35]).is_empty());
}

#[tokio::test]
async fn a_collector_that_is_gone_or_fails_costs_no_request_and_is_counted() {
    let port = Reserved::new();
    let lines = format!("tracing: {{endpoint: 'http://{}/v1/traces'}}\n", port.address());
    let pair = pair(&lines).await;
    let trace = new_trace();
    let answer = get(&pair, "/", &[("traceparent", &format!("00-{trace}-{PARENT}-01"))]).await;
    assert_eq!(answer.status, 200);
    let collector = Collector::on(port.listen());
    collector.becomes(Mood::Fails(2, 503));
    collector.until(&trace, 2).await; // they waited

    let lost = new_trace();
    collector.becomes(Mood::Fails(u32::MAX, 400));
    get(&pair, "/", &[("traceparent", &format!("00-{lost}-{PARENT}-01"))]).await;
    for sidecar in [&pair.web, &pair.api] {
        wait::until_true("what the collector refuses is counted", || async {
            sidecar.metrics().so_far("selvedge_spans_total", &["result=\"failed\""]).await > 0.0
        })
        .await;
        wait::until_true("what it took is counted, too", || async {
            sidecar.metrics().so_far("selvedge_spans_total", &["result=\"exported\""]).await > 0.0
        })
        .await;
        assert!(sidecar.metric("selvedge_spans_total", &["result=\"exported\""]).await > 0.0);
    }
    assert!(collector.spans(&lost).is_empty());
}

#[tokio::test]
async fn without_the_key_nothing_is_made_and_nothing_changed() {
    let pair = Pair::start().await;
    let w3c = format!("00-{}-{PARENT}-01", new_trace());
    let answer = get(&pair, "/", &[("traceparent", &w3c), ("tracestate", "vendor=1"), ("b3", "d")]).await;
    let told = ["traceparent", "tracestate", "b3"].map(|name| arrived(&answer, name));
    assert_eq!(told, [w3c, "vendor=1".into(), "d".into()]);
    assert_eq!(arrived(&pair.get("/").await, "traceparent"), "");
    assert!(!pair.web.metrics().text().await.contains("selvedge_spans_total{"));
}
