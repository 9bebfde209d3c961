//! Heads of answers that one parser reads and another writer might not write: each is passed on or answered 502 for a reason.

use selvedge_tests::{around::Around, client, pair::HOST, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::service::{Ends, Play, Service};

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    /// It goes on, with this status and content.
    Passed(u16, &'static str),
    /// 502, because it is no answer that can go on.
    Refused,
    /// 502, because there was none.
    Nothing,
}

use Told::{Nothing, Passed, Refused};

const TABLE: [(&str, Told); 31] = [
    ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", Refused),
    ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Passed(200, "hi")),
    ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Passed(200, "hi")),
    ("HTTP/1.1 199 Odd\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Passed(200, "hi")),
    ("HTTP/1.1 199 Odd\r\nContent-Length: 2\r\n\r\n", Nothing),
    ("HTTP/1.1 204 No Content\r\n\r\n", Passed(204, "")),
    ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Passed(204, "")),
    ("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nhi", Passed(204, "")),
    ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Passed(204, "")),
    ("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", Passed(205, "")),
    ("HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", Passed(304, "")),
    ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", Passed(304, "")),
    ("HTTP/1.1 299 \r\nContent-Length: 2\r\n\r\nhi", Passed(299, "hi")),
    ("HTTP/1.1 600 Beyond\r\nContent-Length: 2\r\n\r\nhi", Passed(600, "hi")),
    ("HTTP/1.1 999 Denied\r\nContent-Length: 2\r\n\r\nhi", Passed(999, "hi")),
    ("HTTP/1.1 099 Early\r\nContent-Length: 2\r\n\r\nhi", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi", Passed(200, "hi")),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", Passed(200, "hi")),
    ("HTTP/1.1 200 OK\r\nContent-Length: 002\r\n\r\nhi", Passed(200, "hi")),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nhi", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nhi", Refused),
    ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhi", Refused),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Passed(200, "hi"),
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi", Refused),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Refused),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Refused),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Refused),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Refused,
    ),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Refused),
    (
        "HTTP/1.1 200 OK\r\nConnection: close, content-length\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nhi",
        Passed(200, "hi"),
    ),
];

/// A head with so many KiB of fields.
fn long(kib: usize) -> String {
    let field = format!("X-Long: {}\r\n", "x".repeat(1000));
    format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nhi", field.repeat(kib))
}

#[tokio::test]
async fn every_head_of_an_answer_is_passed_on_or_refused_for_a_reason() {
    let mut rows: Vec<(&str, Told)> = TABLE.to_vec();
    rows.extend([(long(60).leak() as &str, Passed(200, "hi")), (long(70).leak(), Refused), (long(90).leak(), Refused)]);
    let plays = rows.iter().map(|(says, _)| Play { reads: 0, says: says.as_bytes(), ends: Ends::SaysSo });
    let service = Service::start(plays.collect()).await;
    let around = Around::start(service.address(), "http").await;
    let mut wrong = Vec::new();
    for (number, (says, wanted)) in rows.iter().enumerate() {
        let answer = wait::within("an answer", ask(&around, number)).await;
        if told(&answer) != Some(*wanted) {
            let says = says.get(..120).unwrap_or(says);
            wrong.push(format!("{number}: {says:?} was told as {:?}", answer.get(..300).unwrap_or(&answer)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (reason, wanted) in [("upstream_protocol_error", Refused), ("upstream_reset", Nothing)] {
        let count = rows.iter().filter(|(_, told)| *told == wanted).count() as f64;
        for sidecar in [&around.web, &around.api] {
            let labels = [&*format!("reason=\"{reason}\""), "response_code=\"502\""];
            sidecar.metrics().until("selvedge_requests_total", &labels, count).await;
        }
    }
    for sidecar in [&around.web, &around.api] {
        for (number, (says, wanted)) in rows.iter().enumerate() {
            if matches!(wanted, Refused) {
                let path = format!("/{number}");
                let line = wait::until("a refused answer is logged", || async {
                    sidecar.access_log().into_iter().find(|line| line["url.path"] == path.as_str())
                })
                .await;
                let detail = line["selvedge.detail"].as_str().unwrap_or_default();
                assert!(!detail.is_empty(), "{says:?} is logged without a word: {line}");
            }
        }
    }
    // The connection between the sidecars has survived all of it.
    around.api.metrics().absent("selvedge_tcp_connections_closed_total", &["protocol=\"frames\""]).await;
}

async fn ask(around: &Around, number: usize) -> String {
    let mut stream = client::connect(around.entry()).await.expect("a connection");
    let head = format!("GET /{number} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("the sidecar reads");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// What an answer tells; `None` where it is neither.
fn told(answer: &str) -> Option<Told> {
    let (head, content) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let reason = head.lines().find_map(|line| line.strip_prefix("selvedge-reason: "));
    match (status, reason) {
        (502, Some("upstream_protocol_error")) => Some(Refused),
        (502, Some("upstream_reset")) => Some(Nothing),
        (_, Some(_)) => None,
        (_, None) if content.is_empty() => Some(Passed(status, "")),
        (_, None) if content == "hi" || content == "2\r\nhi\r\n0\r\n\r\n" => Some(Passed(status, "hi")),
        _ => None,
    }
}
