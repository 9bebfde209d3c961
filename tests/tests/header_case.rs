//! The case of HTTP/1 field names and the reason phrase are kept, though sidecars do not speak HTTP/1 to each other.

use http::Method;
use selvedge_tests::{
    around::{Around, talk},
    client::{Connection, request},
    pair::{HOST, Pair},
    recorder::Recorder,
};
use tokio::net::TcpStream;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nX-Answer-CASE: 1\r\nETag: \"a\"\r\nlow: 1\r\nContent-Length: 2\r\n\r\nok";

struct Setting {
    recorder: Recorder,
    around: Around,
}

impl Setting {
    async fn start() -> Self {
        let recorder = Recorder::start(ANSWER).await;
        let around = Around::start(recorder.address(), "").await;
        recorder.take().await;
        Self { recorder, around }
    }

    /// The head of the only request that the service was sent.
    async fn head(&self) -> String {
        let record = self.recorder.take().await;
        assert_eq!(record.faults, [] as [String; 0]);
        assert_eq!(record.requests.len(), 1, "{record:?}");
        record.requests[0].head.clone()
    }
}

async fn exchange(stream: &mut TcpStream, bytes: &str, answers: usize) -> String {
    talk(stream, bytes.as_bytes(), "\r\n\r\nok", answers).await
}

#[tokio::test]
async fn names_arrive_as_they_were_written_in_both_directions() {
    let setting = Setting::start().await;
    let mut stream = setting.around.connect().await;
    let written = format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\nX-Weird-CASE: 1\r\nx-low: 2\r\nETag: 3\r\n\r\n");
    for _ in 0..2 {
        let answer = exchange(&mut stream, &written, 1).await;
        let head = setting.head().await;
        for line in ["Host: api.shop\r\n", "X-Weird-CASE: 1\r\n", "x-low: 2\r\n", "ETag: 3\r\n"] {
            assert!(head.contains(line), "{line:?} is not in {head}");
        }
        assert!(!head.to_lowercase().contains("selvedge-"), "{head}");
        for line in ["X-Answer-CASE: 1\r\n", "ETag: \"a\"\r\n", "low: 1\r\n", "Content-Length: 2\r\n"] {
            assert!(answer.contains(line), "{line:?} is not in {answer}");
        }
        assert!(!answer.to_lowercase().contains("selvedge-header-case"), "{answer}");
    }
    // The same connection, other names: nothing sticks to it.
    exchange(&mut stream, &format!("GET /b HTTP/1.1\r\nhost: {HOST}\r\nx-weird-case: 1\r\n\r\n"), 1).await;
    let head = setting.head().await;
    assert!(head.contains("x-weird-case: 1\r\n") && head.contains("host: api.shop\r\n"), "{head}");
}

#[tokio::test]
async fn the_reason_phrase_of_the_service_reaches_the_caller() {
    let answer = b"HTTP/1.1 200 As You Like It\r\nContent-Length: 2\r\n\r\nok";
    let around = Around::start(Recorder::start(answer).await.address(), "").await;
    let answer = exchange(&mut around.connect().await, &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 1).await;
    assert!(answer.starts_with("HTTP/1.1 200 As You Like It\r\n"), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_and_bodies_keep_their_names() {
    let setting = Setting::start().await;
    let mut stream = setting.around.connect().await;
    let one = format!("POST /1 HTTP/1.1\r\nHOST: {HOST}\r\nContent-LENGTH: 4\r\n\r\nbody");
    exchange(&mut stream, &one, 1).await;
    let head = setting.head().await;
    assert!(head.contains("HOST: ") && head.contains("Content-LENGTH: 4"), "{head}");
    let two = format!(
        "GET /1 HTTP/1.1\r\nHost: {HOST}\r\nX-ONE: 1\r\n\r\nGET /2 HTTP/1.1\r\nHost: {HOST}\r\nX-Two: 2\r\n\r\n"
    );
    exchange(&mut stream, &two, 2).await;
    let requests = setting.recorder.take().await.requests;
    assert!(requests[0].head.contains("X-ONE: 1\r\n") && requests[1].head.contains("X-Two: 2\r\n"), "{requests:?}");
}

#[tokio::test]
async fn nobody_but_a_sidecar_says_how_names_are_written() {
    let setting = Setting::start().await;
    let mut stream = setting.around.connect().await;
    let forged = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nselvedge-header-case: X-Y\r\nx-y: 1\r\n\r\n");
    exchange(&mut stream, &forged, 1).await;
    let head = setting.head().await;
    assert!(head.contains("x-y: 1\r\n") && !head.contains("selvedge-header-case"), "{head}");
}

#[tokio::test]
async fn http2_messages_are_left_alone() {
    let pair = Pair::start().await;
    let mut http2 = Connection::open_http2(pair.entry()).await.unwrap();
    let mut asked = request(Method::GET, HOST, "/");
    for (name, forged) in [("selvedge-header-case", "X-Y"), ("selvedge-original-version", "1.0")] {
        asked.headers_mut().insert(name, forged.parse().unwrap());
    }
    let seen = http2.call(asked).await.unwrap().text();
    assert!(seen.contains("HTTP/2.0") && !seen.contains("selvedge-"), "{seen}");
}
