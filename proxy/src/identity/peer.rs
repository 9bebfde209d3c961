//! The identity stage: who is at the other end, and whether a peer without mTLS may be there at all.

use std::rc::Rc;

use selvedge_policies::reason::Reason;

use crate::{
    config::RuntimeConfig,
    error::{Error, Stage},
    exchange::{Connection, Heading},
    opaque::Dialled,
    telemetry::Protocol,
    tls::terminate::{Secured, ServerStream},
};

/// A connection with all that is known of it.
pub struct Identified {
    /// Facts for every request on it.
    pub connection: Rc<Connection>,
    /// Its bytes.
    pub io: ServerStream,
    /// The service's side, when it spoke first.
    pub dialled: Option<Dialled>,
}

impl Identified {
    /// True when HTTP is served on it; false when its bytes are relayed.
    pub fn is_http(&self) -> bool {
        matches!(self.connection.protocol, Protocol::Http1 | Protocol::Http2)
    }
}

/// Makes the connection's facts.
pub fn establish(secured: Secured) -> Identified {
    let mut connection = Connection::new(secured.origin, secured.identity, secured.protocol);
    connection.server_name = secured.server_name;
    Identified { connection: Rc::new(connection), io: secured.io, dialled: secured.dialled }
}

/// Whether the peer may call at all. Asked for every request, so that a change of mode holds for live connections.
pub fn admitted(connection: &Connection, config: &RuntimeConfig) -> Result<(), Error> {
    match connection.heading {
        Heading::Inbound { .. } if connection.peer.identity.is_none() && !config.permissive => {
            Err(Error::new(Stage::Accept, Reason::PlaintextRefused, Reason::PlaintextRefused.summary()))
        }
        _ => Ok(()),
    }
}
