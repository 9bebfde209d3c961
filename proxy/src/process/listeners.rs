//! The listeners of a sidecar, by name: fresh ones, or those that a process before it hands over.
//!
//! Guarantees: of a listener that was handed over every socket is kept, because the kernel resets what waits in the queue of
//! one that is closed. None is added: to workers that are more than there are sockets the same ones are given again.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Weak},
};

use super::error::StartError;
use crate::{
    bootstrap::{Bootstrap, Capture},
    heading::{Heading, Purpose},
    socket,
};

/// Sockets with what each is for, one share a worker.
pub(super) type Shares = Vec<Vec<(Arc<TcpListener>, Purpose)>>;

/// What the bootstrap declares, bound.
pub(super) struct Declared {
    /// The admin port.
    pub(super) admin: (SocketAddr, Arc<TcpListener>),
    /// The metrics port.
    pub(super) metrics: (SocketAddr, Arc<TcpListener>),
    /// Where workers take calls to the application.
    pub(super) inbound: Vec<SocketAddr>,
    /// Where they take those that the application makes.
    pub(super) outbound: Vec<SocketAddr>,
    /// With what.
    pub(super) shares: Shares,
}

impl Declared {
    /// Binds everything.
    pub(super) fn bind(bootstrap: &Bootstrap, listeners: &mut Listeners) -> Result<Self, StartError> {
        let admin = one(bootstrap.admin, "admin", listeners)?;
        let metrics = one(bootstrap.metrics, "metrics", listeners)?;
        let shares = (0..bootstrap.workers).map(|_| Vec::new()).collect();
        let mut declared = Self { admin, metrics, inbound: Vec::new(), outbound: Vec::new(), shares };
        if bootstrap.capture == Capture::Transparent {
            let listen = bootstrap.transparent;
            declared.share(listen.inbound_listen, "captured inbound", &Purpose::CapturedInbound, listeners)?;
            declared.share(listen.outbound_listen, "captured outbound", &Purpose::CapturedOutbound, listeners)?;
        }
        for inbound in &bootstrap.inbound {
            let heading = Heading::Inbound { forward: inbound.forward, port: inbound.port() };
            declared.share(inbound.listen, "inbound", &Purpose::Declared(heading), listeners)?;
        }
        for outbound in &bootstrap.outbound {
            if let Some(called) = outbound.target() {
                let (destination, port) = (called.service.text().clone(), called.port);
                let heading = Heading::Outbound { destination, port, original: None };
                declared.share(outbound.listen, "outbound", &Purpose::Declared(heading), listeners)?;
            }
        }
        Ok(declared)
    }

    /// Gives each worker at least one socket at `address`.
    fn share(
        &mut self,
        address: SocketAddr,
        purpose: &'static str,
        what: &Purpose,
        listeners: &mut Listeners,
    ) -> Result<(), StartError> {
        let workers = self.shares.len();
        let bound = listeners.bind(address, workers);
        let (bound, sockets) = bound.map_err(|source| StartError::Listen { address, purpose, source })?;
        for (index, socket) in sockets.into_iter().enumerate() {
            self.shares[index % workers].push((socket, what.clone()));
        }
        let addresses = if what.is_inbound() { &mut self.inbound } else { &mut self.outbound };
        addresses.push(bound);
        Ok(())
    }
}

fn one(
    address: SocketAddr,
    purpose: &'static str,
    listeners: &mut Listeners,
) -> Result<(SocketAddr, Arc<TcpListener>), StartError> {
    let failed = |source| StartError::Listen { address, purpose, source };
    let (bound, mut sockets) = listeners.bind(address, 1).map_err(failed)?;
    Ok((bound, sockets.swap_remove(0)))
}

/// A listener as it is declared: the address, and which of those that are declared alike it is, as with port 0.
pub(super) fn name(declared: SocketAddr, number: usize) -> String {
    format!("{declared}#{number}")
}

/// One listener, whose sockets are open for as long as somebody takes connections on them.
#[derive(Debug)]
pub(super) struct Bound {
    /// The name that it has in every process with this file.
    pub(super) name: String,
    /// Where it really is.
    pub(super) address: SocketAddr,
    /// One for each worker of the process that bound it.
    pub(super) sockets: Vec<Weak<TcpListener>>,
    declared: SocketAddr,
}

impl Bound {
    /// Its name, and where it is.
    pub(super) fn place(&self) -> (String, SocketAddr) {
        (self.name.clone(), self.address)
    }
}

/// All listeners of a process.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    inherited: HashMap<String, Vec<TcpListener>>,
    /// The names of those that were handed over, as far as they are declared here, too.
    taken: Vec<String>,
    bound: Vec<Bound>,
}

impl Listeners {
    /// None yet; these were handed over.
    pub(super) fn new(inherited: HashMap<String, Vec<TcpListener>>) -> Self {
        Self { inherited, ..Self::default() }
    }

    /// Listens at `declared`, for so many workers: where that is, and at least one socket for each.
    ///
    /// # Errors
    /// Those of [`socket::bind`].
    pub(super) fn bind(
        &mut self,
        declared: SocketAddr,
        workers: usize,
    ) -> io::Result<(SocketAddr, Vec<Arc<TcpListener>>)> {
        let name = name(declared, self.bound.iter().filter(|bound| bound.declared == declared).count());
        let inherited = self.inherited.remove(&name).filter(|sockets| !sockets.is_empty());
        let (address, sockets) = match inherited {
            Some(sockets) => {
                self.taken.push(name.clone());
                (sockets[0].local_addr()?, sockets)
            }
            None => socket::bind(declared, workers)?,
        };
        let sockets: Vec<Arc<TcpListener>> = sockets.into_iter().map(Arc::new).collect();
        let weak = sockets.iter().map(Arc::downgrade).collect();
        self.bound.push(Bound { name, address, sockets: weak, declared });
        let all = sockets.len().max(workers);
        Ok((address, sockets.iter().cycle().take(all).cloned().collect()))
    }

    /// What was bound, the names of what was taken of what had been handed over, and what was not.
    pub(super) fn finish(self) -> (Vec<Bound>, Vec<String>, Vec<TcpListener>) {
        (self.bound, self.taken, self.inherited.into_values().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

    /// What a process would be handed by one with these listeners.
    fn handed(bound: &[Bound]) -> HashMap<String, Vec<TcpListener>> {
        let clone = |socket: &Weak<TcpListener>| socket.upgrade().unwrap().try_clone().unwrap();
        bound.iter().map(|bound| (bound.name.clone(), bound.sockets.iter().map(clone).collect())).collect()
    }

    #[test]
    fn whoever_comes_next_has_the_same_ports_and_every_queue() {
        for (workers, next_workers, shares) in [(3, 3, 3), (3, 1, 3), (1, 3, 3)] {
            let mut before = Listeners::default();
            let first = before.bind(ANY.into(), workers).unwrap();
            let second = before.bind(ANY.into(), workers).unwrap();
            assert_ne!(first.0, second.0);
            let (bound, taken, _) = before.finish();
            assert!(taken.is_empty());

            let mut after = Listeners::new(handed(&bound));
            let again = after.bind(ANY.into(), next_workers).unwrap();
            assert_eq!((again.0, again.1.len()), (first.0, shares));
            drop((first, second));
            // The other one is declared no more.
            let (_, taken, left) = after.finish();
            assert_eq!((taken, left.len()), (vec![bound[0].name.clone()], workers));
            let callers: Vec<_> = (0..20).map(|_| TcpStream::connect(again.0).unwrap()).collect();
            let mut came = 0;
            while came < callers.len() {
                came += again.1.iter().filter(|socket| socket.accept().is_ok()).count();
            }
        }
    }
}
