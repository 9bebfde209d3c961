//! The tls stage: mesh TLS is terminated here, application TLS passes through untouched.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use selvedge_policies::reason::Reason;
use selvedge_xds::alpn;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use crate::{
    arrival::{Detected, Dialled, Secured, Spoken},
    config::{AppProtocol, Transport},
    connection::{Connection, Origin},
    error::Error,
    heading::Heading,
    record, route,
    sniff::{ClientHello, Prefixed},
    telemetry::Protocol,
    tls::{peer_fingerprint, peer_identity, peer_until},
};

mod inside;

use inside::Found;

/// How long a caller may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Terminates mesh TLS. `None` when the handshake failed; the connection is closed.
pub(crate) async fn tls(detected: Detected) -> Option<Secured> {
    let Detected { mut origin, io, spoken, dialling } = detected;
    let (protocol, server_name, dialling) = match spoken {
        Spoken::Http1 => (Protocol::Http1, None, None),
        Spoken::Http2 => (Protocol::Http2, None, None),
        Spoken::Opaque => (Protocol::Tcp, None, dialling),
        Spoken::Tls(hello) if is_mesh(&origin, &hello) => {
            drop(dialling); // by the identity that is proven now policies may decide otherwise
            // Boxed: a handshake is large and soon over, and every connection would keep the room.
            return Box::pin(accept(origin, io)).await;
        }
        Spoken::Tls(hello) => {
            let name = hello.server_name.as_deref();
            // Boxed: few connections lead to a service outside that was not found by its address.
            let is_named = Box::pin(is_named(&mut origin, name)).await;
            let is_news = is_named || name.is_some() && origin.needs_server_name();
            (Protocol::Tls, hello.server_name, dialling.filter(|_| !is_news))
        }
    };
    let io = Either::Left(io);
    let (identity, fingerprint, until, proven) = (None, None, None, None);
    let asked_for = None;
    Some(Secured { origin, io, protocol, identity, fingerprint, until, proven, server_name, asked_for, dialling })
}

/// Has a call lead to the service outside the mesh that its server name says, where that is believed. TLS that the application
/// speaks is not put into TLS of ours: a port where the sidecar is to speak it stays known by address.
async fn is_named(origin: &mut Origin, server_name: Option<&str>) -> bool {
    let (Some(host), Heading::Outbound { port, original, .. }) = (server_name, &origin.heading) else { return false };
    let (port, original, mut snapshot) = (*port, *original, origin.worker.snapshot());
    let Some(destination) = route::named(&origin.worker, &origin.heading, &mut snapshot, host).await else {
        return false;
    };
    let cluster = snapshot.config.destination(&destination).flatten().and_then(|found| found.ports.get(&port)?.cluster);
    let endpoint = cluster.and_then(|link| snapshot.cluster(link)?.endpoints.first());
    if endpoint.is_none_or(|endpoint| matches!(endpoint.config.transport, Transport::External { .. })) {
        return false;
    }
    origin.heading = Heading::Outbound { destination, port, original };
    true
}

/// Only calls to the application can be mesh TLS; what the application itself encrypts is its own.
fn is_mesh(origin: &Origin, hello: &ClientHello) -> bool {
    matches!(origin.heading, Heading::Inbound { .. }) && hello.alpn.iter().any(|offered| of_mesh(offered).is_some())
}

async fn accept(origin: Origin, io: Prefixed<TcpStream>) -> Option<Secured> {
    let Some(tls) = origin.worker.snapshot().trust.mesh.clone() else {
        return failed(origin, "this sidecar has no certificate yet");
    };
    match timeout(HANDSHAKE, TlsAcceptor::from(tls.server.clone()).accept(io)).await {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            let (identity, until) = (peer_identity(session), peer_until(session));
            let fingerprint = identity.as_ref().and_then(|_| peer_fingerprint(session));
            let asked_for = session.server_name().map(Box::from);
            let offered = session.alpn_protocol().and_then(of_mesh).unwrap_or(Protocol::Tcp);
            let declared = origin.declared();
            let mut stream = Box::new(stream);
            let found = match as_declared(offered, declared) {
                Protocol::Tcp => {
                    // Boxed: it would more than double what every connection weighs, and few come here.
                    Box::pin(inside::look(&mut stream, &origin, identity.as_ref(), declared)).await?
                }
                protocol => Found { protocol, first: Bytes::new(), server_name: None, dialled: None },
            };
            let Found { protocol, first, server_name, dialled } = found;
            let (io, dialling) = (Either::Right(Prefixed::new(stream, first)), dialled.map(Dialled::arrived));
            let proven = Some(tls);
            Some(Secured {
                origin,
                io,
                protocol,
                identity,
                fingerprint,
                until,
                proven,
                server_name,
                asked_for,
                dialling,
            })
        }
        Ok(Err(error)) => failed(origin, error.to_string()),
        Err(_) => failed(origin, "the handshake took too long"),
    }
}

/// Bytes on a port declared as HTTP are HTTP, whatever the caller calls them: as opaque ones they would pass by the
/// checks and the limits for requests.
const fn as_declared(offered: Protocol, declared: AppProtocol) -> Protocol {
    match (offered, declared) {
        (Protocol::Tcp, AppProtocol::Http) => Protocol::Http1,
        (Protocol::Tcp, AppProtocol::Http2) => Protocol::Http2,
        (offered, _) => offered,
    }
}

fn of_mesh(protocol: &[u8]) -> Option<Protocol> {
    match protocol {
        alpn::HTTP1 => Some(Protocol::Http1),
        alpn::FRAMES => Some(Protocol::Frames),
        alpn::HTTP2 => Some(Protocol::Http2),
        alpn::TCP => Some(Protocol::Tcp),
        _ => None,
    }
}

fn failed(origin: Origin, detail: impl Into<std::borrow::Cow<'static, str>>) -> Option<Secured> {
    let connection = Rc::new(Connection::new(origin, None, Protocol::Tls));
    record::connection_refused(&connection, &Error::new(Reason::TlsHandshakeFailed, detail));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_not_carried_past_its_checks_as_opaque_bytes() {
        assert_eq!(as_declared(Protocol::Tcp, AppProtocol::Http), Protocol::Http1);
        assert_eq!(as_declared(Protocol::Tcp, AppProtocol::Http2), Protocol::Http2);
        assert_eq!(as_declared(Protocol::Tcp, AppProtocol::Detect), Protocol::Tcp);
        assert_eq!(as_declared(Protocol::Http1, AppProtocol::Http2), Protocol::Http1);
    }
}
