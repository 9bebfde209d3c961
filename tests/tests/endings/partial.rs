//! Answers that break off.

use std::{net::SocketAddr, time::Duration};

use http::Method;
use http_body_util::BodyExt as _;
use selvedge_tests::{
    around::Around,
    client::{self, Connection},
    frames::{DATA, END_HEADERS, HEADERS, RST_STREAM, SETTINGS, frame, parse},
    mesh::Sidecar,
    pair::HOST,
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::service::{Ends, Play, Service};

struct Row {
    what: &'static str,
    /// What the caller speaks.
    version: &'static str,
    head: &'static str,
    content: Vec<u8>,
    ends: Ends,
    /// The caller is told by a reset, where it would take the end of the connection for the end of the answer.
    resets: bool,
    caller: Caller,
}

/// What the caller does besides reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Asks,
    /// It uploads more than anybody reads.
    Uploads,
    /// It begins to read late.
    Dawdles,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const MIB: usize = 1 << 20;
const OF_TEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const OF_MANY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n";

fn rows() -> Vec<Row> {
    let row = |what, version, (head, content): (_, &[u8]), ends, resets| Row {
        what,
        version,
        head,
        content: content.to_vec(),
        ends,
        resets,
        caller: Caller::Asks,
    };
    let by = |caller, row| Row { caller, ..row };
    let half = vec![b'h'; MIB];
    let mut rows = vec![
        row("4 bytes of 10, then the end", "1.1", (OF_TEN, b"half"), Ends::Closes, false),
        row("4 bytes of 10, then a reset", "1.1", (OF_TEN, b"half"), Ends::Resets, false),
        row("a head for 10 bytes, then the end", "1.1", (OF_TEN, b""), Ends::Closes, false),
        row("a chunk, then the end", "1.1", (CHUNKS, b"4\r\nhalf\r\n"), Ends::Closes, false),
        row("4 bytes of 10, then the end", "1.0", (OF_TEN, b"half"), Ends::Closes, false),
        row("a chunk, then the end", "1.0", (CHUNKS, b"4\r\nhalf\r\n"), Ends::Closes, true),
        by(
            Caller::Uploads,
            row("4 bytes of 10 to an upload, then the end", "1.1", (OF_TEN, b"half"), Ends::Closes, false),
        ),
        by(
            Caller::Uploads,
            row("a chunk to an upload, then the end", "1.1", (CHUNKS, b"4\r\nhalf\r\n"), Ends::Closes, false),
        ),
    ];
    let size = format!("{MIB:x}\r\n");
    let chunk = [size.as_bytes(), &half, b"\r\n"].concat();
    rows.push(by(Caller::Dawdles, row("a chunk of 1 MiB, then the end", "1.0", (CHUNKS, &chunk), Ends::SaysSo, true)));
    // The sidecars learn that answers are long, and change the wire between them.
    rows.extend((0..12).map(|_| row("1 MiB of 2, then the end", "1.1", (OF_MANY, &half), Ends::SaysSo, false)));
    rows
}

#[tokio::test]
async fn what_was_received_of_an_answer_goes_on_before_its_error() {
    let rows = rows();
    let says = |row: &Row| [row.head.as_bytes(), &row.content].concat().leak() as &[u8];
    let plays = rows.iter().map(|row| Play { reads: 0, says: says(row), ends: row.ends });
    let service = Service::start(plays.collect()).await;
    let around = Around::start(service.address(), "http").await;
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        if let Some(fault) = wait::within(row.what, fault(&around, number, row)).await {
            wrong.push(format!("{number}: {} to HTTP/{}: {fault}", row.what, row.version));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for number in 0..rows.len() {
        is_told(&around.web, number).await;
        is_told(&around.api, number).await;
    }
}

impl Row {
    /// The content without its framing.
    fn wanted(&self) -> &[u8] {
        match self.head {
            CHUNKS => &self.content[self.content.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1)..][..],
            _ => &self.content,
        }
    }
}

/// What of the answer is not as it should be.
async fn fault(around: &Around, number: usize, row: &Row) -> Option<String> {
    let (status, content, ended) = over_http1(around, number, row).await;
    // In chunks, as they were written, or without them.
    let unframed = row.wanted().strip_suffix(b"\r\n").unwrap_or(row.wanted());
    let wanted = if row.version == "1.1" { &row.content[..] } else { unframed };
    if status != "200" {
        return Some(format!("the status is {status:?}, and it ended with {ended:?}"));
    }
    if content != wanted {
        return Some(format!("{} bytes of content for {}", content.len(), wanted.len()));
    }
    (ended.is_some() != row.resets).then(|| format!("it ended with {ended:?}"))
}

/// The status, the content, and the error with which it ended.
type Got = (String, Vec<u8>, Option<String>);

async fn over_http1(around: &Around, number: usize, row: &Row) -> Got {
    const UPLOAD: usize = 5 * MIB;
    let stream = client::connect(around.entry()).await.expect("a connection");
    let (mut reading, mut writing) = stream.into_split();
    let (method, length) = if row.caller == Caller::Uploads { ("POST", UPLOAD) } else { ("GET", 0) };
    let mut request = format!("{method} /{number} HTTP/{}\r\nHost: {HOST}\r\n", row.version).into_bytes();
    if length > 0 {
        request.extend(format!("Content-Length: {length}\r\n").into_bytes());
    }
    request.extend(b"\r\n");
    request.resize(request.len() + length, b'x');
    let upload = tokio::spawn(async move {
        // Who answers early does not read all of it.
        let _ = writing.write_all(&request).await;
        writing
    });
    if row.caller == Caller::Dawdles {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut answer = Vec::new();
    let ended = reading.read_to_end(&mut answer).await;
    upload.abort();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |end| end + 4);
    let status = String::from_utf8_lossy(&answer[..end]).split(' ').nth(1).unwrap_or_default().to_owned();
    (status, answer[end..].to_vec(), ended.err().map(|error| error.to_string()))
}

/// A service of HTTP/2 that answers with a head, and with `content` where there is some, and takes that back at once.
async fn breaking_off(content: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an ephemeral port");
    let address = listener.local_addr().expect("the bound address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut answered) = (Vec::new(), 0);
                let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
                while stream.read_buf(&mut read).await.is_ok_and(|length| length > 0) {
                    let after = read.strip_prefix(PREFACE).unwrap_or_default();
                    let asked: Vec<u32> = parse(after).iter().filter(|f| f.kind == HEADERS).map(|f| f.stream).collect();
                    for id in &asked[answered..] {
                        // `:status: 200`
                        let head = frame(HEADERS, END_HEADERS, *id, b"\x88");
                        let data = if content.is_empty() { Vec::new() } else { frame(DATA, 0, *id, content) };
                        let reset = frame(RST_STREAM, 0, *id, &[0, 0, 0, 2]);
                        let _ = stream.write_all(&[head, data, reset].concat()).await;
                    }
                    answered = asked.len();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn so_it_does_over_http2() {
    for content in [&b"half"[..], b""] {
        let around = Around::launch(breaking_off(content).await, "http").await;
        let entry = around.entry();
        let first = || async move { over_http2(entry).await.filter(|(status, _)| *status == 200) };
        wait::until("a request gets through", first).await;
        for n in 0..50 {
            let (status, got) = over_http2(entry).await.expect("an answer");
            assert_eq!((status, got.as_slice()), (200, content), "try {n}");
        }
    }
}

/// The status and the content of an answer over HTTP/2 that ends with an error.
async fn over_http2(entry: SocketAddr) -> Option<(u16, Vec<u8>)> {
    let mut connection = Connection::open_http2(entry).await.ok()?;
    let response = connection.send(client::request(Method::GET, HOST, "/")).await.ok()?;
    let (status, mut body, mut content) = (response.status().as_u16(), response.into_body(), Vec::new());
    while let Some(Ok(frame)) = body.frame().await {
        content.extend(frame.into_data().unwrap_or_default());
    }
    Some((status, content))
}

/// Waits until a sidecar has said that this answer broke off.
async fn is_told(sidecar: &Sidecar, number: usize) {
    let path = format!("/{number}");
    let line = wait::until("an answer that broke off is logged", || async {
        sidecar.access_log().into_iter().find(|line| line["url.path"] == path.as_str())
    })
    .await;
    assert_eq!(line["selvedge.reason"], "upstream_reset", "{line}");
    assert!(line["selvedge.detail"].as_str().is_some_and(|detail| detail.contains("broke off")), "{line}");
}
