//! Making a connection to an endpoint: TCP, TLS with the identity checked, and the HTTP handshake, each bounded.

use std::cell::Cell;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use selvedge_policies::{attempt::retry::TryOutcome, reason::Reason};
use selvedge_xds::alpn;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use crate::{
    budget::Budget,
    config::{EndpointConfig, Transport, Trust},
    error::Error,
    http::{
        Body, PIECE, Windows,
        case::{self, Spellings},
        coalesce,
        early::Early,
        guard::{FrameGuard, MaxStreams},
        http2,
    },
    socket::{Side, dial},
    tls,
};

/// What a connection between sidecars carries; each has its ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// HTTP/1, one request at a time on a pooled connection.
    Http1,
    /// The shared HTTP/2 connection.
    Http2,
    /// The shared connection of frames, or of HTTP/2 where the peer does not know them.
    Frames,
    /// Opaque bytes (TCP), on a connection of their own.
    Tcp,
}

/// A connected stream: TCP, or TLS over it.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A failure to connect: always safe to try again elsewhere.
pub(crate) fn failure(reason: Reason, detail: String) -> Error {
    Error::failed_try(reason, TryOutcome::ConnectFailed, detail)
}

/// Connects to `endpoint` for `hop`. On success the peer has proven the identity it must have.
pub(crate) async fn stream(endpoint: &EndpointConfig, trust: &Trust, hop: Hop) -> Result<Stream, Error> {
    let (limit, connected) = (endpoint.connect_timeout(), Cell::new(false));
    match timeout(limit, establish(endpoint, trust, hop, &connected)).await {
        Ok(result) => result,
        Err(_) if connected.get() => Err(failure(
            Reason::UpstreamTlsFailed,
            format!("{} took the connection, and no TLS came back within {limit:?}", endpoint.address),
        )),
        Err(_) => {
            let detail = format!("{} took no connection within {limit:?}", whom(endpoint));
            Err(failure(Reason::UpstreamConnectTimeout, detail))
        }
    }
}

/// Who takes no connection. Where the application listens on its own machine is nobody else's business.
fn whom(endpoint: &EndpointConfig) -> String {
    match endpoint.cluster {
        None if endpoint.address.ip().is_loopback() => format!("the application at port {}", endpoint.address.port()),
        _ => endpoint.address.to_string(),
    }
}

/// Sets `connected` when the endpoint has taken the connection.
async fn establish(
    endpoint: &EndpointConfig,
    trust: &Trust,
    hop: Hop,
    connected: &Cell<bool>,
) -> Result<Stream, Error> {
    let address = endpoint.address;
    let unmeshed = || {
        let detail = format!("{address} has no sidecar, and outbound mode REQUIRE lets nothing go in plaintext");
        failure(Reason::UnknownDestination, detail)
    };
    if endpoint.transport == Transport::Unmeshed {
        return Err(unmeshed());
    }
    let side = if endpoint.cluster.is_none() { Side::Workload } else { Side::Mesh };
    let socket = dial(address, side)
        .await
        .map_err(|e| failure(Reason::UpstreamConnectFailed, format!("{}: {e}", whom(endpoint))))?;
    connected.set(true);
    let _ = socket.set_nodelay(true); // only latency is at stake
    let no_certificate = || failure(Reason::NotReady, "this sidecar has no certificate yet".into());
    let no_roots = || failure(Reason::UpstreamTlsFailed, "no authorities for external TLS could be read".into());
    let (tls, server_name) = match &endpoint.transport {
        Transport::Plain => return Ok(Either::Left(socket)),
        Transport::Unmeshed => return Err(unmeshed()),
        Transport::Mesh { server_name, .. } => {
            let tls = trust.mesh.as_ref().ok_or_else(no_certificate)?;
            let client = match hop {
                Hop::Http1 => &tls.http1,
                Hop::Http2 | Hop::Frames => &tls.frames,
                Hop::Tcp => &tls.tcp,
            };
            (client.clone(), server_name)
        }
        Transport::External { server_name } => {
            let tls = trust.external.as_ref().ok_or_else(no_roots)?;
            let client = match hop {
                Hop::Http1 => &tls.http1,
                Hop::Http2 | Hop::Frames => &tls.http2,
                Hop::Tcp => &tls.opaque,
            };
            (client.clone(), server_name)
        }
    };
    let failed = |e: &dyn std::fmt::Display| failure(Reason::UpstreamTlsFailed, format!("{address}: {e}"));
    let name = ServerName::try_from(server_name.to_string()).map_err(|e| failed(&e))?;
    let stream = TlsConnector::from(tls).connect(name, socket).await.map_err(|e| failed(&e))?;
    // A service without ALPN speaks HTTP/1, and would not make sense of the other.
    if matches!(hop, Hop::Http2 | Hop::Frames) && stream.get_ref().1.alpn_protocol().is_none() {
        return Err(failure(Reason::UpstreamTlsFailed, format!("{address} does not agree on HTTP/2 by ALPN")));
    }
    if let Transport::Mesh { identity, .. } = &endpoint.transport {
        let proven = tls::peer_identity(stream.get_ref().1);
        if proven.as_ref() != Some(identity.as_ref()) {
            let proven = proven.map_or_else(|| "no identity".into(), |id| id.to_string());
            let detail = format!("{address} proved {proven}, not {identity}");
            return Err(failure(Reason::UpstreamIdentityMismatch, detail));
        }
    }
    Ok(Either::Right(Box::new(stream)))
}

/// When the peer of a mesh connection should have a newer certificate.
pub(crate) fn until(stream: &Stream) -> Option<Instant> {
    match stream {
        Either::Left(_) => None,
        Either::Right(stream) => tls::peer_until(stream.get_ref().1),
    }
}

/// Whether a peer that was offered frames has taken them.
pub(crate) fn takes_frames(stream: &Stream) -> bool {
    matches!(stream, Either::Right(stream) if stream.get_ref().1.alpn_protocol() == Some(alpn::FRAMES))
}

/// The HTTP/1 handshake; the connection runs on this worker until it closes.
pub(crate) async fn http1(stream: Stream) -> Result<(http1::SendRequest<Body>, Spellings), Error> {
    let (stream, spellings) = case::tap(Early::new(stream), case::Kind::Responses);
    // Space before a colon a proxy takes out (RFC 9112 section 5.1).
    let (sender, connection) = http1::Builder::new()
        .allow_spaces_after_header_name_in_responses(true)
        .max_buf_size(PIECE)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failure(Reason::UpstreamConnectFailed, e.to_string()))?;
    tokio::task::spawn_local(connection.with_upgrades());
    Ok((sender, spellings))
}

/// The HTTP/2 handshake, with writes coalesced and frames counted; the connection runs on this worker until it closes.
/// `max_streams` follows what the peer says, `windows` is what it may send ahead.
pub(crate) async fn http2(stream: Stream, windows: Windows, max_streams: MaxStreams) -> Result<http2::Caller, Error> {
    // Many callers share the connection, whoever is at the other end.
    let stream = FrameGuard::client(stream, &Budget::CALLED, max_streams);
    http2::Caller::open(coalesce::coalesced(stream, None), windows)
        .await
        .map_err(|e| failure(Reason::UpstreamConnectFailed, format!("http2 error: {e}")))
}
