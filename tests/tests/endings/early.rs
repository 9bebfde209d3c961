//! Answers that come before the request was read.

use std::{fs, net::SocketAddr, process::Command};

use selvedge_tests::{around::Around, client, long, pair::HOST, ports::Reserved, process::Process, program, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::service::{Ends, Play, Service};

/// How often each row is tried by `make test`.
const TRIES: usize = 10;
/// How often each is tried beside HAProxy, by `make attack`.
const LONG: usize = 400;

/// How a caller sends its upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// HTTP/1.1, with a length; it listens to the answer when all is written, or nothing more can be.
    Deaf,
    /// HTTP/1.1, with a length; it stops when the answer is there.
    Hears,
    /// As [`Caller::Hears`], in chunks.
    Chunks,
}

struct Row {
    what: &'static str,
    caller: Caller,
    upload: usize,
    play: Play,
}

const REFUSED: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\nConnection: close\r\n\r\nnever";
const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const fn row(
    what: &'static str,
    (caller, upload): (Caller, usize),
    (reads, says, ends): (usize, &'static [u8], Ends),
) -> Row {
    Row { what, caller, upload, play: Play { reads, says, ends } }
}

const ROWS: [Row; 9] = [
    row("says 413 and ends in order", (Caller::Deaf, 5 * MIB), (0, TOO_LARGE, Ends::SaysSo)),
    row("says 413 and ends in order", (Caller::Hears, 5 * MIB), (0, TOO_LARGE, Ends::SaysSo)),
    row("says 403 and closes", (Caller::Deaf, 5 * MIB), (0, REFUSED, Ends::Closes)),
    row("says 403 and closes", (Caller::Hears, 5 * MIB), (0, REFUSED, Ends::Closes)),
    row("says 403 and closes", (Caller::Chunks, 5 * MIB), (0, REFUSED, Ends::Closes)),
    row("says 403 to a small upload and closes", (Caller::Deaf, 128 * KIB), (0, REFUSED, Ends::Closes)),
    row("says 403 and resets", (Caller::Hears, 5 * MIB), (0, REFUSED, Ends::Resets)),
    row("reads 1 MiB of 100, says 403 and closes", (Caller::Hears, 100 * MIB), (MIB, REFUSED, Ends::Closes)),
    row("says 413 and reads the rest", (Caller::Deaf, 5 * MIB), (0, TOO_LARGE, Ends::ReadsOn)),
];

#[tokio::test]
async fn an_answer_that_comes_before_the_upload_was_read_arrives() {
    let service = Service::start(ROWS.iter().map(|row| row.play).collect()).await;
    let around = Around::start(service.address(), "http").await;
    let (entry, tries) = (around.entry(), tries());
    let haproxy = if tries.is_some() { Haproxy::start(service.address()).await } else { None };
    let mut wrong = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        let ours = statuses(entry, number, row, tries.unwrap_or(TRIES)).await;
        println!("{} ({:?}, {} KiB): {ours}", row.what, row.caller, row.upload / KIB);
        if ours.others > 0 || (haproxy.is_none() && ours.own < ours.tries) {
            wrong.push(format!("{} ({:?}): {ours}", row.what, row.caller));
        }
        if let Some(haproxy) = &haproxy {
            let theirs = statuses(haproxy.port.address(), number, row, ours.tries).await;
            println!("    HAProxy: {theirs}");
            if ours.is_rarer_than(&theirs) {
                wrong.push(format!("{} ({:?}): {ours}; HAProxy: {theirs}", row.what, row.caller));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for sidecar in [&around.web, &around.api] {
        for reason in ["upstream_reset", "upstream_protocol_error"] {
            let label = format!("reason=\"{reason}\"");
            sidecar.metrics().absent("selvedge_requests_total", &[&label]).await;
        }
    }
}

fn tries() -> Option<usize> {
    long::is_long().then_some(LONG)
}

/// What callers got.
struct Statuses {
    tries: usize,
    /// How often the service's own status came.
    own: usize,
    /// How often another did.
    others: usize,
}

impl std::fmt::Display for Statuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "its own status {} of {} times, another {} times", self.own, self.tries, self.others)
    }
}

impl Statuses {
    /// Whether the service's own status came less often than there, by more than chance explains in one of twenty cases.
    fn is_rarer_than(&self, other: &Self) -> bool {
        let share = |statuses: &Self| statuses.own as f64 / statuses.tries as f64;
        let variance = |statuses: &Self| share(statuses) * (1.0 - share(statuses)) / statuses.tries as f64;
        share(other) - share(self) > 1.96 * (variance(self) + variance(other)).sqrt()
    }
}

/// Uploads again and again.
async fn statuses(entry: SocketAddr, number: usize, row: &Row, tries: usize) -> Statuses {
    let wanted = std::str::from_utf8(&row.play.says[9..12]).expect("a status").parse::<u16>().expect("a number");
    let content = vec![b'x'; row.upload];
    let mut statuses = Statuses { tries, own: 0, others: 0 };
    for _ in 0..tries {
        match wait::within("an upload", upload(entry, number, row.caller, &content)).await {
            Some(status) if status == wanted => statuses.own += 1,
            Some(_) => statuses.others += 1,
            None => {}
        }
    }
    statuses
}

/// The status of the answer to one upload.
async fn upload(entry: SocketAddr, number: usize, caller: Caller, content: &[u8]) -> Option<u16> {
    let stream = client::connect(entry).await.ok()?;
    let (mut reading, mut writing) = stream.into_split();
    let framing = match caller {
        Caller::Chunks => "Transfer-Encoding: chunked".to_owned(),
        _ => format!("Content-Length: {}", content.len()),
    };
    let head = format!("POST /{number} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{framing}\r\n\r\n");
    let sending = async move {
        writing.write_all(head.as_bytes()).await?;
        for piece in content.chunks(64 * KIB) {
            if caller == Caller::Chunks {
                writing.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            }
            writing.write_all(piece).await?;
            if caller == Caller::Chunks {
                writing.write_all(b"\r\n").await?;
            }
        }
        std::io::Result::Ok(writing)
    };
    let mut answer = Vec::new();
    if caller == Caller::Deaf {
        let _writing = sending.await;
        let _ = reading.read_to_end(&mut answer).await;
    } else {
        tokio::select! {
            _ = reading.read_to_end(&mut answer) => {}
            _ = async { let _writing = sending.await; std::future::pending::<()>().await } => {}
        }
    }
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

/// The witness.
struct Haproxy {
    port: Reserved,
    _folder: tempfile::TempDir,
    _process: Process,
}

impl Haproxy {
    async fn start(service: SocketAddr) -> Option<Self> {
        let program = program("haproxy")?;
        let (port, folder) = (Reserved::new(), tempfile::tempdir().expect("a folder"));
        let config = format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             frontend callers\n  bind {}\n  default_backend service\nbackend service\n  server one {service}\n",
            port.address()
        );
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, config).expect("a file");
        let process = Process::start("haproxy", Command::new(program).arg("-db").arg("-f").arg(&file), folder.path());
        let address = port.address();
        wait::until_true("HAProxy answers", || client::answers(address)).await;
        Some(Self { port, _folder: folder, _process: process })
    }
}
