//! A look at what a peer calls opaque bytes, on a port of which nobody has said what it speaks.
//!
//! The peer's sidecar has looked already, but its word is not enough: requests carried as opaque bytes would pass by the
//! checks, policies and limits for requests. The service is dialled at once, as it is for opaque bytes anyway, and
//! whoever speaks first decides; a service that speaks as servers of HTTP/2 do leaves that to the peer. What is really
//! opaque waits for nothing, and may be silent for as long as it likes.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use selvedge_policies::facts::Identity;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::{
    Detection, Prefixed, classify,
    greeting::{self, Greeting},
    protocol::{FIRST_BYTES, PATIENCE},
};
use crate::{
    accept::Origin,
    error::Error,
    exchange::Connection,
    opaque::{self, Dialled},
    record,
    telemetry::Protocol,
};

/// What was found inside.
pub struct Found {
    /// What it is.
    pub protocol: Protocol,
    /// What was read of it.
    pub first: Bytes,
    /// The service's side of opaque bytes.
    pub dialled: Option<Dialled>,
}

/// Looks at the bytes that a peer with `identity` sends. `None` when the connection may not be; it is closed.
pub async fn look<T: AsyncRead + Unpin>(io: &mut T, origin: &Origin, identity: Option<&Identity>) -> Option<Found> {
    let connection = Rc::new(Connection::new(origin.clone(), identity.cloned(), Protocol::Tcp));
    let looked = tokio::select! {
        looked = whoever_speaks(io, &connection) => looked,
        error = opaque::ended(&connection, |config, policies| opaque::still_admitted(&connection, config, policies)) => {
            Err(error)
        }
    };
    let (dialled, first) = match looked {
        Ok((None, first)) if first.is_empty() => return None, // the peer has left without a word
        Ok(looked) => looked,
        Err(error) => {
            record::connection_refused(&connection, &error);
            return None;
        }
    };
    let protocol = match classify(&first) {
        Detection::Http2 => Protocol::Http2,
        Detection::Http1 => Protocol::Http1,
        // Half a request line, which no honest sidecar calls opaque; the parser will refuse it.
        Detection::NeedMore if !first.is_empty() => Protocol::Http1,
        Detection::NeedMore | Detection::Tls(_) | Detection::Opaque => Protocol::Tcp,
    };
    Some(Found { protocol, first: first.freeze(), dialled: dialled.filter(|_| protocol == Protocol::Tcp) })
}

/// The service's side, with its greeting put back, and what the peer said before that. A service of HTTP/2 is let go of
/// until it is known what the peer says to it.
async fn whoever_speaks<T: AsyncRead + Unpin>(
    io: &mut T,
    connection: &Rc<Connection>,
) -> Result<(Option<Dialled>, BytesMut), Error> {
    let Dialled { mut stream, picked, audited } = opaque::dial(connection).await?;
    let (mut first, mut greeting) = (BytesMut::new(), BytesMut::new());
    // The relay will meet the end of either side again.
    let spoken = tokio::select! {
        _ = io.read_buf(&mut first) => Greeting::NeedMore,
        spoken = greeting::read(&mut stream, &mut greeting) => spoken,
    };
    let (_, stream) = stream.into_parts();
    let mut dialled = Some(Dialled { stream: Prefixed::new(stream, greeting), picked, audited });
    if spoken == Greeting::Http2 {
        dialled = None;
        let _ = io.read_buf(&mut first).await;
    }
    if !first.is_empty() {
        let _ = timeout(PATIENCE, until_clear(io, &mut first)).await;
    }
    Ok((dialled, first))
}

async fn until_clear<T: AsyncRead + Unpin>(io: &mut T, first: &mut BytesMut) {
    while first.len() < FIRST_BYTES && classify(first) == Detection::NeedMore {
        if !matches!(io.read_buf(first).await, Ok(1..)) {
            return;
        }
    }
}
