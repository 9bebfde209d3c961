//! The identity stage: who is at the other end of a connection.

use std::rc::Rc;

use crate::{
    arrival::{Identified, Secured},
    connection::Connection,
};

/// Makes the connection's facts.
pub(crate) fn peer(secured: Secured) -> Identified {
    let mut connection = Connection::new(secured.origin, secured.identity, secured.protocol);
    connection.peer.fingerprint = secured.fingerprint;
    connection.server_name = secured.server_name;
    connection.asked_for = secured.asked_for;
    connection.until = secured.until;
    connection.proven = secured.proven;
    Identified { connection: Rc::new(connection), io: secured.io, dialling: secured.dialling }
}
