//! A connection on its way through the stages: what each of them hands to the next.

use std::{future::ready, net::SocketAddr, os::fd::AsFd as _, pin::Pin, rc::Rc, sync::Arc};

use selvedge_policies::{context::Audited, facts::Identity};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::{
    balance::Picked,
    cluster::connect::Stream,
    connection::{Connection, Origin},
    error::Error,
    heading::Purpose,
    http::pace::Outlives,
    sniff::{ClientHello, Prefixed},
    telemetry::Protocol,
    tls::TlsContext,
    worker::Worker,
};

/// A connection as the kernel gave it.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The worker that accepted it.
    pub worker: Rc<Worker>,
    /// The socket, of which nothing was read yet.
    pub socket: TcpStream,
    /// Address and port of the other end (downstream).
    pub peer: SocketAddr,
    /// The listener it came on.
    pub purpose: Purpose,
}

/// A connection that may go on.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Where it comes from and leads to.
    pub origin: Origin,
    /// The socket, without Nagle's delay.
    pub socket: TcpStream,
}

/// A connection whose protocol is known.
pub(crate) struct Detected {
    /// Where it comes from and leads to.
    pub origin: Origin,
    /// The socket, with the bytes that were read put back.
    pub io: Prefixed<TcpStream>,
    /// The protocol, as declared or as its first bytes say.
    pub spoken: Spoken,
    /// The service's side, where it was dialled to see who speaks first.
    pub dialling: Option<Dialling>,
}

/// What a connection carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.0 or HTTP/1.1, in plaintext.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS; the mesh's or the application's, by its ALPN.
    Tls(ClientHello),
    /// Anything else: bytes that are relayed without a look inside.
    Opaque,
}

/// A connection whose bytes are plain to us.
pub(crate) struct Secured {
    /// Where it comes from and leads to.
    pub origin: Origin,
    /// The stream inside the mesh's TLS, or as it came.
    pub io: ServerStream,
    /// What is spoken inside.
    pub protocol: Protocol,
    /// The identity the other end proved.
    pub identity: Option<Identity>,
    /// SHA-256 of the certificate that proved it.
    pub fingerprint: Option<Arc<str>>,
    /// When it should have a newer certificate.
    pub until: Option<Instant>,
    /// What the identity was proven against.
    pub proven: Option<Arc<TlsContext>>,
    /// Server name of application TLS.
    pub server_name: Option<String>,
    /// What was asked for in the mesh's TLS.
    pub asked_for: Option<Box<str>>,
    /// The service's side, where it was dialled to see who speaks first.
    pub dialling: Option<Dialling>,
}

/// A caller's stream: as it came, or inside mesh TLS.
pub(crate) type ServerStream = Either<Prefixed<TcpStream>, Prefixed<Box<TlsStream<Prefixed<TcpStream>>>>>;

impl Outlives for ServerStream {
    /// Between sidecars it is TLS that ends without `close_notify`.
    fn again(&self) -> Option<TcpStream> {
        let Self::Left(plain) = self else { return None };
        let socket = plain.get_ref().as_fd().try_clone_to_owned().ok()?;
        TcpStream::from_std(socket.into()).ok()
    }
}

/// A connection with all that is known of it.
pub(crate) struct Identified {
    /// Facts for every request on it.
    pub connection: Rc<Connection>,
    /// The caller's stream, inside the mesh's TLS or as it came.
    pub io: ServerStream,
    /// The service's side, where it was dialled to see who speaks first.
    pub dialling: Option<Dialling>,
}

impl Identified {
    /// True when HTTP is served on it; false when its bytes are relayed.
    pub(crate) fn is_http(&self) -> bool {
        matches!(self.connection.protocol, Protocol::Http1 | Protocol::Http2 | Protocol::Frames)
    }
}

/// The service's side of a connection, which may be on its way.
pub(crate) type Dialling = Pin<Box<dyn Future<Output = Result<Dialled, Error>>>>;

/// The service's side of a connection.
pub(crate) struct Dialled {
    /// The stream to the service, with its greeting put back.
    pub stream: Prefixed<Stream>,
    /// The endpoint, which counts the connection for as long as this lives.
    pub picked: Picked,
    /// The policy that only looks on and would have refused it.
    pub audited: Option<Audited>,
}

impl Dialled {
    /// Puts back what the service has said.
    #[must_use]
    pub(crate) fn having_said(mut self, greeting: &[u8]) -> Self {
        self.put_back(greeting);
        self
    }

    /// Puts back what a service has said that goes on being listened to.
    pub(crate) fn put_back(&mut self, said: &[u8]) {
        self.stream.put_back(said);
    }

    /// A service's side that is there, for who would also take one that is on its way.
    pub(crate) fn arrived(self) -> Dialling {
        Box::pin(ready(Ok(self)))
    }
}
