//! A request goes from the caller through both sidecars to the service and back, and nothing is lost on the way.

use http::{Method, Request};
use http_body_util::Full;
use selvedge_tests::{
    client::{self, Connection, request},
    pair::{HOST, Pair},
};

#[tokio::test]
async fn a_request_reaches_the_service_as_it_was_sent() {
    let pair = Pair::start().await;
    let mut asked = request(Method::POST, HOST, "/orders/7?sort=asc&x=%20");
    asked.headers_mut().insert("x-trace", "abc".parse().unwrap());
    *asked.body_mut() = Full::from("hello");
    pair.upstream.take_bodies();
    let answer = client::call(pair.entry(), asked).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("served-by")), (200, "api"));
    let seen = answer.json();
    assert_eq!((seen["method"].as_str(), seen["target"].as_str()), (Some("POST"), Some("/orders/7?sort=asc&x=%20")));
    assert_eq!((seen["bodyLength"].as_u64(), seen["version"].as_str()), (Some(5), Some("HTTP/1.1")));
    assert_eq!(pair.upstream.take_bodies(), ["hello"]);
    assert_eq!(header(&seen, "x-trace"), ["abc"]);
    assert_eq!(header(&seen, "host"), [HOST]);
}

#[tokio::test]
async fn the_original_protocol_is_restored_at_the_far_end() {
    let pair = Pair::start().await;
    let mut connection = Connection::open_http2(pair.entry()).await.unwrap();
    let answer = connection.call(request(Method::GET, HOST, "/two")).await.unwrap();
    let seen = answer.json();
    assert_eq!((seen["version"].as_str(), seen["authority"].as_str()), (Some("HTTP/2.0"), Some(HOST)));
    assert_eq!(pair.get("/one").await.json()["version"], "HTTP/1.1");
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let pair = Pair::start().await;
    let mut connection = Connection::open(pair.entry()).await.unwrap();
    for number in 0..50 {
        let answer = connection.call(request(Method::GET, HOST, &format!("/{number}"))).await.unwrap();
        assert_eq!(answer.json()["target"], format!("/{number}"));
    }
    assert!(connection.is_open());
}

#[tokio::test]
async fn hop_by_hop_fields_end_at_each_hop() {
    let pair = Pair::start().await;
    let asked = Request::get("/").header("host", HOST).header("connection", "x-secret").header("x-secret", "1");
    let asked = asked.header("keep-alive", "timeout=5").header("proxy-connection", "keep-alive").header("te", "gzip");
    let seen = client::call(pair.entry(), asked.body(Full::default()).unwrap()).await.unwrap().json();
    for name in ["x-secret", "keep-alive", "proxy-connection", "te"] {
        assert!(header(&seen, name).is_empty(), "{name} got through: {seen}");
    }
}

#[tokio::test]
async fn what_happened_is_counted_on_both_sides() {
    let pair = Pair::start().await;
    let good = ["response_code=\"200\""];
    let before = pair.web.metric("selvedge_requests_total", &good).await;
    for _ in 0..5 {
        pair.get("/counted").await;
    }
    for sidecar in [&pair.web, &pair.api] {
        sidecar.metrics().until("selvedge_requests_total", &good, before + 5.0).await;
    }
}

fn header<'a>(seen: &'a serde_json::Value, name: &str) -> Vec<&'a str> {
    let fields = seen["headers"].as_array().into_iter().flatten();
    fields.filter(|field| field[0] == name).filter_map(|field| field[1].as_str()).collect()
}
