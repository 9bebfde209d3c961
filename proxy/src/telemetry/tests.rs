use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use selvedge_decide::{
    config::{AppProtocol, Destination, DestinationPort},
    resources::Resources,
};
use selvedge_policies::{attempt::breaker::BreakerState, context::Audited, reason::Reason};
use selvedge_xds::proto::mesh::{Attachment, Inbound, Origin};
use tokio::task::LocalSet;

use super::*;

/// The telemetry of `shop/web-1`.
pub(crate) fn telemetry() -> Telemetry {
    let settings = TelemetrySettings {
        workload: "web-1".into(),
        namespace: "shop".into(),
        access_log_file: Some("/dev/null".into()),
        audit_log: Some(open_audit_log(Some("/dev/null".as_ref())).unwrap()),
    };
    Telemetry::new(&settings).unwrap()
}

const CALLER: Party<'_> = Party { workload: "ui", namespace: "shop", identity: "spiffe://mesh.local/ns/shop/sa/ui" };
const CALLED: Party<'_> = Party { workload: "web", namespace: "shop", identity: "spiffe://mesh.local/ns/shop/sa/web" };

/// A request that went well.
pub(crate) fn request() -> RequestRecord<'static> {
    RequestRecord {
        direction: Direction::Inbound,
        source: CALLER,
        destination: CALLED,
        service: "shop/web",
        route: "shop/web/0",
        code: 200,
        grpc_status: None,
        reason: None,
        policy: "",
        rule: None,
        policy_there: "",
        detail: "",
        audited: None,
        protocol: Protocol::Http1,
        hop: Hop::Mtls,
        duration: Duration::from_millis(3),
        bytes_received: 10,
        bytes_sent: 100,
        retries: 0,
        method: "GET",
        host: "web.shop",
        port: 80,
        path: "/",
        path_sent: "",
        peer: ([10, 0, 0, 1], 40_000).into(),
        upstream: Some(([10, 0, 0, 2], 80).into()),
        request_id: "4242",
        traceparent: "",
        secure: false,
        span: None,
    }
}

const ENDS: Ends<'_> = Ends {
    direction: Direction::Inbound,
    source: CALLER,
    destination: CALLED,
    service: "shop/db",
    protocol: Protocol::Tcp,
    hop: Hop::Mtls,
};

fn connection() -> ConnectionRecord<'static> {
    ConnectionRecord {
        ends: ENDS,
        port: 5432,
        reason: None,
        policy: "",
        rule: None,
        detail: "",
        audited: None,
        duration: Duration::from_secs(2),
        bytes_received: 5,
        bytes_sent: 7,
        server_name: "",
        peer: ([10, 0, 0, 1], 40_001).into(),
        upstream: None,
    }
}

fn looks_on() -> Audited {
    Audited { policy: "shop/try".into(), rule: Some(1), reason: Reason::PolicyDenied }
}

/// The value of the only sample that holds all of `parts`.
fn sample(text: &str, parts: &[&str]) -> f64 {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let mut lines = samples.filter(|line| parts.iter().all(|part| line.contains(part)));
    let line = lines.next().unwrap_or_else(|| panic!("no sample has {parts:?}:\n{text}"));
    assert_eq!(lines.next(), None, "{parts:?} is ambiguous");
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_scrape_sums_up_the_workers() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let workers = [telemetry.worker(), telemetry.worker()];
            for worker in &workers {
                tokio::task::spawn_local(worker.clone().serve_flushes(WorkerSeen::default));
                worker.request(&request());
            }
            workers[0].request(&RequestRecord { code: 503, ..request() });
            let text = telemetry.render().await;
            assert_eq!(sample(&text, &["selvedge_requests_total{", "response_code=\"200\""]), 2.0);
            assert_eq!(sample(&text, &["selvedge_requests_total{", "response_class=\"5xx\""]), 1.0);
            let fast = ["selvedge_request_duration_seconds_bucket", "\"2xx\"", "le=\"0.0025\""];
            let slow = ["selvedge_request_duration_seconds_bucket", "\"2xx\"", "le=\"0.005\""];
            assert_eq!((sample(&text, &fast), sample(&text, &slow)), (0.0, 2.0));
            assert_eq!(sample(&text, &["selvedge_response_bytes_total", "\"2xx\""]), 200.0);
            workers[1].request(&request());
            let text = telemetry.render().await;
            assert_eq!(sample(&text, &["selvedge_requests_total{", "response_code=\"200\""]), 3.0);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_worker_delays_a_scrape_and_loses_nothing() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let worker = telemetry.worker();
            worker.request(&request());
            let before = tokio::time::Instant::now();
            assert!(!telemetry.render().await.contains("selvedge_requests_total"));
            assert_eq!(before.elapsed(), FLUSH_LIMIT);
            worker.request(&request());
            tokio::task::spawn_local(worker.clone().serve_flushes(WorkerSeen::default));
            let text = telemetry.render().await;
            assert_eq!(sample(&text, &["selvedge_requests_total{"]), 2.0);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn refusals_and_connections_have_metrics_of_their_own() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let worker = telemetry.worker();
            tokio::task::spawn_local(worker.clone().serve_flushes(WorkerSeen::default));
            let denied =
                RequestRecord { code: 403, reason: Some(Reason::PolicyDenied), policy: "shop/no", ..request() };
            worker.request(&denied);
            worker.request(&RequestRecord {
                code: 429,
                reason: Some(Reason::RateLimited),
                policy: "shop/slow",
                ..request()
            });
            worker.connection_opened(Direction::Inbound, Hop::Mtls);
            worker.connection_opened(Direction::Inbound, Hop::Mtls);
            worker.connection_closed(&ConnectionRecord { reason: Some(Reason::PolicyDefaultDeny), ..connection() });
            worker.retry("shop/web", RetryOutcome::Success);
            let text = telemetry.render().await;
            assert_eq!(
                sample(&text, &["selvedge_denials_total", "reason=\"policy_denied\"", "policy=\"shop/no\""]),
                1.0
            );
            assert_eq!(sample(&text, &["selvedge_denials_total", "protocol=\"tcp\""]), 1.0);
            assert_eq!(sample(&text, &["selvedge_rate_limited_total", "policy=\"shop/slow\""]), 1.0);
            assert_eq!(sample(&text, &["selvedge_tcp_connections_open{", "inbound"]), 1.0);
            assert!(!text.contains("selvedge_tcp_sent_bytes_total"), "bytes are counted as they pass, not at the end");
            let (one, other) = (worker.flow(&ENDS), worker.flow(&ENDS));
            one.sent(3);
            other.sent(4);
            assert_eq!(sample(&telemetry.render().await, &["selvedge_tcp_sent_bytes_total", "\"shop/db\""]), 7.0);
            other.sent(1);
            assert_eq!(sample(&telemetry.render().await, &["selvedge_tcp_sent_bytes_total"]), 8.0);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn views_have_the_names_of_others_and_the_numbers_of_the_store() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let worker = telemetry.worker();
            tokio::task::spawn_local(worker.clone().serve_flushes(WorkerSeen::default));
            worker.request(&request());
            worker.request(&RequestRecord { route: "shop/web/1", ..request() });
            worker.request(&RequestRecord { route: PROBE, ..request() });
            worker.request(&RequestRecord { code: 503, reason: Some(Reason::NoEndpoints), ..request() });
            worker.request(&RequestRecord { code: 499, reason: Some(Reason::DownstreamClosed), ..request() });
            let nowhere = RequestRecord { destination: Party::default(), hop: Hop::Nowhere, ..request() };
            worker.request(&RequestRecord { direction: Direction::Outbound, service: "passthrough", ..nowhere });
            worker.connection_opened(Direction::Inbound, Hop::Mtls);
            worker.connection_closed(&connection());
            worker.flow(&ENDS).sent(7);

            let text = telemetry.render_view(View::Istio).await;
            let here = "reporter=\"destination\",source_workload=\"ui\",source_workload_namespace=\"shop\"";
            let count = |more: &[&str]| sample(&text, &[&["istio_requests_total{", here], more].concat());
            assert_eq!(
                count(&["response_code=\"200\"", "response_flags=\"-\""]),
                2.0,
                "of both routes, and of no probe"
            );
            assert_eq!(count(&["response_code=\"503\"", "response_flags=\"UH\""]), 1.0);
            assert_eq!(count(&["response_code=\"0\"", "response_flags=\"DC\""]), 1.0);
            let service = "destination_service=\"web.shop.svc.cluster.local\",destination_service_name=\"web\"";
            assert_eq!(count(&[service, "\"503\"", "connection_security_policy=\"mutual_tls\""]), 1.0);
            let outside = ["reporter=\"source\"", "destination_service_name=\"PassthroughCluster\"", "\"200\""];
            let unknown = ["destination_workload=\"unknown\"", "connection_security_policy=\"unknown\""];
            assert_eq!(sample(&text, &[&["istio_requests_total{"][..], &outside, &unknown].concat()), 1.0);
            let took = ["istio_request_duration_milliseconds_bucket{", here, "response_code=\"2xx\""];
            let bucket = |le| sample(&text, &[&took[..], &[le]].concat());
            assert_eq!((bucket("le=\"2.5\""), bucket("le=\"5\""), bucket("le=\"+Inf\"")), (0.0, 2.0, 2.0));
            let sum = ["istio_request_duration_milliseconds_sum{", here, "response_code=\"2xx\""];
            assert!((sample(&text, &sum) - 6.0).abs() < 1e-6);
            let bytes = |name| sample(&text, &[name, here, "response_code=\"2xx\""]);
            assert_eq!((bytes("istio_response_bytes_sum{"), bytes("istio_response_bytes_count{")), (200.0, 2.0));
            assert_eq!(bytes("istio_request_bytes_bucket{"), 2.0, "the one bucket that there always is");
            let closed = ["istio_tcp_connections_closed_total{", "destination_service_name=\"db\""];
            assert_eq!(sample(&text, &closed), 1.0);
            assert_eq!(sample(&text, &["istio_tcp_sent_bytes_total{", "request_protocol=\"tcp\""]), 7.0);
            assert!(!text.contains("selvedge_"), "{text}");

            let text = telemetry.render_view(View::Linkerd).await;
            let web = "direction=\"inbound\",tls=\"true\",deployment=\"web\",namespace=\"shop\"";
            let count = |more: &[&str]| sample(&text, &[&["response_total{", web], more].concat());
            assert_eq!(count(&["classification=\"success\"", "status_code=\"200\""]), 2.0);
            assert_eq!(count(&["classification=\"failure\"", "status_code=\"503\""]), 1.0);
            assert!(!text.contains("status_code=\"499\""), "whose caller has left has no response");
            assert_eq!(sample(&text, &["request_total{", web]), 4.0);
            assert_eq!(sample(&text, &["response_latency_ms_bucket{", web, "\"2xx\"", "le=\"5\""]), 2.0);
            let out = ["request_total{direction=\"outbound\"", "deployment=\"ui\"", "dst_service=\"passthrough\""];
            assert_eq!(sample(&text, &out), 1.0);
            assert_eq!(sample(&text, &["tcp_open_total{", "peer=\"src\"", "tls=\"true\""]), 1.0);
            assert_eq!(sample(&text, &["tcp_open_connections{direction=\"inbound\""]), 0.0);
            assert_eq!(sample(&text, &["tcp_close_total{"]), 1.0);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_and_a_service_have_every_outcome_from_their_first_request_on() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let worker = telemetry.worker();
            tokio::task::spawn_local(worker.clone().serve_flushes(WorkerSeen::default));
            let text = telemetry.render().await;
            assert!(!text.contains("selvedge_edge_requests_total{"));
            for reason in Reason::ALL {
                let label = format!("reason=\"{}\"", reason.code());
                for direction in ["inbound", "outbound"] {
                    assert_eq!(sample(&text, &["selvedge_reasons_total{", &label, direction]), 0.0);
                }
            }
            worker.request(&RequestRecord { code: 502, reason: Some(Reason::UpstreamReset), ..request() });
            // An answer that broke off, and one whose caller hung up on it.
            worker.request(&RequestRecord { reason: Some(Reason::UpstreamReset), ..request() });
            worker.request(&RequestRecord { code: 499, reason: Some(Reason::DownstreamClosed), ..request() });
            worker.request(&RequestRecord { route: PROBE, ..request() });
            let text = telemetry.render().await;
            let edge = |outcome: &str| {
                sample(&text, &["selvedge_edge_requests_total{", "\"shop/web\"", &format!("outcome=\"{outcome}\"")])
            };
            assert_eq!(["success", "failure", "refused", "cancelled"].map(edge), [0.0, 2.0, 0.0, 1.0]);
            assert_eq!(sample(&text, &["selvedge_requests_total{", "\"499\"", "outcome=\"cancelled\""]), 1.0);
            assert_eq!(sample(&text, &["selvedge_reasons_total{", "\"upstream_reset\"", "inbound"]), 2.0);
            worker.connection_opened(Direction::Inbound, Hop::Mtls);
            worker.connection_closed(&ConnectionRecord { reason: Some(Reason::PolicyDenied), ..connection() });
            let text = telemetry.render().await;
            for (outcome, count) in [("success", 0.0), ("refused", 1.0)] {
                let outcome = format!("outcome=\"{outcome}\"");
                assert_eq!(sample(&text, &["selvedge_edge_connections_total{", "\"shop/db\"", &outcome]), count);
            }
        })
        .await;
}

#[tokio::test]
async fn what_may_happen_by_a_configuration_is_shown_before_it_does() {
    let attached = |kind: &str, name: &str| Attachment {
        origin: Some(Origin { kind: kind.into(), namespace: "shop".into(), name: name.into(), generation: 1 }),
        ..Attachment::default()
    };
    let inbound = Inbound {
        policies: vec![attached("AuthorizationPolicy", "deny"), attached("TrafficPolicy", "slow")],
        ..Inbound::default()
    };
    let port = |protocol| DestinationPort { protocol, cluster: None };
    let service = Arc::new(Destination {
        name: "shop/api".parse().unwrap(),
        service: "shop/api".into(),
        external: false,
        routes: HashMap::new(),
        policies: Arc::default(),
        ports: HashMap::from([(80, port(AppProtocol::Http)), (25, port(AppProtocol::Opaque))]),
        backends: HashMap::new(),
        traffic: Arc::default(),
        traffic_from: BTreeMap::new(),
    });
    let config = RuntimeConfig {
        destinations: HashMap::from([("shop/api".parse().unwrap(), service)]),
        resources: Arc::new(Resources { inbound: Some(Arc::new(inbound)), ..Resources::default() }),
        ..RuntimeConfig::default()
    };
    let telemetry = telemetry();
    telemetry.config_applied(&config);
    let text = telemetry.render().await;
    for outcome in ["success", "failure", "refused", "cancelled"].map(|outcome| format!("outcome=\"{outcome}\"")) {
        for metric in ["selvedge_edge_requests_total{", "selvedge_edge_connections_total{"] {
            assert_eq!(sample(&text, &[metric, "outbound", "destination_service=\"shop/api\"", &outcome]), 0.0);
        }
    }
    for action in ["denied", "limited", "audited"].map(|action| format!("action=\"{action}\"")) {
        for policy in ["policy=\"shop/deny\"", "policy=\"\""] {
            assert_eq!(sample(&text, &["selvedge_policy_actions_total{", "inbound", policy, &action]), 0.0);
        }
    }
    assert!(!text.contains("shop/slow"), "settings refuse nobody");
    assert_eq!(sample(&text, &["selvedge_retries_total{", "\"shop/api\"", "over_budget"]), 0.0);
    telemetry.config_applied(&config);
    // What the process takes differs from one moment to the next.
    let of_calls =
        |text: &str| text.lines().filter(|line| !line.contains("_process_")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(of_calls(&telemetry.render().await), of_calls(&text), "and that once");
}

#[tokio::test(start_paused = true)]
async fn open_metrics_has_the_same_numbers_and_when_they_began_and_traces_beside_them() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let worker = telemetry.worker();
            tokio::task::spawn_local(worker.clone().serve_flushes(WorkerSeen::default));
            let trace = "0af7651916cd43dd8448eb211c80319c";
            let recorded = format!("00-{trace}-b7ad6b7169203331-01");
            worker.request(&RequestRecord { traceparent: &recorded, ..request() });
            for unheard in ["00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-00", "00-nothing", "\u{e9}"] {
                worker.request(&RequestRecord { traceparent: unheard, ..request() });
            }
            telemetry.config_error(Some("a \"quoted\"\nline \\"));
            let text = telemetry.render_open_metrics(false).await;
            assert!(text.ends_with("\n# EOF\n") && !text.contains("_created"), "{text}");
            assert!(text.contains("# TYPE selvedge_requests counter\n"), "{text}");
            assert!(text.contains("error=\"a \\\"quoted\\\"\\nline \\\\\"} 1\n"), "{text}");
            assert_eq!(sample(&text, &["selvedge_requests_total{"]), 4.0);
            assert_eq!(sample(&text, &["selvedge_request_duration_seconds_count{"]), 4.0);
            assert_eq!(sample(&text, &["selvedge_request_duration_seconds_bucket{", "le=\"+Inf\""]), 4.0);
            let examples: Vec<&str> = text.lines().filter(|line| line.contains(" # {")).collect();
            assert_eq!(examples.len(), 1, "{examples:?}");
            assert!(examples[0].contains("le=\"0.005\"} 4 # {trace_id=\""), "{examples:?}");
            assert!(examples[0].ends_with(&format!("\"{trace}\"}} 0.003")), "{examples:?}");

            let text = telemetry.render_open_metrics(true).await;
            let now = crate::clock::since_epoch().as_secs_f64();
            for series in ["selvedge_requests_created{", "selvedge_request_duration_seconds_created{"] {
                let began = sample(&text, &[series]);
                assert!((now - 600.0..=now).contains(&began), "{began} at {now}");
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn codes_that_nobody_has_registered_are_one() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let worker = telemetry.worker();
            tokio::task::spawn_local(worker.clone().serve_flushes(WorkerSeen::default));
            (100..1000).for_each(|code| worker.request(&RequestRecord { code, ..request() }));
            worker.request(&RequestRecord { code: 0, ..request() });
            let text = telemetry.render().await;
            let count = |parts: &[&str]| sample(&text, &[&["selvedge_requests_total{"], parts].concat());
            for code in ["200", "404", "429", "499", "503", "none"] {
                assert_eq!(count(&[&format!("response_code=\"{code}\"")]), 1.0);
            }
            assert_eq!(count(&["response_code=\"other\"", "response_class=\"5xx\""]), 89.0);
            let series = text.lines().filter(|line| line.starts_with("selvedge_requests_total{")).count();
            assert!(series < 80, "{series} series");
        })
        .await;
}

fn endpoint(n: u16) -> EndpointSeen {
    EndpointSeen {
        service: "shop/web".into(),
        endpoint: ([10, 0, 0, 2], n).into(),
        breaker: None,
        left_alone: false,
        in_flight: 2,
        connections: [1, 4],
        streams: 3,
        tries: [0; 2],
        switched: [0; 2],
    }
}

fn breaker(n: u16, state: BreakerState) -> EndpointSeen {
    EndpointSeen { breaker: Some(state), ..endpoint(n) }
}

#[tokio::test(start_paused = true)]
async fn what_workers_have_now_is_summed_up_by_service_and_gone_with_it() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let first = Rc::new(RefCell::new(WorkerSeen {
                endpoints: vec![endpoint(1), EndpointSeen { left_alone: true, ..endpoint(2) }, endpoint(3)],
                budgets: vec![("shop/web".into(), 30)],
                elsewhere: [5, 1],
                max_connections: 100,
            }));
            let second = WorkerSeen {
                endpoints: vec![breaker(1, BreakerState::Open), endpoint(2), endpoint(3)],
                budgets: vec![("shop/web".into(), 12)],
                elsewhere: [1, 0],
                max_connections: 100,
            };
            let source = first.clone();
            tokio::task::spawn_local(telemetry.worker().serve_flushes(move || source.borrow().clone()));
            tokio::task::spawn_local(telemetry.worker().serve_flushes(move || second.clone()));
            let text = telemetry.render().await;
            let value = |parts: &[&str]| sample(&text, parts);
            for state in ["available", "left_alone", "breaker_open"] {
                assert_eq!(value(&["selvedge_endpoints{", "\"shop/web\"", state]), 1.0);
            }
            assert_eq!(value(&["selvedge_calls_in_flight{", "\"shop/web\""]), 12.0);
            assert_eq!(value(&["selvedge_calls_in_flight{", "inbound"]), 6.0);
            assert_eq!(value(&["selvedge_calls_in_flight{", "passthrough"]), 1.0);
            assert_eq!(value(&["selvedge_upstream_connections{", "shared"]), 6.0);
            assert_eq!(value(&["selvedge_upstream_connections{", "idle"]), 24.0);
            assert_eq!(value(&["selvedge_upstream_streams{"]), 18.0);
            assert_eq!(value(&["selvedge_retry_budget_remaining{"]), 42.0);
            assert_eq!(value(&["selvedge_tcp_connections_limit{", "inbound"]), 200.0);
            assert_eq!(value(&["selvedge_tries_total{", "10.0.0.2:3", "failure"]), 0.0);

            let failing = EndpointSeen { tries: [1, 5], switched: [2, 0], ..breaker(3, BreakerState::Open) };
            first.replace(WorkerSeen { endpoints: vec![failing], ..WorkerSeen::default() });
            let text = telemetry.render().await;
            assert_eq!(sample(&text, &["selvedge_tries_total{", "10.0.0.2:3", "failure"]), 5.0);
            assert_eq!(sample(&text, &["selvedge_breaker_switches_total{", "10.0.0.2:3", "to=\"open\""]), 2.0);
            assert_eq!(sample(&text, &["selvedge_breaker_switches_total{", "10.0.0.2:3", "to=\"closed\""]), 0.0);
            assert_eq!(sample(&text, &["selvedge_endpoints{", "left_alone"]), 0.0);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn breakers_are_shown_as_the_workers_see_them_now_and_open_ones_first() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let (first, second) = (Rc::new(RefCell::default()), Rc::new(RefCell::default()));
            for source in [&first, &second] {
                let source: Rc<RefCell<Vec<EndpointSeen>>> = Rc::clone(source);
                let look = move || WorkerSeen { endpoints: source.borrow().clone(), ..WorkerSeen::default() };
                tokio::task::spawn_local(telemetry.worker().serve_flushes(look));
            }
            first.replace(vec![breaker(1, BreakerState::HalfOpen), breaker(2, BreakerState::Closed)]);
            second.replace(vec![breaker(1, BreakerState::Open), breaker(2, BreakerState::Closed)]);
            let text = telemetry.render().await;
            assert_eq!(sample(&text, &["selvedge_breaker_state", "\"shop/web\"", "10.0.0.2:1\""]), 2.0);
            assert_eq!(sample(&text, &["selvedge_breaker_state", "\"shop/web\"", "10.0.0.2:2\""]), 0.0);
            second.replace(Vec::new());
            assert_eq!(sample(&telemetry.render().await, &["selvedge_breaker_state", "10.0.0.2:1\""]), 1.0);
            first.replace(Vec::new());
            assert!(!telemetry.render().await.contains("selvedge_breaker_state"), "gone endpoints are still shown");

            let limit = u16::try_from(SERIES_LIMIT).unwrap();
            let state = |n| if n == limit + 9 { BreakerState::Open } else { BreakerState::Closed };
            first.replace((0..limit + 10).map(|n| breaker(n, state(n))).collect());
            let text = telemetry.render().await;
            assert_eq!(
                text.lines().filter(|line| line.starts_with("selvedge_breaker_state{")).count(),
                SERIES_LIMIT + 1
            );
            assert_eq!(sample(&text, &["selvedge_breaker_state", &format!("10.0.0.2:{}\"", limit + 9)]), 2.0);
            assert_eq!(sample(&text, &["selvedge_breaker_state", "\"overflow\""]), 0.0);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn series_are_capped_and_nothing_goes_uncounted() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let worker = telemetry.worker();
            tokio::task::spawn_local(worker.clone().serve_flushes(WorkerSeen::default));
            let names: Vec<String> = (0..SERIES_LIMIT + 500).map(|n| format!("caller-{n}")).collect();
            for workload in &names {
                worker.request(&RequestRecord { source: Party { workload, ..CALLER }, ..request() });
            }
            let text = telemetry.render().await;
            let series: Vec<&str> = text.lines().filter(|line| line.starts_with("selvedge_requests_total{")).collect();
            assert!(series.len() <= SERIES_LIMIT + 1, "{} series", series.len());
            assert_eq!(sample(&text, &["selvedge_requests_total{", "direction=\"overflow\""]), 500.0);
            assert_eq!(sample(&text, &["selvedge_metrics_overflow_total", "\"selvedge_requests_total\""]), 500.0);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_full_metric_forgets_what_is_no_longer_used() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let worker = telemetry.worker();
            tokio::task::spawn_local(worker.clone().serve_flushes(WorkerSeen::default));
            let call = |round: usize| {
                for n in 0..SERIES_LIMIT {
                    let workload = format!("caller-{round}-{n}");
                    let source = Party { workload: &workload, ..CALLER };
                    worker.request(&RequestRecord { source, ..request() });
                }
            };
            call(1);
            telemetry.render().await;
            tokio::time::advance(Duration::from_secs(601)).await;
            worker.request(&request());
            telemetry.render().await;
            call(2);
            let text = telemetry.render().await;
            assert!(!text.contains("caller-1-") && text.contains("caller-2-7\""), "old series are still there");
            assert_eq!(sample(&text, &["selvedge_requests_total{", "\"ui\""]), 1.0);
        })
        .await;
}

#[tokio::test]
async fn a_refused_configuration_is_told_until_it_is_mended() {
    let telemetry = telemetry();
    telemetry.config_applied(&RuntimeConfig { generation: 3, ..RuntimeConfig::default() });
    telemetry.config_error(Some("no such \"field\""));
    let text = telemetry.render().await;
    assert_eq!(sample(&text, &["selvedge_config_last_error_info", "no such \\\"field\\\""]), 1.0);
    telemetry.config_error(None);
    let text = telemetry.render().await;
    assert!(!text.contains("selvedge_config_last_error_info{"));
    assert_eq!(sample(&text, &["selvedge_config_refused_total "]), 1.0);
    assert_eq!(sample(&text, &["selvedge_config_generation "]), 3.0);
}

/// Names and label names in an exposition.
fn shown(text: &str) -> BTreeSet<(String, BTreeSet<String>)> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let shown = samples.map(|line| {
        let (name, labels) = line.rsplit_once(' ').unwrap().0.split_once('{').unwrap_or((line, ""));
        let name = name.split(' ').next().unwrap();
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        let labels = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        (stem.to_owned(), labels.filter(|name| name != "le").collect())
    });
    shown.collect()
}

#[tokio::test(start_paused = true)]
async fn every_metric_is_declared_with_its_labels_and_documented() {
    LocalSet::new()
        .run_until(async {
            let telemetry = telemetry();
            let worker = telemetry.worker();
            let look = || WorkerSeen {
                endpoints: vec![breaker(80, BreakerState::HalfOpen)],
                budgets: vec![("shop/web".into(), 7)],
                ..WorkerSeen::default()
            };
            tokio::task::spawn_local(worker.clone().serve_flushes(look));
            worker.connection_opened(Direction::Inbound, Hop::Mtls);
            worker.connection_closed(&ConnectionRecord { reason: Some(Reason::PolicyDenied), ..connection() });
            worker.request(&RequestRecord { reason: Some(Reason::RateLimited), ..request() });
            worker.request(&RequestRecord { audited: Some(&looks_on()), ..request() });
            worker.retry("shop/web", RetryOutcome::OverBudget);
            worker.flow(&ENDS).received(1);
            worker.probe(Protocol::Http1, ProbeOutcome::Refused);
            worker.host_not_asked();
            worker.detection(Duration::from_micros(30), Protocol::Tls);
            telemetry.application_metrics_missing("status");
            telemetry.config_error(Some("route shop/web: \"{}\"\nno such service"));
            telemetry.set_captured(true);
            telemetry.make_spans(Sampling::of(1.0));
            telemetry.set_enforced([(8080, false)].into_iter());
            for workload in (0..=SERIES_LIMIT).map(|n| n.to_string()) {
                worker.request(&RequestRecord { source: Party { workload: &workload, ..CALLER }, ..request() });
            }
            let declared: BTreeSet<_> = metrics::ALL
                .iter()
                .map(|metric| (metric.name.to_owned(), metric.labels.iter().map(|label| label.to_string()).collect()))
                .collect();
            assert_eq!(shown(&telemetry.render().await), declared);
        })
        .await;
    let page = include_str!("../../../docs/metrics.md");
    assert!(page.contains(&metrics::reference()), "docs/metrics.md must hold this table:\n{}", metrics::reference());
}

#[tokio::test]
async fn the_access_log_says_what_happened_and_cannot_be_forged() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let settings = TelemetrySettings { access_log_file: Some(file.clone()), ..TelemetrySettings::default() };
    let telemetry = Telemetry::new(&settings).unwrap();
    let worker = telemetry.worker();
    let evil = "/a\r\n{\"forged\":true}\u{1b}[2J\"";
    worker.request(&request());
    let denied = RequestRecord { code: 403, reason: Some(Reason::PolicyDenied), ..request() };
    worker.request(&RequestRecord { path: evil, path_sent: evil, detail: evil, ..denied });
    let long = "\u{1b}".repeat(100_000);
    worker.connection_closed(&ConnectionRecord {
        reason: Some(Reason::UnknownDestination),
        detail: &long,
        ..connection()
    });
    worker.set_access_log(AccessLogMode::All);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    worker.request(&RequestRecord { traceparent, ..request() });
    worker.connection_closed(&connection());
    worker.set_access_log(AccessLogMode::Off);
    worker.request(&RequestRecord { code: 500, ..request() });
    let flushes = worker.clone().serve_flushes(WorkerSeen::default);
    tokio::select! {
        () = flushes => unreachable!("telemetry is still there"),
        () = telemetry.finish_logs() => {}
    }
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(lines[0]["selvedge.reason"], "policy_denied");
    for key in ["url.path", "selvedge.path_sent", "selvedge.detail"] {
        assert_eq!(lines[0][key], evil);
    }
    assert_eq!((&lines[1]["server.port"], &lines[1]["selvedge.service"]), (&5432.into(), &"shop/db".into()));
    assert_eq!(lines[1]["selvedge.detail"].as_str().unwrap().len(), 1024, "a detail is cut");
    assert_eq!(lines[2]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(lines[2]["http.response.status_code"], 200);
    assert_eq!(lines[2].get("selvedge.detail"), None);
    assert_eq!(lines[3]["selvedge.bytes_sent"], 7);
}

#[tokio::test]
async fn the_errors_of_grpc_services_are_errors_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let settings = TelemetrySettings { access_log_file: Some(file.clone()), ..TelemetrySettings::default() };
    let telemetry = Telemetry::new(&settings).unwrap();
    let worker = telemetry.worker();
    for status in 0..=16 {
        worker.request(&RequestRecord { protocol: Protocol::Grpc, grpc_status: Some(status), ..request() });
    }
    drop(worker);
    telemetry.finish_logs().await;
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let logged: Vec<_> = lines.map(|line| line["rpc.grpc.status_code"].as_u64().unwrap()).collect();
    assert_eq!(logged, [2, 4, 8, 13, 14, 15]);
}

#[tokio::test]
async fn who_leaves_in_the_middle_of_an_answer_is_no_error_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let settings = TelemetrySettings { access_log_file: Some(file.clone()), ..TelemetrySettings::default() };
    let telemetry = Telemetry::new(&settings).unwrap();
    let worker = telemetry.worker();
    for code in [200, 304, 499, 503] {
        worker.request(&RequestRecord { code, reason: Some(Reason::DownstreamClosed), ..request() });
    }
    drop(worker);
    telemetry.finish_logs().await;
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let logged: Vec<_> = lines.map(|line| line["http.response.status_code"].as_u64().unwrap()).collect();
    assert_eq!(logged, [499, 503]);
}

#[tokio::test(start_paused = true)]
async fn refusals_do_not_flood_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let settings = TelemetrySettings { access_log_file: Some(file.clone()), ..TelemetrySettings::default() };
    let telemetry = Telemetry::new(&settings).unwrap();
    let worker = telemetry.worker();
    let denied = RequestRecord { code: 403, reason: Some(Reason::PolicyDenied), ..request() };
    (0..10_000).for_each(|_| worker.request(&denied));
    // Whoever else is refused, and for another reason, is in it.
    worker
        .request(&RequestRecord { source: Party { identity: "spiffe://mesh.local/ns/shop/sa/b", ..CALLER }, ..denied });
    worker.request(&RequestRecord { code: 429, reason: Some(Reason::RateLimited), ..request() });
    tokio::time::advance(Duration::from_secs(1)).await;
    worker.request(&denied);
    drop(worker);
    // The writer is a thread, for which a paused clock does not wait.
    tokio::time::resume();
    telemetry.finish_logs().await;
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!(text.lines().count(), 53);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["selvedge.suppressed_lines"], 9_950);
}

#[tokio::test(start_paused = true)]
async fn the_audit_log_has_the_first_denial_of_each_caller_whatever_others_cause() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.log");
    let audit_log = Some(open_audit_log(Some(&file)).unwrap());
    let settings = TelemetrySettings {
        workload: "web-1".into(),
        namespace: "shop".into(),
        access_log_file: Some("/dev/null".into()),
        audit_log,
    };
    let telemetry = Telemetry::new(&settings).unwrap();
    let worker = telemetry.worker();
    worker.set_access_log(AccessLogMode::Off);
    let nobody = RequestRecord { code: 403, upstream: None, ..request() };
    let denied =
        RequestRecord { reason: Some(Reason::PolicyDenied), policy: "shop/no-deletes", rule: Some(2), ..nobody };
    (0..1000).for_each(|_| worker.request(&denied));
    for n in 0..1000_u16 {
        let stranger = Party { identity: "", ..CALLER };
        let peer = ([10, 1, (n / 200) as u8, (n % 200) as u8], 40_000).into();
        worker.request(&RequestRecord { source: stranger, peer, reason: Some(Reason::PlaintextRefused), ..nobody });
    }
    let other = Party { identity: "spiffe://mesh.local/ns/shop/sa/other", ..CALLER };
    let detail = "No ALLOW rule matches";
    worker.request(&RequestRecord { source: other, reason: Some(Reason::PolicyDefaultDeny), detail, ..nobody });
    worker.request(&RequestRecord { source: other, audited: Some(&looks_on()), ..request() });
    worker.connection_closed(&ConnectionRecord { reason: Some(Reason::PolicyDenied), rule: Some(0), ..connection() });
    // What the application or a peer says was decided by nobody here.
    worker.request(&RequestRecord { reason: Some(Reason::PolicyDenied), ..request() });
    let outbound = RequestRecord { direction: Direction::Outbound, ..request() };
    worker.request(&RequestRecord { reason: Some(Reason::PolicyDenied), policy_there: "shop/there", ..outbound });
    worker.request(&RequestRecord { reason: Some(Reason::RateLimited), ..nobody });
    tokio::time::advance(Duration::from_secs(1)).await;
    worker.request(&denied);
    drop(worker);
    // The writer is a thread, for which a paused clock does not wait.
    tokio::time::resume();
    telemetry.finish_logs().await;
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |subject: &str| lines.iter().filter(|line| line["subject"] == subject).collect::<Vec<_>>();
    let flood = of(CALLER.identity);
    assert_eq!(flood.len(), 20 + 1 + 1, "{text}");
    assert_eq!((&flood[0]["policy"], &flood[0]["rule"]), (&"shop/no-deletes".into(), &"rules[2]".into()));
    assert_eq!((&flood[0]["event"], &flood[0]["request_id"]), (&"denied".into(), &"4242".into()));
    assert_eq!(
        (&flood[0]["reporter"], &flood[0]["page"]),
        (&"shop/web-1".into(), &"docs/codes/policy_denied.md".into())
    );
    assert_eq!(flood.last().unwrap()["left_out"], 980);
    let others = of(other.identity);
    assert_eq!(others.len(), 2);
    assert_eq!((&others[0]["reason"], &others[0]["detail"]), (&"policy_default_deny".into(), &detail.into()));
    assert_eq!((&others[1]["event"], &others[1]["rule"]), (&"would_be_denied".into(), &"rules[1]".into()));
    let strangers = lines.iter().filter(|line| line.get("subject").is_none()).count();
    assert_eq!(strangers + flood.len() + others.len(), lines.len());
    assert!((256..=500).contains(&strangers), "{strangers} lines of 1000 addresses");
}
