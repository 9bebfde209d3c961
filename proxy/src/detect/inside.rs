//! A look at what a peer calls opaque bytes, on a port of which nobody has said what it speaks.
//!
//! The peer's sidecar has looked already, but its word is not enough: requests carried as opaque bytes would pass by the
//! checks, policies and limits for requests. The service is dialled at once, as it is for opaque bytes anyway, and
//! whoever speaks first decides. What is really opaque waits for nothing, and may be silent for as long as it likes.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use selvedge_policies::facts::Identity;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::{
    Detection, Prefixed, classify,
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
    Some(Found { protocol, first: first.freeze(), dialled: Some(dialled).filter(|_| protocol == Protocol::Tcp) })
}

/// The service's side, with its greeting put back, and what the peer said before that.
async fn whoever_speaks<T: AsyncRead + Unpin>(
    io: &mut T,
    connection: &Rc<Connection>,
) -> Result<(Dialled, BytesMut), Error> {
    let Dialled { mut stream, picked, audited } = opaque::dial(connection).await?;
    let (mut first, mut greeting) = (BytesMut::new(), BytesMut::new());
    // The relay will meet the end of either side again.
    tokio::select! {
        _ = io.read_buf(&mut first) => {
            let _ = timeout(PATIENCE, until_clear(io, &mut first)).await;
        }
        _ = stream.read_buf(&mut greeting) => {}
    }
    let (_, stream) = stream.into_parts();
    Ok((Dialled { stream: Prefixed::new(stream, greeting), picked, audited }, first))
}

async fn until_clear<T: AsyncRead + Unpin>(io: &mut T, first: &mut BytesMut) {
    while first.len() < FIRST_BYTES && classify(first) == Detection::NeedMore {
        if !matches!(io.read_buf(first).await, Ok(1..)) {
            return;
        }
    }
}
