//! A look at what a peer calls opaque bytes, on a port that is not declared to speak HTTP.
//!
//! The peer's sidecar has looked already, but its word is not enough: requests carried as opaque bytes would pass by the
//! checks, policies and limits for requests. The service is dialled at once, as it is for opaque bytes anyway, and
//! whoever speaks first decides; a service that speaks as servers of HTTP/2 do leaves that to the peer. What is really
//! opaque waits for nothing, and may be silent for as long as it likes.
//!
//! Where policies are about the server name of application TLS, it is read before they decide.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use selvedge_decide::config::InboundPort;
use selvedge_policies::facts::Identity;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use crate::{
    arrival::Dialled,
    config::{AppProtocol, RuntimeConfig},
    connection::{Connection, Origin},
    dial,
    judge::{self, still_admitted},
    record,
    sniff::{
        Detection, FIRST_BYTES, PATIENCE, RECORD_HANDSHAKE, classify,
        greeting::{self, Greeting},
        silence,
    },
    telemetry::Protocol,
};

/// What was found inside.
pub(super) struct Found {
    /// What it is.
    pub(super) protocol: Protocol,
    /// What was read of it.
    pub(super) first: Bytes,
    /// Server name of application TLS.
    pub(super) server_name: Option<String>,
    /// The service's side of opaque bytes.
    pub(super) dialled: Option<Dialled>,
}

/// Looks at the bytes that a peer with `identity` sends to a port `declared` so. `None` when the connection may not be;
/// it is closed.
pub(super) async fn look<T: AsyncRead + Unpin>(
    io: &mut T,
    origin: &Origin,
    identity: Option<&Identity>,
    declared: AppProtocol,
) -> Option<Found> {
    let mut connection = Connection::new(origin.clone(), identity.cloned(), Protocol::Tcp);
    let mut first = if origin.needs_server_name() { hello(io, &connection, declared).await? } else { BytesMut::new() };
    (connection.protocol, connection.server_name) = what(&first, declared);
    let connection = Rc::new(connection);
    let looked = async {
        let dialled = dial::while_there(&connection, io, &mut first, dial::begin(&connection)).await?;
        let may_stay = |config: &RuntimeConfig, port: &InboundPort| still_admitted(&connection, config, &port.policies);
        tokio::select! {
            biased; // what may not be any more is not listened to
            error = judge::ended(&connection, may_stay) => Err(error),
            looked = whoever_speaks(io, first, dialled, (origin, declared)) => Ok(looked),
        }
    };
    let (dialled, first, answered) = match looked.await {
        Ok((None, first, _)) if first.is_empty() => return None, // the peer has left without a word
        Ok(looked) => looked,
        Err(error) => {
            record::connection_refused(&connection, &error);
            return None;
        }
    };
    let (protocol, server_name) = what(&first, if answered { AppProtocol::Opaque } else { declared });
    let is_http = matches!(protocol, Protocol::Http1 | Protocol::Http2);
    // Policies that read the name have decided without it; the relay asks them again, and dials again.
    let is_news = server_name != connection.server_name && origin.needs_server_name();
    Some(Found { protocol, first: first.freeze(), server_name, dialled: dialled.filter(|_| !is_http && !is_news) })
}

/// What begins with `first`, and the server name of application TLS.
fn what(first: &[u8], declared: AppProtocol) -> (Protocol, Option<String>) {
    match classify(first) {
        Detection::Tls(hello) => (Protocol::Tls, hello.server_name),
        _ if declared == AppProtocol::Opaque => (Protocol::Tcp, None),
        Detection::Http2 => (Protocol::Http2, None),
        Detection::Http1 => (Protocol::Http1, None),
        // Half a request line that nobody has answered, or a long one; the parser will refuse it.
        Detection::NeedMore | Detection::Long if !first.is_empty() => (Protocol::Http1, None),
        Detection::NeedMore | Detection::Long | Detection::Opaque => (Protocol::Tcp, None),
    }
}

/// What the peer begins with, for policies that are about server names. One that is silent, because
/// its client opens connections in advance or because the service speaks first, is waited for only when it may not pass
/// without a name. `None` when it leaves meanwhile: it asked for nothing, so nothing is refused to it.
async fn hello<T: AsyncRead + Unpin>(io: &mut T, connection: &Connection, declared: AppProtocol) -> Option<BytesMut> {
    let mut first = BytesMut::new();
    let snapshot = connection.worker.snapshot();
    let policies = &snapshot.config.inbound(connection.port()).policies;
    let _ = timeout(silence(&first), io.read_buf(&mut first)).await;
    if !first.is_empty() || still_admitted(connection, &snapshot.config, policies).is_err() {
        let waited = timeout(PATIENCE, until_clear(io, &mut first, declared)).await;
        if waited.is_ok() && first.is_empty() {
            return None;
        }
    }
    Some(first)
}

/// The service's side, with its greeting put back, what the peer said before that, and whether the service has answered what
/// could have become a request. A service of HTTP/2 is let go of until it is known what the peer says to it.
async fn whoever_speaks<T: AsyncRead + Unpin>(
    io: &mut T,
    mut first: BytesMut,
    mut dialled: Dialled,
    (origin, declared): (&Origin, AppProtocol),
) -> (Option<Dialled>, BytesMut, bool) {
    let mut greeting = BytesMut::new();
    // The relay will meet the end of either side again.
    let spoken = tokio::select! {
        _ = io.read_buf(&mut first), if first.is_empty() => Greeting::NeedMore,
        spoken = greeting::read(&mut dialled.stream, &mut greeting), if first.is_empty() => spoken,
        else => Greeting::NeedMore,
    };
    if spoken == Greeting::Http2 && declared == AppProtocol::Detect {
        let _ = io.read_buf(&mut first).await;
        let _ = timeout(PATIENCE, until_clear(io, &mut first, declared)).await;
        return (None, first, false);
    }
    let (mut dialled, mut answer) = (dialled.having_said(&greeting), BytesMut::new());
    let answering = until_answered(io, &mut first, (&mut dialled, &mut answer), (origin, declared));
    let answered = timeout(PATIENCE, answering).await.unwrap_or(Greeting::NeedMore);
    if answered == Greeting::Http2 && declared == AppProtocol::Detect {
        // As above: it answers nothing yet, and what the peer goes on with has to be seen.
        let _ = timeout(PATIENCE, until_clear(io, &mut first, declared)).await;
        return (None, first, false);
    }
    (Some(dialled.having_said(&answer)), first, answered != Greeting::NeedMore)
}

/// Reads what the peer says until that is clear, and gives it to the service as soon as there is a silence, where that passes
/// nothing by. What the service has answered before it was clear, of which nothing is lost when this is dropped; when nobody can
/// make it clear any more, that is as good as an answer.
async fn until_answered<T: AsyncRead + Unpin>(
    io: &mut T,
    first: &mut BytesMut,
    (dialled, answer): (&mut Dialled, &mut BytesMut),
    (origin, declared): (&Origin, AppProtocol),
) -> Greeting {
    loop {
        if !first.is_empty() && classify(first) == Detection::Long {
            return if origin.may_be_opaque(declared, first) { Greeting::Opaque } else { Greeting::NeedMore };
        }
        if first.is_empty() || first.len() >= FIRST_BYTES || is_clear(first, declared) {
            return Greeting::NeedMore;
        }
        if !origin.may_be_opaque(declared, first) {
            until_clear(io, first, declared).await;
            return Greeting::NeedMore;
        }
        match timeout(silence(first), io.read_buf(first)).await {
            Ok(Ok(1..)) => continue,
            Ok(_) => return Greeting::Opaque,
            Err(_) if dialled.stream.write_ahead(first).await.is_err() => return Greeting::Opaque,
            Err(_) => {}
        }
        tokio::select! {
            read = io.read_buf(first) => if !matches!(read, Ok(1..)) { return Greeting::Opaque },
            answered = greeting::read(&mut dialled.stream, answer) => {
                return if answered == Greeting::Http2 { answered } else { Greeting::Opaque };
            }
        }
    }
}

async fn until_clear<T: AsyncRead + Unpin>(io: &mut T, first: &mut BytesMut, declared: AppProtocol) {
    while first.len() < FIRST_BYTES && !is_clear(first, declared) {
        if !matches!(io.read_buf(first).await, Ok(1..)) {
            return;
        }
    }
}

/// Where the protocol is declared, only TLS is looked for.
fn is_clear(first: &[u8], declared: AppProtocol) -> bool {
    let may_be_tls = first.first().is_none_or(|byte| *byte == RECORD_HANDSHAKE);
    (declared == AppProtocol::Opaque && !may_be_tls) || classify(first) != Detection::NeedMore
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::client_hello::example;

    #[test]
    fn a_declared_protocol_wins_and_application_tls_keeps_its_name() {
        let hello = example(Some("api.shop"), &[b"h2"]);
        for declared in [AppProtocol::Detect, AppProtocol::Opaque] {
            assert_eq!(what(&hello, declared), (Protocol::Tls, Some("api.shop".to_owned())));
            assert_eq!(what(b"\0\x01", declared), (Protocol::Tcp, None));
            assert!(is_clear(&hello, declared) && !is_clear(&hello[..40], declared) && !is_clear(b"", declared));
        }
        for request in [&b"GET / HTTP/1.1\r\n"[..], b"GET /half"] {
            assert_eq!(what(request, AppProtocol::Detect).0, Protocol::Http1);
            assert_eq!(what(request, AppProtocol::Opaque).0, Protocol::Tcp);
            assert!(is_clear(request, AppProtocol::Opaque), "nothing is waited for");
        }
    }
}
