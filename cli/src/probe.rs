//! Small questions to a sidecar's own HTTP listeners.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Request, header::HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

const LIMIT: usize = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(2);

/// `GET path`; the body of a successful answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    ask(Method::GET, address, path).await
}

/// `POST path` without a body; the body of a successful answer.
pub(crate) async fn post(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    ask(Method::POST, address, path).await
}

async fn ask(method: Method, address: SocketAddr, path: &str) -> anyhow::Result<String> {
    timeout(TIMEOUT, exchange(method, address, path)).await.with_context(|| format!("{address}{path} took too long"))?
}

async fn exchange(method: Method, address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _connection = tokio::spawn(connection);
    let builder = Request::builder().method(method).uri(path).header(HOST, address.to_string());
    let request = builder.body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    ensure!(response.status().is_success(), "{path} answered {}", response.status());
    let body = Limited::new(response, LIMIT).collect().await.map_err(|e| anyhow::anyhow!(e))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
