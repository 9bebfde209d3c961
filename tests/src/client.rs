//! Callers: one request on a connection of its own, a connection kept for many, and raw bytes.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    pattern,
    wait::{DEADLINE, within},
};

/// A whole response, head and content.
#[derive(Debug)]
pub struct Answer {
    /// The status of the response (RFC 9110 section 15).
    pub status: StatusCode,
    /// The header section of the response, without trailers.
    pub headers: HeaderMap,
    /// All of its content, joined.
    pub body: Bytes,
    /// Trailer fields, empty when there are none.
    pub trailers: HeaderMap,
}

impl Answer {
    /// Reads a response to its end.
    pub async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Self { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header field as text, empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The reason code the sidecar gave.
    pub fn reason(&self) -> &str {
        self.header("selvedge-reason")
    }
}

/// What a call can end with when no answer came.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request, of any shape.
pub type Payload = UnsyncBoxBody<Bytes, Infallible>;

/// `body` in pieces, of no length that is told before, with these trailers.
pub fn in_pieces(body: Bytes, trailers: Option<HeaderMap>) -> Payload {
    let frames = pattern::pieces(body).map(Frame::data).chain(trailers.map(Frame::trailers));
    StreamBody::new(tokio_stream::iter(frames.map(Ok))).boxed_unsync()
}

/// A request without a body and with nothing but `Host: host`.
pub fn request(method: Method, host: &str, target: &str) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(target).header("host", host);
    builder.body(Full::default()).expect("a valid request")
}

/// `GET target` over HTTP/1 on a new connection, with the address as Host.
pub async fn get(address: SocketAddr, target: &str) -> Result<Answer, Failure> {
    call(address, request(Method::GET, &address.to_string(), target)).await
}

/// One request over HTTP/1 on a new connection.
pub async fn call(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
    Connection::open(address).await?.call(request).await
}

/// A connection that is kept.
pub enum Connection {
    /// HTTP/1.1.
    Http1(http1::SendRequest<Payload>),
    /// HTTP/2 with prior knowledge.
    Http2(http2::SendRequest<Payload>),
}

impl Connection {
    /// Opens an HTTP/1 connection.
    pub async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = connect(address).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(Self::Http1(sender))
    }

    /// Opens an HTTP/2 connection.
    pub async fn open_http2(address: SocketAddr) -> Result<Self, Failure> {
        Self::over_http2(connect(address).await?).await
    }

    /// Speaks HTTP/2 on a connection that is open.
    pub async fn over_http2(stream: TcpStream) -> Result<Self, Failure> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self::Http2(sender))
    }

    /// Sends `request` and waits for the response head. Over HTTP/2 the Host field becomes `:authority`.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        self.send_any(request.map(BodyExt::boxed_unsync)).await
    }

    /// Sends a request whose content may have any shape, and gives the response with its content still to come.
    pub async fn send_any(&mut self, request: Request<Payload>) -> Result<Response<Incoming>, Failure> {
        let answer = async {
            match self {
                Self::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Self::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(with_authority(request)).await
                }
            }
        };
        Ok(timeout(DEADLINE, answer).await??)
    }

    /// Sends `request` and reads the whole answer.
    pub async fn call(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        self.call_any(request.map(BodyExt::boxed_unsync)).await
    }

    /// Sends a request whose content may have any shape, and reads the whole response.
    pub async fn call_any(&mut self, request: Request<Payload>) -> Result<Answer, Failure> {
        let response = self.send_any(request).await?;
        Ok(timeout(DEADLINE, Answer::read(response)).await??)
    }

    /// False once the peer closed or announced to close the connection.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }
}

/// Moves Host into the URI, as HTTP/2 wants it (RFC 9113 section 8.3.1).
pub fn with_authority<B>(mut request: Request<B>) -> Request<B> {
    if let Some(host) = request.headers_mut().remove("host") {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let host = host.to_str().expect("a plain host");
        *request.uri_mut() = format!("http://{host}{target}").parse().expect("a valid URI");
    }
    request
}

/// A TCP connection, within the deadline.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(DEADLINE, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// True when something listens on `address`.
pub async fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

/// True when an HTTP request for anything is answered 200 there.
pub async fn answers(address: SocketAddr) -> bool {
    call(address, request(Method::GET, "api.shop", "/")).await.is_ok_and(|answer| answer.status == 200)
}

/// Sends `bytes` and returns everything that comes back until the peer closes or is silent for `patience`.
pub async fn exchange(address: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = match connect(address).await {
        Ok(stream) => stream,
        // It was taken, and broken off before anybody could look.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Vec::new(),
        Err(error) => panic!("no connection: {error}"),
    };
    // The peer may refuse and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(Ok(count @ 1..)) = timeout(patience, stream.read(&mut chunk)).await {
        answer.extend_from_slice(&chunk[..count]);
    }
    answer
}

/// Reads exactly as many bytes as `wanted` has and checks that they are the same.
pub async fn expect_bytes(stream: &mut TcpStream, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    within("reading from the peer", stream.read_exact(&mut got)).await.expect("the peer sends");
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(wanted));
}
