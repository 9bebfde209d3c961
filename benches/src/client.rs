//! The client: connections that are kept, and requests like those of a browser or a service behind a gateway.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use crate::application::{SMALL, message};

/// Host of every request.
pub const HOST: &str = "api.bench";
/// Path of the gRPC method.
pub const METHOD: &str = "/bench.Echo/Call";
/// Bytes of the message that a gRPC call sends; [`SMALL`] come back.
pub const SENT: usize = 128;
/// Header fields that make a request one of gRPC.
pub const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// Header fields of every request: about 500 bytes, as much as a logged-in user's browser adds.
pub const FIELDS: [(&str, &str); 9] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "application/json,text/plain;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    (
        "authorization",
        "Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJlc2lnbmF0dXJl",
    ),
    ("cookie", "session=4f9a8d6c2b1e4f9a8d6c2b1e4f9a8d6c; theme=dark; consent=necessary"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("x-request-id", "7d5d7c0a-5b8e-4f0e-9a3f-0c6e1f2d3b4a"),
    ("x-tenant", "acme"),
    ("cache-control", "no-cache"),
];

const PATIENCE: Duration = Duration::from_secs(10);

/// What a client asks for, and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The small answer, over HTTP/1.
    Http1,
    /// The small answer, over HTTP/2.
    Http2,
    /// A unary call of gRPC with a message as small.
    Grpc,
}

/// One kept connection; over HTTP/2 it can be cloned to share it.
pub struct Connection {
    ask: Ask,
    sender: Sender,
}

enum Sender {
    /// For one request at a time.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// For many.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Connects, to ask for this; the task drives the connection and ends with it.
    pub async fn open(address: SocketAddr, ask: Ask) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let socket = timeout(PATIENCE, TcpStream::connect(address)).await.context("connecting")??;
        socket.set_nodelay(true)?;
        let io = TokioIo::new(socket);
        let (sender, task) = if ask == Ask::Http1 {
            let (sender, connection) = http1::Builder::new().title_case_headers(true).handshake(io).await?;
            (Sender::Http1(sender), tokio::spawn(async { drop(connection.await) }))
        } else {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            (Sender::Http2(sender), tokio::spawn(async { drop(connection.await) }))
        };
        Ok((Self { ask, sender }, task))
    }

    /// Another handle of this HTTP/2 connection; `None` for HTTP/1.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Self { ask: self.ask, sender: Sender::Http2(sender.clone()) }),
        }
    }

    /// Asks for the answer and checks it.
    pub async fn get(&mut self) -> anyhow::Result<()> {
        let response = timeout(PATIENCE, self.send()).await.context("no answer")??;
        let status = response.status();
        let answer = timeout(PATIENCE, response.into_body().collect()).await.context("no end of the answer")??;
        let code = answer.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        let body = answer.to_bytes();
        ensure!(status == StatusCode::OK, "status {status}: {}", String::from_utf8_lossy(&body));
        let expected = if self.ask == Ask::Grpc { message(SMALL).len() } else { SMALL };
        ensure!(body.len() == expected, "{} bytes instead of {expected}", body.len());
        ensure!(self.ask != Ask::Grpc || code.as_ref().is_some_and(|code| code == "0"), "grpc-status {code:?}");
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
        let request = request(self.ask)?;
        Ok(match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }
}

fn request(ask: Ask) -> http::Result<Request<Full<Bytes>>> {
    let builder = match ask {
        Ask::Http1 => Request::get("/1k").header("host", HOST),
        Ask::Http2 => Request::get(format!("http://{HOST}/1k")),
        Ask::Grpc => {
            let builder = Request::builder().method(Method::POST).uri(format!("http://{HOST}{METHOD}"));
            GRPC.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value))
        }
    };
    let builder = FIELDS.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    let body = if ask == Ask::Grpc { message(SENT) } else { Vec::new() };
    builder.body(Full::new(body.into()))
}

/// One request on a new connection.
pub async fn probe(address: SocketAddr, ask: Ask) -> anyhow::Result<()> {
    let (mut connection, task) = Connection::open(address, ask).await?;
    let answer = connection.get().await;
    task.abort();
    answer
}
