//! The test doubles do what they say when nothing stands between caller and service.

use http::Method;
use selvedge_tests::{
    client::{self, Connection},
    load::{self, Load, Plan},
    ports::Reserved,
    upstream::{
        Scenario, Upstream,
        raw::{RawUpstream, Script},
    },
    wait::DEADLINE,
};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn an_upstream_describes_the_request_over_both_versions() {
    let upstream = Upstream::start("one").await;
    let answer = client::get(upstream.address(), "/a?b=c").await.unwrap();
    assert_eq!(
        (answer.json()["target"].as_str(), answer.json()["version"].as_str()),
        (Some("/a?b=c"), Some("HTTP/1.1"))
    );
    let mut connection = Connection::open_http2(upstream.address()).await.unwrap();
    let answer = connection.call(client::request(Method::GET, "web.shop", "/x")).await.unwrap();
    assert_eq!((answer.json()["authority"].as_str(), answer.header("served-by")), (Some("web.shop"), "one"));
    assert_eq!(upstream.served(), 2);
}

#[tokio::test]
async fn scenarios_play_and_end() {
    let upstream = Upstream::start("two").await;
    upstream.play(Scenario::Fail(2, 503));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client::get(upstream.address(), "/").await.unwrap().status.as_u16());
    }
    assert_eq!(statuses, [503, 503, 200]);
    upstream.play(Scenario::Close);
    assert!(client::get(upstream.address(), "/").await.is_err());
}

#[tokio::test]
async fn a_load_counts_and_names_what_failed() {
    let upstream = Upstream::start("three").await;
    let load = Load::start(&Plan::new(upstream.address(), "three", "/"), 2, load::ok);
    load.progress(20).await;
    upstream.play(Scenario::Fail(1, 500));
    load.progress(20).await;
    let outcome = load.stop().await;
    assert!(outcome.succeeded >= 40, "{outcome:?}");
    assert_eq!(outcome.failures.len(), 1, "{outcome:?}");
    outcome.assert_kept_its_connections();
}

#[tokio::test]
async fn a_load_counts_the_connections_that_are_closed_on_it() {
    let upstream = RawUpstream::start(Script::replies(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let load = Load::start(&Plan::new(upstream.address(), "four", "/"), 1, load::ok);
    load.progress(3).await;
    assert!(load.stop().await.reopened >= 2, "each answer ends its connection");
}

#[tokio::test]
async fn raw_services_greet_echo_and_reply() {
    let greeting = RawUpstream::start(Script::greets(b"220 hello\r\n")).await;
    let mut stream = client::connect(greeting.address()).await.unwrap();
    client::expect_bytes(&mut stream, b"220 hello\r\n").await;
    stream.write_all(b"quit").await.unwrap();
    client::expect_bytes(&mut stream, b"quit").await;
    assert_eq!(greeting.received().await, b"quit");
    let replying = RawUpstream::start(Script::replies(b"bye")).await;
    assert_eq!(client::exchange(replying.address(), b"x", DEADLINE).await, b"bye");
}

#[tokio::test]
async fn a_reserved_port_can_be_listened_on_again_and_again() {
    let port = Reserved::new();
    for _ in 0..3 {
        let listener = tokio::net::TcpListener::bind(port.address()).await.unwrap();
        assert!(client::accepts(port.address()).await);
        drop(listener);
    }
}
