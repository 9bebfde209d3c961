//! The energy of doing nothing: a pair of our sidecars that knows many peers stands beside the whole run, and is only
//! watched.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use selvedge_benches::{
    client::{Ask, Connection},
    pair::{self, Extent},
    port::connections,
    process::Process,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    ground::Ground,
    peer::{Name, Peer},
};

/// Endpoints that the calling sidecar is connected to, all of which are the called one.
pub(crate) const PEERS: usize = 100;
/// Clients that make it call them all.
const CLIENTS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(60);
/// After so long a sidecar has given back what calls took.
const SETTLED: Duration = Duration::from_secs(10);

/// The pair, at rest.
pub(crate) struct Idle {
    pair: Peer,
    /// Ports that the one is connected to.
    hops: Vec<u16>,
    /// What each side keeps for a connection between them.
    bytes_a_connection: Vec<f64>,
    begun: Instant,
    at_begin: Vec<Sums>,
}

#[derive(Clone, Copy)]
struct Sums {
    wake_ups: u64,
    cpu_nanos: u64,
}

/// What each sidecar did while nobody asked for anything, the calling one first.
#[derive(Debug, Serialize)]
pub(crate) struct Rest {
    /// For how long it was watched.
    pub(crate) seconds: f64,
    /// Connections from the one to the other when it ended; there was one to each endpoint before.
    pub(crate) connections: usize,
    /// Memory of a connection between them that is no file, in bytes.
    pub(crate) bytes_a_connection: Vec<f64>,
    /// How often a thread was woken, in a minute.
    pub(crate) wake_ups_a_minute: Vec<f64>,
    /// CPU time of a minute.
    pub(crate) cpu_ms_a_minute: Vec<f64>,
}

impl Idle {
    /// Starts the pair and lets the one sidecar call the other by all its ports.
    pub(crate) async fn start(ground: &Ground) -> anyhow::Result<Self> {
        let plan = pair::Plan {
            folder: ground.folder("idle")?,
            binaries: &ground.binaries,
            everything: true,
            application: [ground.http1.address, ground.http2.address],
            extent: Extent { endpoints: PEERS, ..Extent::default() },
            under: &[],
        };
        let pair = plan.start().await?;
        let hops = pair.hops.clone();
        let mut pair = Peer::of_pair(Name::Selvedge, pair);
        pair.answers().await.context("the idle pair does not get ready")?;
        let (few, before) = at_rest(&pair, &hops).await?;
        // Many at a time: who balances leaves endpoints alone that are slower than those it knows, but not for busy ones.
        let clients = (0..CLIENTS).map(|_| Connection::open(pair.http1, Ask::Http1));
        let (mut clients, _drivers): (Vec<_>, Vec<_>) = try_join_all(clients).await?.into_iter().unzip();
        let start = Instant::now();
        while connections(&hops)? < PEERS {
            try_join_all(clients.iter_mut().map(Connection::get)).await?;
            ensure!(start.elapsed() < PATIENCE, "only {} of {PEERS} connections", connections(&hops)?);
        }
        drop(clients);
        let (many, after) = at_rest(&pair, &hops).await?;
        let each = |(before, after): (&u64, &u64)| after.saturating_sub(*before) as f64 / (many - few) as f64;
        let bytes_a_connection = before.iter().zip(&after).map(each).collect();
        Ok(Self { pair, hops, bytes_a_connection, begun: Instant::now(), at_begin: Vec::new() })
    }

    /// Watches from now on.
    pub(crate) fn begin(&mut self) {
        (self.begun, self.at_begin) = (Instant::now(), self.sums());
    }

    /// What it did since.
    pub(crate) fn end(&self) -> anyhow::Result<Rest> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let since: Vec<_> = self.sums().into_iter().zip(&self.at_begin).collect();
        let a_minute = |of: fn(&Sums) -> u64| {
            let count = |(now, then): &(Sums, &Sums)| of(now).saturating_sub(of(then)) as f64 * 60.0 / seconds;
            since.iter().map(count).collect::<Vec<f64>>()
        };
        Ok(Rest {
            seconds,
            connections: connections(&self.hops)?,
            bytes_a_connection: self.bytes_a_connection.clone(),
            wake_ups_a_minute: a_minute(|sums| sums.wake_ups),
            cpu_ms_a_minute: a_minute(|sums| sums.cpu_nanos).into_iter().map(|nanos| nanos / 1e6).collect(),
        })
    }

    fn sums(&self) -> Vec<Sums> {
        let of = |proxy: &Process| Sums { wake_ups: proxy.wake_ups(), cpu_nanos: proxy.cpu_nanos() };
        self.pair.proxies.iter().map(of).collect()
    }
}

/// Connections between the sidecars, and memory of each that is no file, when nobody has called for a while.
async fn at_rest(pair: &Peer, hops: &[u16]) -> anyhow::Result<(usize, Vec<u64>)> {
    sleep(SETTLED).await;
    Ok((connections(hops)?, pair.anonymous_bytes()))
}
