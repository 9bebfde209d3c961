//! Looks at all sidecars at once, and keeps what the demo needs of what it saw.

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::{
    load::Counts,
    metrics::{self, Series, Usage},
    plan::Instance,
};

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sidecar {
    pub(super) instance: &'static Instance,
    /// The address its peers dial.
    pub(super) dialed: Option<SocketAddr>,
    pub(super) metrics: SocketAddr,
    pub(super) pid: u32,
}

/// One sidecar at one moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) sidecar: Sidecar,
    pub(super) series: Vec<Series>,
    pub(super) usage: Usage,
}

/// Everything at one moment.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) load: Counts,
    pub(super) sidecars: Vec<Seen>,
}

/// Looks at every sidecar. Fails when one does not answer: a table with holes would be a lie.
pub(super) async fn look(sidecars: &[Sidecar], load: Counts) -> anyhow::Result<Look> {
    let scrapes: Vec<_> = sidecars.iter().map(|sidecar| tokio::spawn(metrics::scrape(sidecar.metrics))).collect();
    let mut seen = Vec::with_capacity(sidecars.len());
    for (sidecar, scrape) in sidecars.iter().zip(scrapes) {
        let series = scrape.await?.map_err(|e| e.context(format!("the metrics of {}", sidecar.instance.name)))?;
        seen.push(Seen { sidecar: *sidecar, series, usage: metrics::usage(sidecar.pid)? });
    }
    Ok(Look { at: Instant::now(), load, sidecars: seen })
}

/// What happened between two looks.
pub(super) struct Span {
    pub(super) seconds: f64,
    pub(super) load: Counts,
    pub(super) sidecars: Vec<Change>,
}

/// What happened at one sidecar.
pub(super) struct Change {
    pub(super) sidecar: Sidecar,
    /// Counters: how much they grew.
    pub(super) grown: Vec<Series>,
    pub(super) cpu: Duration,
    /// At the end.
    pub(super) rss_bytes: u64,
    /// Gauges and counters at the end.
    pub(super) now: Vec<Series>,
}

impl Span {
    /// From one look to a later one at the same sidecars.
    pub(super) fn between(before: &Look, after: &Look) -> Self {
        let change = |(a, b): (&Seen, &Seen)| Change {
            sidecar: b.sidecar,
            grown: metrics::since(&a.series, &b.series),
            cpu: b.usage.cpu.saturating_sub(a.usage.cpu),
            rss_bytes: b.usage.rss_bytes,
            now: b.series.clone(),
        };
        Self {
            seconds: after.at.duration_since(before.at).as_secs_f64(),
            load: after.load.since(before.load),
            sidecars: before.sidecars.iter().zip(&after.sidecars).map(change).collect(),
        }
    }

    /// Growth of a counter at all sidecars, with the sidecar.
    pub(super) fn grown<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (Sidecar, &'a Series)> {
        self.sidecars
            .iter()
            .flat_map(move |change| change.grown.iter().map(|series| (change.sidecar, series)))
            .filter(move |(_, series)| series.name == name)
    }
}
