//! A gRPC channel to the control plane over TLS that proves an identity and no host name.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    socket::{Side, dial_host},
    tls,
};

/// From the first packet to an established connection.
const CONNECT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// SNI and authority; the control plane's certificate names an identity, so neither is verified.
const NAME: &str = "control-plane.selvedge-system";

/// Connects to `address` (`host:port`).
pub async fn connect(address: &str, config: Arc<ClientConfig>) -> Result<Channel, tonic::transport::Error> {
    let address: Arc<str> = address.into();
    let connector = tower::service_fn(move |_: Uri| {
        let (address, config) = (Arc::clone(&address), Arc::clone(&config));
        async move { establish(&address, config).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://control-plane.selvedge-system")
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
}

async fn establish(address: &str, config: Arc<ClientConfig>) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    let attempt = async {
        let socket = dial_host(address, Side::Mesh).await?;
        socket.set_nodelay(true)?;
        TlsConnector::from(config).connect(name, socket).await.map_err(tls::readable)
    };
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, format!("no TLS connection to {address} in time"));
    tokio::time::timeout(CONNECT, attempt).await.map_err(|_| timed_out())?
}

/// `error` and everything that caused it, on one line.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut lines: Vec<String> = causes.map(ToString::to_string).collect();
    lines.dedup();
    lines.join(": ")
}
