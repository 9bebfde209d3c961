//! Small questions to the HTTP listeners of sidecars and control plane.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

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

async fn exchange(method: Method, address: SocketAddr, path: &str, body: Bytes) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _connection = tokio::spawn(connection);
    let builder = Request::builder().method(method).uri(path).header(HOST, address.to_string());
    let response = sender.send_request(builder.body(Full::new(body))?).await?;
    let status = response.status();
    let body = Limited::new(response, LIMIT).collect().await.map_err(|e| anyhow::anyhow!(e))?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
}
