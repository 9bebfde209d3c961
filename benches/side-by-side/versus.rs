//! Two builds of our own in turn: what a request and a sidecar cost, of what they cost before.
//!
//! Guarantees: the sidecars of both builds share one processor, and the load and the application another; both pairs run
//! all the time and take turns under load, so that whatever else the machine does falls on both alike; each round of
//! turns gives one ratio, and the median of the ratios counts. Needs nothing but the two builds; with h2load it also tells
//! what many busy connections occupy, of pairs that have done nothing else.

use std::path::Path;

use anyhow::{Context, ensure};
use selvedge_benches::{
    application,
    pair::{self, Extent},
    placement::{Placement, Processors},
    spread::Spread,
};

use crate::{
    load::{self, Load},
    measure::{self, Plan, Turn},
    memory::{self, BUSY, Memory},
    peer::{Name, Peer},
    report::mebibytes,
};

/// The loads that need no other program.
const LOADS: [Load; 2] = [Load::Http1Paced, Load::Http2Paced];
/// Fewer ratios would leave the median to chance.
pub(crate) const LEAST_ROUNDS: usize = 10;
/// The head of the table.
const HEAD: &str = "| | old | new | new / old | ratios |\n|---|---|---|---|---|";
/// Fresh pairs of each build whose memory is looked at.
const FRESH: usize = 6;

/// What one figure was for each build, round by round.
#[derive(Debug, Default)]
struct Turns {
    old: Vec<f64>,
    new: Vec<f64>,
}

/// Compares the builds in the folders `old` and `new` and prints what it finds.
pub(crate) async fn run(old: &Path, new: &Path, plan: Plan) -> anyhow::Result<()> {
    let processors = Processors::find()?;
    let folder = tempfile::Builder::new().prefix("selvedge-bench-").tempdir().context("a temporary folder")?;
    let application = [application::start(false).await?, application::start(true).await?];
    let start = async |name: &str, binaries: &Path| {
        let folder = folder.path().join(name);
        let pair =
            pair::Plan { folder, binaries, everything: true, application, extent: Extent::default(), under: &[] }
                .start()
                .await?;
        let mut peer = Peer::of_pair(Name::Selvedge, pair);
        peer.answers().await.with_context(|| format!("the pair of {} does not get ready", binaries.display()))?;
        anyhow::Ok(peer)
    };
    println!("old: {}\nnew: {}\n\n{HEAD}", old.display(), new.display());
    match load::program() {
        Ok(_) => busy(async |index| start(["old", "new"][index], [old, new][index]).await, &plan).await?,
        Err(missing) => eprintln!("skipped: memory of busy connections: {missing:#}"),
    }
    let mut pairs = [start("old", old).await?, start("new", new).await?];
    let placement = Placement::Pinned;
    let (sidecars, others) = (pairs.iter().flat_map(|pair| &pair.proxies), pairs.iter().flat_map(|pair| &pair.support));
    placement.apply(&processors, sidecars, others)?;
    let half = Plan { each: plan.each / 2, placements: vec![placement], ..plan };
    let mut figures: [Turns; LOADS.len() + 2] = Default::default();
    for round in 0..=half.rounds {
        for (load, turns) in LOADS.into_iter().zip(&mut figures) {
            let mut cost = [0.0; 2];
            // One, the other, the other, the one: a machine that gets slower does so for both. Who begins changes.
            let (first, second) = (round % 2, 1 - round % 2);
            for index in [first, second, second, first] {
                let sample = measure::one(&half, Turn { round, placement, load }, &pairs[index]).await?;
                pairs[index].check()?;
                ensure!(sample.failed == 0, "{} requests failed under {}", sample.failed, load.title());
                cost[index] += sample.cpu_us_per_request / 2.0;
            }
            turns.note(round, cost);
        }
        let [.., resident, anonymous] = &mut figures;
        resident.note(round, pairs.each_ref().map(|pair| mebibytes(pair.resident_bytes().iter().sum())));
        anonymous.note(round, pairs.each_ref().map(|pair| mebibytes(pair.anonymous_bytes().iter().sum())));
        eprintln!("round {round}/{}", half.rounds);
    }
    let of_loads = LOADS.map(|load| format!("{}: CPU us/request", load.title()));
    let of_memory = ["both sidecars: resident MiB", "of it no file"].map(str::to_owned);
    for (title, turns) in of_loads.into_iter().chain(of_memory).zip(figures) {
        turns.print(&title);
    }
    Ok(())
}

/// Prints what each sidecar occupies with many busy connections.
async fn busy(start: impl AsyncFn(usize) -> anyhow::Result<Peer>, plan: &Plan) -> anyhow::Result<()> {
    let mut figures: [Turns; 2] = Default::default();
    for round in 0..=FRESH {
        let mut resident = [[0.0; 2]; 2];
        for build in [round % 2, 1 - round % 2] {
            let (mut pair, mut memory) = (start(build).await?, Memory::default());
            memory::busy(&pair, BUSY, plan.busy, &mut memory).await?;
            ensure!(memory.failed == 0, "{} requests failed on {BUSY} connections", memory.failed);
            for (figures, bytes) in resident.iter_mut().zip(&memory.busy[&BUSY]) {
                figures[build] = mebibytes(*bytes);
            }
            pair.end().await?;
        }
        for (turns, resident) in figures.iter_mut().zip(resident) {
            turns.note(round, resident);
        }
    }
    for (side, turns) in ["calling", "called"].into_iter().zip(figures) {
        turns.print(&format!("{side} sidecar: resident MiB, {BUSY} busy connections"));
    }
    Ok(())
}

impl Turns {
    /// Takes down what the figure was for the old build and for the new one. The first round only warms up.
    fn note(&mut self, round: usize, [old, new]: [f64; 2]) {
        if round > 0 {
            self.old.push(old);
            self.new.push(new);
        }
    }

    fn print(self, title: &str) {
        let ratios = self.old.iter().zip(&self.new).map(|(old, new)| new / old).collect();
        let rounds = self.old.len();
        let [Some(old), Some(new), Some(ratio)] = [self.old, self.new, ratios].map(Spread::new) else { return };
        println!(
            "| {title} | {:.2} | {:.2} | {:.3} ({:.3}-{:.3}) | {rounds} |",
            old.median, new.median, ratio.median, ratio.least, ratio.greatest,
        );
    }
}
