//! A listener that takes connections only while the application does, where somebody may come who only looks whether it
//! does: to them a connection is the answer. Any other listener takes connections all the time.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    heading::{Heading, Purpose},
    socket,
    surroundings::Surroundings,
};

/// A listener, open or not.
pub(super) struct Door {
    socket: Arc<std::net::TcpListener>,
    /// There is none while it refuses connections.
    listener: Option<TcpListener>,
    /// The application behind it, and what is known of it.
    behind: Option<(SocketAddr, watch::Receiver<Surroundings>)>,
}

impl Door {
    /// For this listener.
    pub(super) fn new(
        socket: Arc<std::net::TcpListener>,
        purpose: &Purpose,
        found: watch::Receiver<Surroundings>,
    ) -> Self {
        let forward = match purpose {
            Purpose::Declared(Heading::Inbound { forward, .. }) => Some(*forward),
            _ => None,
        };
        let behind = forward.filter(|forward| found.borrow().is_looked_for(*forward)).map(|forward| (forward, found));
        Self { socket, listener: None, behind }
    }

    /// Where it is; nowhere when the system does not say.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// Waits for a connection. What it waits for next it does not forget when it is not waited for any more.
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let Some(listener) = &self.listener else {
                if self.is_away() {
                    let _ = socket::refuse(&self.socket); // it may do so already
                    changed(&mut self.behind, false).await;
                }
                socket::take(&self.socket)?;
                self.listener = Some(TcpListener::from_std(self.socket.try_clone()?)?);
                continue;
            };
            tokio::select! {
                biased;
                () = changed(&mut self.behind, true) => self.listener = None,
                accepted = listener.accept() => return accepted,
            }
        }
    }

    fn is_away(&self) -> bool {
        self.behind.as_ref().is_some_and(|(forward, found)| found.borrow().is_away(*forward))
    }
}

/// Waits until the application is `away`, or is not. For ever where that does not matter, or nobody looks any more.
async fn changed(behind: &mut Option<(SocketAddr, watch::Receiver<Surroundings>)>, away: bool) {
    if let Some((forward, found)) = behind
        && found.wait_for(|now| now.is_away(*forward) == away).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{bootstrap::InboundListener, surroundings::direct::InboundPort};

    /// Waits until it holds, and lets the listener do something meanwhile: a connection may be refused at once.
    async fn until(holds: impl AsyncFn() -> bool) {
        let held = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), held).await.expect("in time");
    }

    #[tokio::test]
    async fn who_only_connects_is_answered_as_the_application_would_answer() {
        let forward: SocketAddr = ([127, 0, 0, 1], 8080).into();
        let (address, mut listeners) = socket::bind(([127, 0, 0, 1], 0).into(), 1).unwrap();
        let declared = InboundListener { listen: address, forward, port: None };
        let (found, seen) = watch::channel(Surroundings {
            inbound: vec![InboundPort::declared(&declared, true)],
            ..Default::default()
        });
        let purpose = Purpose::Declared(Heading::Inbound { forward, port: 8080 });
        let mut door = Door::new(Arc::new(listeners.remove(0)), &purpose, seen);
        let arrived = watch::Sender::new(0_u32);
        let mut arrivals = arrived.subscribe();
        tokio::spawn(async move {
            while door.accept().await.is_ok() {
                arrived.send_modify(|arrived| *arrived += 1);
            }
        });
        for round in 1..=3 {
            until(async || TcpStream::connect(address).await.is_err()).await;
            found.send_modify(|found| found.inbound[0].away = false);
            until(async || TcpStream::connect(address).await.is_ok()).await;
            arrivals.wait_for(|arrived| *arrived >= round).await.unwrap();
            found.send_modify(|found| found.inbound[0].away = true);
        }
    }
}
