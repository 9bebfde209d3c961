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
    connection.until = secured.until;
    connection.proven = secured.proven;
    Identified { connection: Rc::new(connection), io: secured.io, dialled: secured.dialled }
}

/// Whether the peer may call at all. Asked for every request, so that a change of mode holds for live connections.
pub fn admitted(connection: &Connection, config: &RuntimeConfig) -> Result<(), Error> {
    match connection.heading {
        Heading::Inbound { .. } => may_call(connection.peer.identity.as_ref(), config),
        Heading::Outbound { .. } => Ok(()),
    }
}

/// Without the workload's own view its policies are not known, so nobody may call.
fn may_call<I>(identity: Option<&I>, config: &RuntimeConfig) -> Result<(), Error> {
    let refuse = |reason: Reason| Err(Error::new(Stage::Accept, reason, reason.summary()));
    if !config.is_own_known() {
        return refuse(Reason::NotReady);
    }
    if identity.is_none() && !config.permissive {
        return refuse(Reason::PlaintextRefused);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Own;

    fn config(workload: &str, permissive: bool) -> RuntimeConfig {
        let own = Own { workload: workload.into(), ..Own::default() };
        RuntimeConfig { own, permissive, ..RuntimeConfig::default() }
    }

    #[test]
    fn nobody_calls_a_workload_whose_policies_are_not_known() {
        let reason = |identity: Option<&()>, config| may_call(identity, &config).err().map(|error| error.reason);
        assert_eq!(reason(Some(&()), config("", false)), Some(Reason::NotReady));
        assert_eq!(reason(None, config("", true)), Some(Reason::NotReady));
        assert_eq!(reason(Some(&()), config("web-1", false)), None);
        assert_eq!(reason(None, config("web-1", false)), Some(Reason::PlaintextRefused));
        assert_eq!(reason(None, config("web-1", true)), None);
    }
}
