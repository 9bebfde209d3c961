//! The demo while requests flow: counts them, looks at the sidecars every second, and says at the end what happened.

use std::{collections::VecDeque, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::{
    args::{DemoArgs, Output},
    load::{Counts, Load},
    observe::{Look, Sidecar, Span, look},
    screen::Screen,
    story::{self, Rested},
    summary::Summary,
};

/// Between two looks at all sidecars.
const REFRESH: Duration = Duration::from_secs(1);
/// The live table shows so many looks back.
const WINDOW: usize = 5;

/// The demo while requests flow.
pub(super) struct Show<'a> {
    pub(super) args: &'a DemoArgs,
    pub(super) ready_ms: u64,
    pub(super) sidecars: Vec<Sidecar>,
    pub(super) screen: Screen,
    pub(super) rested: Rested,
}

impl Show<'_> {
    /// Runs until the time is over or somebody says so.
    pub(super) async fn run(&mut self, load: Load, told: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut told = std::pin::pin!(told);
        let over = sleep(self.args.duration.map_or(Duration::MAX, |length| length.0));
        let mut over = std::pin::pin!(over);
        let mut tick = interval_at(Instant::now() + REFRESH, REFRESH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let first = look(&self.sidecars, Counts::default()).await?;
        let mut recent = VecDeque::from([first.clone()]);
        let mut samples = load.go();
        let mut counts = Counts::default();
        loop {
            tokio::select! {
                Some(sample) = samples.recv() => counts.add(sample),
                _ = tick.tick() => self.refresh(&first, &mut recent, counts).await?,
                () = over.as_mut() => break,
                () = told.as_mut() => break,
            }
        }
        let last = look(&self.sidecars, counts).await?;
        let span = Span::between(&first, &last);
        let summary = Summary::of(self.ready_ms, &span);
        match self.args.output {
            Output::Json => println!("{}", serde_json::to_string(&summary)?),
            Output::Text => self.screen.finish(&summary, &story::tell(&span, &self.rested))?,
        }
        Ok(())
    }

    /// Looks again, and shows the last seconds in the table and the whole run in the sentences.
    async fn refresh(&mut self, first: &Look, recent: &mut VecDeque<Look>, counts: Counts) -> anyhow::Result<()> {
        if self.args.output == Output::Json {
            return Ok(());
        }
        recent.push_back(look(&self.sidecars, counts).await?);
        if recent.len() > WINDOW + 1 {
            recent.pop_front();
        }
        if let (Some(oldest), Some(newest)) = (recent.front(), recent.back()) {
            let whole = Span::between(first, newest);
            self.rested.note(&whole);
            let mut summary = Summary::of(self.ready_ms, &whole);
            summary.services = Summary::of(self.ready_ms, &Span::between(oldest, newest)).services;
            self.screen.update(&summary, &story::tell(&whole, &self.rested))?;
        }
        Ok(())
    }
}
