//! Two builds of our own in turn: what a request and a sidecar cost, of what they cost before.
//!
//! Guarantees: the sidecars of both builds share one processor, and the load and the application another; both pairs run
//! all the time and take turns under load, so that whatever else the machine does falls on both alike; each round of
//! turns gives one ratio, and the median of the ratios counts. Needs nothing but the two builds.

use std::path::Path;

use anyhow::{Context, ensure};
use selvedge_benches::{application, pair};

use crate::{
    load::Load,
    measure::{self, Plan, Turn},
    peer::{Name, Peer},
    placement::{Placement, Processors},
    report::{Spread, mebibytes},
};

/// The loads that need no other program.
const LOADS: [Load; 2] = [Load::Http1Paced, Load::Http2Paced];
/// Fewer ratios would leave the median to chance.
pub(crate) const LEAST_ROUNDS: usize = 10;

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
            pair::Plan { folder, binaries, everything: true, application, endpoints: 1, under: &[] }.start().await?;
        let mut peer = Peer::of_pair(Name::Selvedge, pair);
        peer.answers().await.with_context(|| format!("the pair of {} does not get ready", binaries.display()))?;
        anyhow::Ok(peer)
    };
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
    print(old, new, &figures);
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

    fn ratios(&self) -> Vec<f64> {
        self.old.iter().zip(&self.new).map(|(old, new)| new / old).collect()
    }
}

fn print(old: &Path, new: &Path, figures: &[Turns]) {
    let of_loads = LOADS.map(|load| format!("{}: CPU us/request", load.title()));
    let of_memory = ["both sidecars: resident MiB", "of it no file"].map(str::to_owned);
    println!(
        "old: {}\nnew: {}\n\n| | old | new | new / old | ratios |\n|---|---|---|---|---|",
        old.display(),
        new.display()
    );
    for (title, turns) in of_loads.into_iter().chain(of_memory).zip(figures) {
        let [Some(old), Some(new), Some(ratio)] =
            [turns.old.clone(), turns.new.clone(), turns.ratios()].map(Spread::new)
        else {
            continue;
        };
        println!(
            "| {title} | {:.2} | {:.2} | {:.3} ({:.3}-{:.3}) | {} |",
            old.median,
            new.median,
            ratio.median,
            ratio.least,
            ratio.greatest,
            turns.old.len()
        );
    }
}
