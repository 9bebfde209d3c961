//! The client: connections that are kept, and requests like those of a browser or a service behind a gateway.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use crate::application::SMALL;

/// Host of every request.
pub const HOST: &str = "api.bench";

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

/// One kept connection; over HTTP/2 it can be cloned to share it.
pub enum Connection {
    /// For one request at a time.
    Http1(http1::SendRequest<Empty<Bytes>>),
    /// For many.
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    /// Connects; the task drives the connection and ends with it.
    pub async fn open(address: SocketAddr, over_http2: bool) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let socket = timeout(PATIENCE, TcpStream::connect(address)).await.context("connecting")??;
        socket.set_nodelay(true)?;
        let io = TokioIo::new(socket);
        if over_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            Ok((Self::Http2(sender), tokio::spawn(async { drop(connection.await) })))
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            Ok((Self::Http1(sender), tokio::spawn(async { drop(connection.await) })))
        }
    }

    /// Another handle of this HTTP/2 connection; `None` for HTTP/1.
    pub fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }

    /// Asks for the small answer and checks it.
    pub async fn get(&mut self) -> anyhow::Result<()> {
        let response = timeout(PATIENCE, self.send()).await.context("no answer")??;
        let status = response.status();
        let body = timeout(PATIENCE, response.into_body().collect()).await.context("no end of the answer")??.to_bytes();
        ensure!(status == StatusCode::OK, "status {status}: {}", String::from_utf8_lossy(&body));
        ensure!(body.len() == SMALL, "{} bytes instead of {SMALL}", body.len());
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
        Ok(match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request("/1k", true)?).await?
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request(&format!("http://{HOST}/1k"), false)?).await?
            }
        })
    }
}

fn request(target: &str, host: bool) -> http::Result<Request<Empty<Bytes>>> {
    let mut builder = Request::get(target);
    if host {
        builder = builder.header("host", HOST);
    }
    FIELDS.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(Empty::new())
}

/// One request on a new connection.
pub async fn probe(address: SocketAddr, over_http2: bool) -> anyhow::Result<()> {
    let (mut connection, task) = Connection::open(address, over_http2).await?;
    let answer = connection.get().await;
    task.abort();
    answer
}
