//! Small questions to the HTTP listeners of sidecars and control plane.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

const LIMIT: usize = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(2);
/// What a control plane does first may take it a while.
const PATIENCE: Duration = Duration::from_secs(15);

/// `GET path`; the body of a successful answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    ask(Method::GET, address, path).await
}

/// `POST path` without a body; the body of a successful answer.
pub(crate) async fn post(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    ask(Method::POST, address, path).await
}

/// An answer of any status.
pub(crate) struct Answer {
    /// The status code, also one of a failure.
    pub(crate) status: StatusCode,
    /// The whole body, as text.
    pub(crate) body: String,
}

/// `POST path` with this body; the answer, whatever it says.
pub(crate) async fn send(address: SocketAddr, path: &str, body: Vec<u8>) -> anyhow::Result<Answer> {
    timeout(PATIENCE, exchange(Method::POST, address, path, body.into())).await.context("it took too long")?
}

async fn ask(method: Method, address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let asking = timeout(TIMEOUT, exchange(method, address, path, Bytes::new()));
    let Answer { status, body } = asking.await.with_context(|| format!("{address}{path} took too long"))??;
    ensure!(status.is_success(), "{path} answered {status}");
    Ok(body)
}

/// `GET path` of a Unix socket; the body of a successful answer.
pub(crate) async fn get_local(socket: &Path, path: &str) -> anyhow::Result<String> {
    ask_local(Method::GET, socket, path, Bytes::new()).await
}

/// `POST path` of a Unix socket with this body; the body of a successful answer.
pub(crate) async fn post_local(socket: &Path, path: &str, body: String) -> anyhow::Result<String> {
    ask_local(Method::POST, socket, path, body.into()).await
}

async fn ask_local(method: Method, socket: &Path, path: &str, body: Bytes) -> anyhow::Result<String> {
    let asking = async {
        let stream =
            UnixStream::connect(socket).await.with_context(|| format!("connecting to {}", socket.display()))?;
        exchange_on(stream, "localhost", method, path, body).await
    };
    let Answer { status, body } = timeout(PATIENCE, asking).await.context("it took too long")??;
    ensure!(status.is_success(), "{path} answered {status}: {}", body.trim());
    Ok(body)
}

async fn exchange(method: Method, address: SocketAddr, path: &str, body: Bytes) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    exchange_on(stream, &address.to_string(), method, path, body).await
}

async fn exchange_on(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _connection = tokio::spawn(connection);
    let builder = Request::builder().method(method).uri(path).header(HOST, host);
    let response = sender.send_request(builder.body(Full::new(body))?).await?;
    let status = response.status();
    let body = Limited::new(response, LIMIT).collect().await.map_err(|e| anyhow::anyhow!(e))?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
}
