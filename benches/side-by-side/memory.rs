//! What a peer occupies: at rest, and with many connections.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::Serialize;
use tokio::time::sleep;

use crate::{
    load::{Document, h2load},
    measure::Plan,
    peer::{Name, Peer},
};

/// Connections that are busy, of which every run has memory.
pub(crate) const BUSY: usize = 1_000;
/// Connections of the runs that are not quick.
pub(crate) const CROWD: usize = 6_000;

/// Resident memory in bytes of each proxy, in the order of the path.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Memory {
    /// Before any load.
    pub(crate) idle: Vec<u64>,
    /// The part of it that is no file.
    pub(crate) idle_anonymous: Vec<u64>,
    /// While so many connections are busy, before any other load.
    pub(crate) busy: BTreeMap<usize, Vec<u64>>,
    /// Some seconds after [`BUSY`] connections were closed.
    pub(crate) closed: Vec<u64>,
    /// After all loads.
    pub(crate) after: Vec<u64>,
    /// Requests that failed meanwhile.
    pub(crate) failed: u64,
}

/// Looks at every peer before it has had any other load.
pub(crate) async fn before(plan: &Plan, peers: &[Peer]) -> anyhow::Result<HashMap<Name, Memory>> {
    let peers = || peers.iter().filter(|peer| !peer.proxies.is_empty());
    let mut all: HashMap<Name, Memory> = HashMap::new();
    for peer in peers() {
        let memory = all.entry(peer.name).or_default();
        (memory.idle, memory.idle_anonymous) = (peer.resident_bytes(), peer.anonymous_bytes());
        busy(peer, BUSY, plan.busy, memory).await?;
    }
    let Some(rest) = plan.rest else { return Ok(all) };
    sleep(rest).await;
    for peer in peers() {
        all.entry(peer.name).or_default().closed = peer.resident_bytes();
    }
    for peer in peers() {
        // So many take a while to connect.
        busy(peer, CROWD, plan.busy * 2, all.entry(peer.name).or_default()).await?;
    }
    Ok(all)
}

/// Takes down resident memory near the end of `duration` with so many busy connections.
pub(crate) async fn busy(
    peer: &Peer,
    connections: usize,
    duration: Duration,
    memory: &mut Memory,
) -> anyhow::Result<()> {
    let shape = ["--h1", &format!("-c{connections}")];
    let load = h2load(peer.http1, &shape, Document::Small, duration);
    let look = async {
        sleep(duration * 5 / 6).await;
        peer.resident_bytes()
    };
    let (outcome, resident) = tokio::join!(load, look);
    memory.failed += outcome?.failed;
    memory.busy.insert(connections, resident);
    Ok(())
}
