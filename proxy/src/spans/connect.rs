//! Connections to a collector, in plaintext or over TLS under the authorities for services outside the mesh.

use std::io;

use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::PATIENCE;
use crate::{
    bootstrap::Collector,
    config::InForce,
    socket::{Side, dial},
};

/// A connection to a collector.
pub(super) type Connection = Either<TcpStream, TlsStream<TcpStream>>;

/// Makes connections to a collector. They are the sidecar's own: they take no way through the mesh.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) collector: Collector,
    pub(super) configs: watch::Receiver<InForce>,
}

impl Connector {
    pub(super) async fn connect(&self) -> io::Result<Connection> {
        let Collector { host, port, tls, http, .. } = &self.collector;
        let socket = self.dial(host, *port).await?;
        socket.set_nodelay(true)?;
        if !tls {
            return Ok(Either::Left(socket));
        }
        let external = self.configs.borrow().trust.external.clone();
        let external =
            external.ok_or_else(|| io::Error::other("there are no authorities to verify the collector by"))?;
        let config = if *http { &external.http1 } else { &external.http2 };
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        Ok(Either::Right(TlsConnector::from(config.clone()).connect(name, socket).await?))
    }

    async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
        for address in tokio::net::lookup_host((host, port)).await? {
            // One that nothing comes back from leaves time for the next.
            outcome = match timeout(PATIENCE / 3, dial(address, Side::Mesh)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}
