//! Path and query reach the service byte for byte where no policy of its looks at paths: keys of S3, names of npm, RabbitMQ
//! and GitLab, and whatever else applications write there. Over HTTP/1, HTTP/2 and whatever sidecars speak to each other;
//! also where callers have a route, which sees the canonical form.

use std::net::SocketAddr;

use http::Method;
use http_body_util::Full;
use selvedge_tests::{
    around::{Around, talk_to_the_end},
    client::{self, Connection, request},
    pair::{HOST, Pair},
    recorder::Recorder,
    wait,
};

/// Targets by what sends them.
const TARGETS: &[(&str, &[&str])] = &[
    (
        "S3",
        &[
            "/bucket/logs//day",
            "/bucket//lead",
            "/bucket/a/../b",
            "/bucket/./x",
            "/bucket/../x",
            "/bucket/trail/",
            "/bucket/trail//",
            "/bucket/a%20b+c",
            "/bucket/a%2Bb",
            "/bucket/%E2%82%AC%7E~",
            "/bucket/a%2fb%2Fc",
            "/bucket/key;v=1",
            "/bucket/a=b&c",
            "/bucket/100%25",
            "/bucket?list-type=2&prefix=logs//&delimiter=%2F&continuation-token=1%2Bx%3D%3D",
        ],
    ),
    ("npm", &["/@scope%2fpkg", "/@scope/pkg", "/%40scope%2Fpkg", "/-/package/@scope%2fpkg/dist-tags"]),
    ("RabbitMQ", &["/api/queues/%2F/q", "/api/queues/%2f/a%2Fb", "/api/exchanges/%2F/amq.default/publish"]),
    ("GitLab", &["/api/v4/projects/ns%2Fproj", "/api/v4/projects/ns%2Fproj/repository/files/a%2Fb%2Erb/raw?ref=x%2Fy"]),
    (
        "proxies of URLs",
        &["/proxy/http://example.com/a", "/proxy/http:%2F%2Fexample.com/a", "/fetch?u=http://a//b/../c"],
    ),
    (
        "others",
        &[
            "/caf%E9",
            "/caf%c3%a9",
            "/a%0Ab",
            "/%00",
            "/%7e/%41",
            "/a;jsessionid=1/b;c",
            "/..;/x",
            "/a\\b",
            "/a%5Cb",
            "/100%",
            "/%zz/%4",
            "/a|b{c}\"[d]^",
            "/?",
            "/??a=/?b",
            "/a?b=%&c=%zz;d=[e]|{f}^`\\",
            "/caf\u{e9}?q=caf\u{e9}",
            "//",
            "///a",
            "//evil.test/a",
            "/.",
            "/a/..",
        ],
    ),
];

fn targets() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().flat_map(|(_, targets)| targets.iter().copied())
}

/// Asks for every target over raw HTTP/1, and says which the service was asked for otherwise.
async fn changed(entry: SocketAddr, recorder: &Recorder) -> Vec<String> {
    let mut changed = Vec::new();
    for target in targets() {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let answer = talk_to_the_end(&mut client::connect(entry).await.unwrap(), bytes.as_bytes()).await;
        let record = recorder.take().await;
        let start = record.requests.first().and_then(|request| request.head.lines().next()).unwrap_or_default();
        if start != format!("GET {target} HTTP/1.1") {
            changed.push(format!("{target} arrived as '{start}': {}", answer.lines().next().unwrap_or_default()));
        }
    }
    changed
}

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: api, namespace: shop }
spec:
  parentRefs: [{ kind: Service, name: api, group: '' }]
  rules:
    - { name: files, matches: [{ path: { value: /bucket } }] }
    - { name: rest }
";

#[tokio::test]
async fn targets_of_http1_arrive_as_they_were_sent_also_where_routes_look_at_them() {
    let recorder = Recorder::start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let around = Around::start(recorder.address(), "http").await;
    recorder.take().await;
    assert_eq!(changed(around.entry(), &recorder).await, [""; 0]);

    around.mesh.write("route.yaml", ROUTE);
    let (routed, entry) = (["route=\"shop/api/files\""], around.entry());
    let named = |target: &'static str| async move {
        client::call(entry, request(Method::GET, HOST, target)).await.is_ok_and(|answer| answer.status == 200)
    };
    let web = &around.web;
    wait::until_true("the route is in force", || async move {
        named("/x/../bucket/key").await && web.metrics().so_far("selvedge_requests_total", &routed).await > 0.0
    })
    .await;
    recorder.take().await;
    assert_eq!(changed(around.entry(), &recorder).await, [""; 0]);
}

#[tokio::test]
async fn targets_of_http2_arrive_as_they_were_sent() {
    let pair = Pair::start().await;
    let mut connection = Connection::open_http2(pair.entry()).await.unwrap();
    let mut changed = Vec::new();
    for target in targets() {
        let answer = connection.call(request(Method::GET, HOST, target)).await.unwrap();
        if answer.json()["target"] != target {
            changed.push(format!("{target}: {} {}", answer.status, answer.text()));
        }
    }
    assert_eq!(changed, [""; 0]);
}

#[tokio::test]
async fn targets_of_bulk_requests_arrive_as_they_were_sent() {
    let pair = Pair::start().await;
    let mut connection = Connection::open(pair.entry()).await.unwrap();
    for target in ["/bucket/logs//day", "/bucket/a/../b", "/@scope%2fpkg", "/api/queues/%2F/q", "/caf%E9"] {
        let mut asked = request(Method::PUT, HOST, target);
        *asked.body_mut() = Full::from(vec![b'x'; 300 * 1024]);
        let answer = connection.call(asked).await.unwrap();
        assert_eq!(answer.json()["target"], target, "{}", answer.text());
    }
}
