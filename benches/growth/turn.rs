//! The pairs of one thing that grows, by turns.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, ensure};
use selvedge_benches::{
    application,
    client::{self, Ask},
    pair::{Pair, Plan},
    placement::Processors,
    port::connections,
    process::Process,
    spread::Spread,
};
use tokio::time::{Instant, sleep};

use crate::{growing::Growing, load::Load};

const PATIENCE: Duration = Duration::from_secs(60);

/// A pair of one size.
struct Sized {
    size: usize,
    pair: Pair,
    /// Connections that clients have at their turn.
    clients: usize,
    /// Endpoints that the called service has.
    endpoints: usize,
    /// Microseconds of CPU of a request, by round.
    costs: Vec<f64>,
}

/// The cost of a request, in microseconds of CPU of both sidecars, at each size.
pub(crate) async fn measure(
    growing: Growing,
    (binaries, processors): (&Path, &Processors),
    rounds: usize,
    each: Duration,
) -> anyhow::Result<Vec<(usize, Spread)>> {
    let folder = tempfile::Builder::new().prefix("selvedge-bench-").tempdir().context("a temporary folder")?;
    let application = [application::start(false).await?, application::start(true).await?];
    let mut all = Vec::new();
    for size in growing.sizes().iter().copied() {
        all.push(start(growing, size, (folder.path(), binaries), application).await?);
    }
    let sidecars = all.iter().flat_map(|sized| &sized.pair.sidecars);
    growing.placement().apply(processors, sidecars, all.iter().map(|sized| &sized.pair.control_plane))?;
    for sized in &mut all {
        sized.warm_up(each).await?;
    }
    for round in 0..rounds {
        let count = all.len();
        for index in (0..count).map(|index| (index + round) % count) {
            let cost = all[index].turn(each).await?;
            all[index].costs.push(cost);
        }
    }
    let points = all.into_iter().map(|sized| Some((sized.size, Spread::new(sized.costs)?)));
    points.collect::<Option<_>>().context("no round was measured")
}

async fn start(
    growing: Growing,
    size: usize,
    (folder, binaries): (&Path, &Path),
    application: [SocketAddr; 2],
) -> anyhow::Result<Sized> {
    let (extent, clients) = growing.extent(size);
    let folder = folder.join(size.to_string());
    let pair = Plan { folder, binaries, everything: true, application, extent, under: &[] }.start().await?;
    let mut sized = Sized { size, pair, clients, endpoints: extent.endpoints, costs: Vec::new() };
    let start = Instant::now();
    while let Err(error) = client::probe(sized.pair.http1, Ask::Http1).await {
        sized.check()?;
        if start.elapsed() > PATIENCE {
            return Err(error.context(format!("the pair of size {size} does not get ready")));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(sized)
}

impl Sized {
    /// Puts the load on it until every endpoint has been called: a connection between sidecars costs as much as many
    /// requests, and is made once.
    async fn warm_up(&mut self, each: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut load = Load::connect(&self.pair.services, self.clients).await?;
        load.run(each).await?;
        while connections(&self.pair.hops)? < self.endpoints {
            load.run(each).await?;
            let open = connections(&self.pair.hops)?;
            ensure!(start.elapsed() < PATIENCE, "only {open} of {} endpoints are called", self.endpoints);
        }
        Ok(())
    }

    /// Puts the load on it for so long; what a request cost. Connecting is not counted.
    async fn turn(&mut self, each: Duration) -> anyhow::Result<f64> {
        let mut load = Load::connect(&self.pair.services, self.clients).await?;
        // What was idle for a while has connections to open.
        load.run(each / 4).await?;
        let before = self.cpu_nanos();
        let requests = load.run(each).await?;
        let spent = self.cpu_nanos() - before;
        self.check()?;
        Ok(spent as f64 / 1e3 / requests as f64)
    }

    fn cpu_nanos(&self) -> u64 {
        self.pair.sidecars.iter().map(Process::cpu_nanos).sum()
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.pair.control_plane.check()?;
        self.pair.sidecars.iter_mut().try_for_each(|sidecar| sidecar.check())
    }
}
