//! Clients that ask again as soon as they are answered, each over its own connections in turn.

use std::{cell::Cell, net::SocketAddr, time::Duration};

use anyhow::Context;
use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use selvedge_benches::client::{Ask, Connection};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Handshakes at a time.
const AT_ONCE: usize = 64;

/// How long after the one before a client begins at first: the application accepts so many connections at once, and no more.
const STEP: Duration = Duration::from_micros(200);

/// Clients, connected.
pub(crate) struct Load {
    begun: bool,
    clients: Vec<Vec<Connection>>,
    drivers: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many clients, which share `services` out among them; each has at least one. All have been answered once.
    pub(crate) async fn connect(services: &[SocketAddr], clients: usize) -> anyhow::Result<Self> {
        let count = clients.max(services.len());
        let open = (0..count).map(async |number| {
            let (mut connection, driver) = Connection::open(services[number % services.len()], Ask::Http1).await?;
            connection.get().await?;
            anyhow::Ok((connection, driver))
        });
        let open: Vec<_> = stream::iter(open).buffered(AT_ONCE).try_collect().await.context("clients connect")?;
        let mut load = Self { clients: (0..clients).map(|_| Vec::new()).collect(), drivers: Vec::new(), begun: false };
        for (number, (connection, driver)) in open.into_iter().enumerate() {
            load.clients[number % clients].push(connection);
            load.drivers.push(driver);
        }
        Ok(load)
    }

    /// Asks for so long; how many requests were answered.
    pub(crate) async fn run(&mut self, duration: Duration) -> anyhow::Result<u64> {
        let step = if std::mem::replace(&mut self.begun, true) { Duration::ZERO } else { STEP };
        let last = step * u32::try_from(self.clients.len())?;
        let (end, done) = (Instant::now() + last + duration, Cell::new(0));
        let clients = self.clients.iter_mut().zip(0..).map(async |(connections, number)| {
            sleep(step * number).await;
            while Instant::now() < end {
                for connection in connections.iter_mut() {
                    connection.get().await?;
                    done.set(done.get() + 1);
                    if Instant::now() >= end {
                        break;
                    }
                }
            }
            anyhow::Ok(())
        });
        try_join_all(clients).await?;
        Ok(done.get())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.drivers.iter().for_each(JoinHandle::abort);
    }
}
