//! An HTTP/1 service that takes down every byte it is sent and is stricter about framing than any parser should be:
//! what it would have to guess about is a fault of whoever sent it.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinHandle,
};

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Start line and fields, with every line end as sent and without the empty line.
    pub head: String,
    /// The body without its framing.
    pub body: Vec<u8>,
}

/// All that came to a recorder so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Requests in the order of their ends.
    pub requests: Vec<Recorded>,
    /// Whatever was ambiguous, and bytes that belong to no request.
    pub faults: Vec<String>,
}

/// A service that runs until it is dropped, and notes what comes.
pub struct Recorder {
    address: SocketAddr,
    record: Arc<Mutex<Record>>,
    accepting: JoinHandle<()>,
}

impl Recorder {
    /// Starts it on an ephemeral port; it answers every request with `answer` and keeps the connection.
    pub async fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an ephemeral port");
        let address = listener.local_addr().expect("the bound address");
        let record = Arc::<Mutex<Record>>::default();
        let shared = record.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer, shared.clone()));
            }
        });
        Self { address, record, accepting }
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything since the last call.
    pub async fn take(&self) -> Record {
        std::mem::take(&mut *self.record.lock().await)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, answer: &'static [u8], record: Arc<Mutex<Record>>) {
    let mut stream = BufReader::new(stream);
    loop {
        match request(&mut stream).await {
            Ok(Some(request)) => record.lock().await.requests.push(request),
            // A request that breaks off is cut short by its sender, and no fault.
            Ok(None) => return,
            Err(fault) => return record.lock().await.faults.push(fault),
        }
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// The next request; `None` when the connection ends before its end.
async fn request(stream: &mut BufReader<TcpStream>) -> Result<Option<Recorded>, String> {
    let mut head = String::new();
    loop {
        let Some(line) = line(stream).await? else { return Ok(None) };
        if line.is_empty() {
            break;
        }
        head.push_str(&line);
        head.push_str("\r\n");
    }
    let body = match framing(&head)? {
        Framing::Length(length) => sized(stream, length).await?,
        Framing::Chunked => chunked(stream).await?,
    };
    Ok(body.map(|body| Recorded { head, body }))
}

enum Framing {
    Length(usize),
    Chunked,
}

/// How the body ends: one Content-Length in plain digits, or `Transfer-Encoding: chunked`, or no body.
fn framing(head: &str) -> Result<Framing, String> {
    let start = head.lines().next().unwrap_or_default();
    if !start.ends_with(" HTTP/1.1") || start.split(' ').count() != 3 {
        return Err(format!("an odd request line: {start:?}"));
    }
    let values = |wanted: &str| -> Vec<String> {
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned()).collect()
    };
    if values("host").len() != 1 {
        return Err(format!("not exactly one Host: {head:?}"));
    }
    match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            length.parse().map(Framing::Length).map_err(|error| format!("{length}: {error}"))
        }
        ([], [coding]) if coding == "chunked" => Ok(Framing::Chunked),
        (lengths, codings) => Err(format!("Content-Length {lengths:?} with Transfer-Encoding {codings:?}")),
    }
}

/// One line without its CRLF; `None` when the connection ends.
async fn line(stream: &mut BufReader<TcpStream>) -> Result<Option<String>, String> {
    let mut bytes = Vec::new();
    if stream.read_until(b'\n', &mut bytes).await.is_err() || !bytes.ends_with(b"\n") {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match text.strip_suffix("\r\n") {
        Some(line) if !line.contains(['\r', '\0']) => Ok(Some(line.to_owned())),
        _ => Err(format!("an odd line: {text:?}")),
    }
}

async fn sized(stream: &mut BufReader<TcpStream>, length: usize) -> Result<Option<Vec<u8>>, String> {
    let mut body = vec![0; length];
    Ok(stream.read_exact(&mut body).await.is_ok().then_some(body))
}

async fn chunked(stream: &mut BufReader<TcpStream>) -> Result<Option<Vec<u8>>, String> {
    let mut body = Vec::new();
    loop {
        let Some(size) = line(stream).await? else { return Ok(None) };
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("an odd chunk size: {size:?}"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|error| format!("{size}: {error}"))?;
        if size == 0 {
            break;
        }
        let Some(chunk) = sized(stream, size).await? else { return Ok(None) };
        body.extend(chunk);
        match line(stream).await? {
            Some(end) if end.is_empty() => {}
            Some(end) => return Err(format!("{end:?} after a chunk")),
            None => return Ok(None),
        }
    }
    loop {
        match line(stream).await? {
            Some(trailer) if trailer.is_empty() => return Ok(Some(body)),
            Some(_) => {}
            None => return Ok(None),
        }
    }
}
