//! HTTP/1 bytes that two parties could read differently are refused before routing, with a reason, and the
//! service sees no request. Cases S1 to S47 of the catalogue in docs/testing.md, over raw sockets.

use std::{net::SocketAddr, time::Duration};

use selvedge_tests::{around::Around, client, pair::Pair, recorder::Recorder, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What must come of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Must {
    /// Refused with one of the statuses 400, 408, 413, 431, 501 or 505, or cut; nothing reaches the service.
    Refuse,
    /// Refused, or passed as exactly one request.
    RefuseOrOne,
    /// Answered 200, as this many requests.
    Pass(usize),
}

use Must::{Pass, Refuse, RefuseOrOne};

const PERMISSIVE: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: { name: permissive, namespace: shop }
spec: { mtls: { inbound: PERMISSIVE } }
";

const H: &str = "Host: api.shop\r\n";

fn post(head: &str, body: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\n{H}{head}\r\n{body}").into_bytes()
}

fn get(line: &str, head: &str) -> Vec<u8> {
    format!("{line}\r\n{head}\r\n").into_bytes()
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn framing() -> Vec<(&'static str, Vec<u8>, Must)> {
    let te = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n");
    let cl = |value: &str| post(&format!("Content-Length: {value}\r\n"), "x");
    vec![
        ("S1 CL and TE", post(&format!("Content-Length: 6\r\n{CHUNKED}"), "0\r\n\r\nX"), RefuseOrOne),
        ("S2 TE and CL", post(&format!("{CHUNKED}Content-Length: 4\r\n"), "0\r\n\r\nX"), RefuseOrOne),
        (
            "S3 TE identity, then chunked",
            post(&format!("Transfer-Encoding: identity\r\n{CHUNKED}"), "0\r\n\r\n"),
            Refuse,
        ),
        ("S4 TE gzip, chunked", te("gzip, chunked"), Refuse),
        ("S5 TE chunked twice", te("chunked, chunked"), Refuse),
        ("S6 TE leading comma", te(",chunked"), Refuse),
        ("S6 TE trailing comma", te("chunked,"), Refuse),
        ("S7 TE xchunked", te("xchunked"), Refuse),
        ("S7 TE vertical tab", te("\x0bchunked"), Refuse),
        ("S7 TE quoted", te("\"chunked\""), Refuse),
        ("S7 TE parameter", te("chunked;q=1"), Refuse),
        ("S8 space before colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), Refuse),
        ("S9 HTTP/1.0 and TE", format!("POST /x HTTP/1.0\r\n{H}{CHUNKED}\r\n0\r\n\r\n").into_bytes(), Refuse),
        (
            "S10 HTTP/1.0 without CL",
            format!("POST /x HTTP/1.0\r\n{H}\r\nGET /y HTTP/1.1\r\n{H}\r\n").into_bytes(),
            RefuseOrOne,
        ),
        ("S11 two CL", post("Content-Length: 1\r\nContent-Length: 2\r\n", "xx"), Refuse),
        ("S12 CL twice the same", post("Content-Length: 1\r\nContent-Length: 1\r\n", "x"), RefuseOrOne),
        ("S12 CL list", cl("1, 1"), RefuseOrOne),
        ("S13 CL plus", cl("+1"), Refuse),
        ("S13 CL minus", cl("-1"), Refuse),
        ("S13 CL hex", cl("0x1"), Refuse),
        ("S13 CL underscore", cl("1_0"), Refuse),
        ("S13 CL empty", cl(""), Refuse),
        ("S13 CL semicolon", cl("1;"), Refuse),
        ("S13 CL 20 digits", cl("99999999999999999999"), Refuse),
        ("S14 CL leading zero", post("Content-Length: 010\r\n", "0123456789"), Pass(1)),
        ("S29 Content_Length", post("Content_Length: 1\r\nContent-Length: 0\r\n", ""), Refuse),
        ("S30 Connection: content-length", post("Content-Length: 1\r\nConnection: content-length\r\n", "x"), Refuse),
        ("S30 Connection: host", post("Content-Length: 1\r\nConnection: host\r\n", "x"), Refuse),
        (
            "S30 Connection: transfer-encoding",
            post(&format!("{CHUNKED}Connection: transfer-encoding\r\n"), "0\r\n\r\n"),
            Refuse,
        ),
    ]
}

fn chunks() -> Vec<(&'static str, Vec<u8>, Must)> {
    let chunk = |body: &str| post(CHUNKED, body);
    vec![
        ("a good chunked body", chunk("3\r\nabc\r\n0\r\n\r\n"), Pass(1)),
        ("S15 size 0x1", chunk("0x1\r\na\r\n0\r\n\r\n"), RefuseOrOne),
        ("S15 size +1", chunk("+1\r\na\r\n0\r\n\r\n"), RefuseOrOne),
        ("S15 size 1z", chunk("1z\r\na\r\n0\r\n\r\n"), RefuseOrOne),
        ("S15 size of 17 digits", chunk("10000000000000001\r\na\r\n0\r\n\r\n"), RefuseOrOne),
        ("S16 bare LF after size", chunk("1\na\r\n0\r\n\r\n"), RefuseOrOne),
        ("S16 garbage after data", chunk("1\r\naXX0\r\n\r\n"), RefuseOrOne),
        ("S15 empty size", chunk("\r\na\r\n0\r\n\r\n"), RefuseOrOne),
        ("S16 bare LF after data", chunk("1\r\na\n0\r\n\r\n"), RefuseOrOne),
        ("S17 bare LF in an extension", chunk("1;a\nb\r\na\r\n0\r\n\r\n"), RefuseOrOne),
        ("S17 bare CR in an extension", chunk("1;a\rb\r\na\r\n0\r\n\r\n"), RefuseOrOne),
        ("S19 20 KB of extensions", chunk(&format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(20_000))), RefuseOrOne),
        ("S21 20 KB of trailers", chunk(&format!("0\r\nX: {}\r\n\r\n", "t".repeat(20_000))), RefuseOrOne),
        ("S18 extension with a quote", chunk("1;a=\"\r\nb\r\n0\r\n\r\n"), RefuseOrOne),
        ("S20 framing in trailers", chunk("1\r\na\r\n0\r\nContent-Length: 9\r\nHost: evil\r\n\r\n"), RefuseOrOne),
        ("S22 a request line as trailer", chunk("1\r\na\r\n0\r\nX:POST /evil HTTP/1.1\r\n\r\n"), RefuseOrOne),
    ]
}

fn heads() -> Vec<(&'static str, Vec<u8>, Must)> {
    let host = |value: &str| get("GET /x HTTP/1.1", &format!("Host: {value}\r\n"));
    let field = |line: &str| get("GET /x HTTP/1.1", &format!("{H}{line}\r\n"));
    let line = |line: &str| get(line, H);
    vec![
        ("a good request", line("GET /x HTTP/1.1"), Pass(1)),
        ("S24 first field begins with a space", get("GET /x HTTP/1.1", &format!(" X: 1\r\n{H}")), Refuse),
        ("S25 folded field", field("X: 1\r\n 2"), RefuseOrOne),
        ("S26 NUL in a value", field("X: a\0b"), Refuse),
        ("S26 bare CR in a value", field("X: a\rb"), Refuse),
        ("S26 vertical tab in a value", field("X: a\x0bb"), Refuse),
        ("S26 DEL in a value", field("X: a\x7fb"), Refuse),
        ("S27 bare LF line ends", b"GET /x HTTP/1.1\nHost: api.shop\n\n".to_vec(), RefuseOrOne),
        ("S28 no colon", field("nocolon"), Refuse),
        ("S28 empty name", field(": x"), Refuse),
        ("S28 space in a name", field("a b: x"), Refuse),
        ("S28 quote in a name", field("a\"b: x"), Refuse),
        (
            "S31 GET with a body",
            get("GET /x HTTP/1.1", &format!("{H}Content-Length: 2\r\n")).into_iter().chain(*b"xy").collect(),
            Pass(1),
        ),
        ("S38 no Host", get("GET /x HTTP/1.1", ""), Refuse),
        ("S39 two Hosts", get("GET /x HTTP/1.1", &format!("{H}Host: b\r\n")), Refuse),
        ("S39 the same Host twice", get("GET /x HTTP/1.1", &format!("{H}{H}")), Refuse),
        ("S40 Host with a space", host("a b"), Refuse),
        ("S40 Host with a slash", host("a/b"), Refuse),
        ("S40 Host with a query", host("a?b"), Refuse),
        ("S40 empty Host", host(""), Refuse),
        ("S40 Host with half an address", host("[::1"), Refuse),
        ("S40 Host with a large port", host("a:99999"), Refuse),
        ("S40 Host with two ports", host("a:80:80"), Refuse),
        ("S40 Host with a dot at its end", host("api.shop."), Pass(1)),
        ("S40 Host with two dots at its end", host("api.shop.."), Refuse),
        ("S40 Host with dots and a port", host("api.shop...:80"), Refuse),
        ("S40 Host with an empty label", host("api..shop"), Refuse),
        ("S40 Host with a dot at its start", host(".api.shop"), Refuse),
        ("S40 absolute form with two dots", get("GET http://api.shop../x HTTP/1.1", "Host: api.shop..\r\n"), Refuse),
        ("S40 CONNECT with two dots", get("CONNECT api.shop..:80 HTTP/1.1", "Host: api.shop..:80\r\n"), Refuse),
        ("S41 Host with userinfo", host("user@a"), Refuse),
        ("S42 absolute form against Host", get("GET http://b/a HTTP/1.1", H), RefuseOrOne),
        ("S43 another scheme", line("GET ftp://api.shop/ HTTP/1.1"), Refuse),
        ("S43 no slash", line("GET a HTTP/1.1"), Refuse),
        ("S43 GET *", line("GET * HTTP/1.1"), Refuse),
        ("S43 no path", get("GET api.shop:80 HTTP/1.1", "Host: api.shop:80\r\n"), Refuse),
        ("S44 two spaces", line("GET  /x HTTP/1.1"), Refuse),
        ("S44 space in the path", line("GET /x y HTTP/1.1"), Refuse),
        ("S44 lower-case version", line("GET /x http/1.1"), Refuse),
        ("S44 tab in the line", line("GET\t/x HTTP/1.1"), Refuse),
        ("S44 version 1.32", line("GET /x HTTP/1.32"), Refuse),
        ("S44 version 2.0", line("GET /x HTTP/2.0"), Refuse),
        ("S45 HTTP/0.9", b"GET /a\r\n\r\n".to_vec(), Refuse),
        ("S46 control byte in the method", line("G\x01T /x HTTP/1.1"), Refuse),
        ("S46 unknown method", line("BREW /x HTTP/1.1"), Pass(1)),
        ("a path that leaves the root", line("GET /x/../../y HTTP/1.1"), Pass(1)),
        ("NUL escaped in the path", line("GET /x%00y HTTP/1.1"), Pass(1)),
        ("a broken escape in the path", line("GET /x%zz HTTP/1.1"), RefuseOrOne),
        ("a fragment in the target", line("GET /x#y HTTP/1.1"), RefuseOrOne),
    ]
}

/// What must not be taken for another protocol where none is declared.
fn unusual() -> Vec<(&'static str, Vec<u8>, Must)> {
    let long_method = format!("{} /x HTTP/1.1", "M".repeat(200));
    vec![
        ("S47 empty lines first", get("\r\n\r\n\r\n\r\nGET /x HTTP/1.1", H), Pass(1)),
        ("S47 a long method", get(&long_method, H), Pass(1)),
        ("S47 a space first", get(" GET /x HTTP/1.1", H), Refuse),
        ("S47 tabs in the line", get("GET\t/x\tHTTP/1.1", H), Refuse),
        ("S47 vertical tabs in the line", get("GET\x0b/x\x0bHTTP/1.1", H), Refuse),
        ("S47 lower-case version", get("GET /x http/1.1", H), Refuse),
    ]
}

/// The statuses in `answer`, in order.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer).into_owned();
    let parts = text.split("HTTP/1.").skip(1).filter(|part| part.as_bytes().get(1) == Some(&b' '));
    parts.filter_map(|part| part.get(2..5)?.parse().ok()).collect()
}

/// The path that tells the requests of one case from those of another.
fn marked(bytes: &[u8], index: usize) -> Vec<u8> {
    let text: Vec<u8> = bytes.to_vec();
    let place = text.windows(3).position(|window| window == b" /x");
    let Some(place) = place else { return text };
    [&text[..place], format!(" /case-{index}-").as_bytes(), &text[place + 2..]].concat()
}

/// How the bytes of a case are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Delivery {
    /// In one segment.
    Whole,
    /// Byte by byte.
    Drip,
}

/// What came of a case: the statuses, and whether the sidecar closed the connection.
struct Outcome {
    statuses: Vec<u16>,
    closed: bool,
}

/// Sends the bytes of a case. A sidecar that refuses must close by itself; anything else is told that no more comes when
/// there is an answer: a caller that ends its side before has gone.
async fn send(address: SocketAddr, bytes: &[u8], delivery: Delivery, must: Must) -> Outcome {
    let mut stream = client::connect(address).await.unwrap();
    // The sidecar may refuse and close before it has been sent everything.
    match delivery {
        Delivery::Whole => drop(stream.write_all(bytes).await),
        Delivery::Drip => {
            for byte in bytes {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
    let mut answer = Vec::new();
    if must != Refuse {
        let wanted = if let Pass(count) = must { count } else { 1 };
        let _ = timeout(
            Duration::from_secs(if must == RefuseOrOne { 1 } else { 5 }),
            until_answered(&mut stream, &mut answer, wanted),
        )
        .await;
        let _ = stream.shutdown().await;
    }
    let closed = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.is_ok();
    Outcome { statuses: statuses(&answer), closed }
}

/// Reads until there are `wanted` whole answers of the service, or the end.
async fn until_answered(stream: &mut TcpStream, answer: &mut Vec<u8>, wanted: usize) {
    while statuses(answer).len() < wanted || !answer.ends_with(b"ok") {
        if !matches!(stream.read_buf(answer).await, Ok(1..)) {
            return;
        }
    }
}

/// Why the outcome of a case is wrong. When bytes come after the refusal, its status may be lost with the connection.
fn misfit(must: Must, delivery: Delivery, outcome: &Outcome, seen: usize) -> Option<String> {
    let Outcome { statuses, closed } = outcome;
    let refused = match &statuses[..] {
        [] => delivery == Delivery::Drip,
        [status] => matches!(status, 400 | 408 | 413 | 414 | 431 | 501 | 505),
        _ => false,
    };
    let fits = match must {
        Refuse => refused && seen == 0 && *closed,
        RefuseOrOne => seen <= 1 && statuses.len() <= 2 && *closed,
        Pass(count) => seen == count && *statuses == vec![200; count],
    };
    let wanted = format!("wanted {must:?}, answers {statuses:?}, requests at the service {seen}, closed {closed}");
    (!fits).then_some(wanted)
}

/// Sends every case to the caller's sidecar and, as a stranger would, to the application's; whole and in drips.
async fn run(cases: Vec<(&'static str, Vec<u8>, Must)>) {
    run_on("http", cases).await;
}

/// The same on a port with this `appProtocol`.
async fn run_on(protocol: &str, cases: Vec<(&'static str, Vec<u8>, Must)>) {
    let recorder = Recorder::start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let around = Around::start(recorder.address(), protocol).await;
    around.mesh.write("permissive.yaml", PERMISSIVE);
    let inside = around.api.inbound(8080);
    wait::until_true("strangers may call", || async move {
        client::get(inside, "/").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    recorder.take().await;
    let mut outcomes = Vec::new();
    for door in [around.entry(), inside] {
        for delivery in [Delivery::Whole, Delivery::Drip] {
            for (name, bytes, must) in &cases {
                let outcome = send(door, &marked(bytes, outcomes.len()), delivery, *must).await;
                outcomes.push((*name, delivery, *must, outcome));
            }
        }
    }
    // All cases are over when a request that came after them has been answered.
    assert_eq!(client::get(around.entry(), "/end").await.unwrap().status, 200);
    let record = recorder.take().await;
    let targets: Vec<&str> = record.requests.iter().filter_map(|request| request.head.split(' ').nth(1)).collect();
    let mut wrong = Vec::new();
    for (index, (name, delivery, must, outcome)) in outcomes.iter().enumerate() {
        let mark = format!("/case-{index}-");
        let seen = targets.iter().filter(|target| target.contains(&mark)).count();
        let problem = misfit(*must, *delivery, outcome, seen);
        wrong.extend(problem.map(|problem| format!("{name}, {delivery:?} ({index}): {problem}")));
    }
    assert!(wrong.is_empty(), "{} cases:\n  {}", wrong.len(), wrong.join("\n  "));
    let smuggled: Vec<&&str> = targets.iter().filter(|t| !t.contains("/case-") && **t != "/end").collect();
    assert!(smuggled.is_empty(), "requests nobody sent reached the service: {smuggled:?}");
    assert!(record.faults.is_empty(), "ambiguous bytes reached the service: {:#?}", record.faults);
}

#[tokio::test]
async fn contradictory_framing_is_refused() {
    run(framing()).await;
}

#[tokio::test]
async fn odd_chunks_never_become_a_second_request() {
    run(chunks()).await;
}

#[tokio::test]
async fn malformed_heads_are_refused() {
    run(heads()).await;
}

#[tokio::test]
async fn unusual_requests_are_requests_where_no_protocol_is_declared() {
    run_on("", unusual()).await;
}

#[tokio::test]
async fn oversized_heads_are_refused_with_431() {
    let pair = Pair::start_with("http", &[]).await;
    let served = pair.upstream.served();
    let large = get("GET /x HTTP/1.1", &format!("{H}X: {}\r\n", "a".repeat(300_000)));
    let many = get("GET /x HTTP/1.1", &format!("{H}{}", "X: 1\r\n".repeat(5000)));
    for (number, bytes) in [large, many].iter().enumerate() {
        let answer = client::exchange(pair.entry(), bytes, Duration::from_secs(2)).await;
        // What comes after the refusal may cost the caller the answer.
        let statuses = statuses(&answer);
        assert!(statuses.is_empty() || statuses == [431], "{statuses:?}");
        let reason = ["reason=\"headers_too_large\""];
        pair.web.metrics().until("selvedge_tcp_connections_closed_total", &reason, number as f64 + 1.0).await;
    }
    assert_eq!(pair.upstream.served(), served);
    assert_eq!(pair.get("/").await.status, 200);
}

#[tokio::test]
async fn a_refusal_names_its_reason_and_closes() {
    let pair = Pair::start_with("http", &[]).await;
    let answer = client::exchange(pair.entry(), &get("GET /x HTTP/1.1", "Host: a b\r\n"), wait::DEADLINE).await;
    let text = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(text.starts_with("http/1.1 400"), "{text}");
    assert!(text.contains("malformed_host") && text.contains("connection: close"), "{text}");
}

#[tokio::test]
async fn a_head_that_is_refused_unread_leaves_its_reason_in_the_log() {
    let pair = Pair::start_with("http", &[]).await;
    let te = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n");
    let cases = [
        (post("Content-Length: 1\r\nContent-Length: 2\r\n", "xx"), "malformed_framing"),
        (post("Content-Length: +1\r\n", "x"), "malformed_framing"),
        (format!("POST /x HTTP/1.0\r\n{H}{CHUNKED}\r\n0\r\n\r\n").into_bytes(), "malformed_framing"),
        (te("xchunked"), "unsupported_transfer_coding"),
        (get("GET /x HTTP/1.1", &format!("{H}nocolon\r\n")), "malformed_header"),
        (get("GET /x HTTP/1.7", H), "malformed_header"),
        (get("GE<T /x HTTP/1.1", H), "malformed_header"),
        (get("GET /<x> HTTP/1.1", H), "malformed_path"),
        (get("GET /?q=\"x\" HTTP/1.1", H), "malformed_path"),
        (get(&format!("GET /{} HTTP/1.1", "x".repeat(66_000)), H), "headers_too_large"),
    ];
    for (bytes, _) in &cases {
        client::exchange(pair.entry(), bytes, Duration::from_secs(2)).await;
    }
    let refused =
        |line: &serde_json::Value| line["http.request.method"].is_null() && !line["selvedge.reason"].is_null();
    let lines = wait::until("the refusals are logged", || async {
        let lines: Vec<_> = pair.web.access_log().into_iter().filter(refused).collect();
        (lines.len() >= cases.len()).then_some(lines)
    })
    .await;
    // Each was of a connection of its own, which any worker may have had.
    let mut logged: Vec<&str> = lines.iter().filter_map(|line| line["selvedge.reason"].as_str()).collect();
    let mut reasons = cases.map(|(_, reason)| reason);
    logged.sort_unstable();
    reasons.sort_unstable();
    assert_eq!(logged, reasons, "{lines:?}");
    assert!(
        lines.iter().all(|line| line["selvedge.detail"].as_str().is_some_and(|detail| detail.len() > 30)),
        "{lines:?}"
    );
    for reason in reasons {
        let counted = [&format!("reason=\"{reason}\"")[..], "destination_service=\"shop/api\""];
        let times = reasons.iter().filter(|other| **other == reason).count();
        pair.web.metrics().until("selvedge_tcp_connections_closed_total", &counted, times as f64).await;
    }
}
