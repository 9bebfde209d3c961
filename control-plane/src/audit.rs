//! What the control plane writes into the audit log: certificates, join tokens, and changes of objects.
//!
//! Guarantees: whoever has proven nothing keeps out nothing that is told of others; nobody waits for the writer.

use std::{hash::Hash, io, path::Path, sync::Arc, time::Duration};

use prometheus::IntCounterVec;
use selvedge_identity::audit::{Bounds, Event, Happening, Trail};
use tokio::time::Instant;

use crate::{clock, guarded::Guarded};

/// What events are reported by.
const REPORTER: &str = "control-plane";
/// Kinds of certificates and tokens that are told apart at once.
const GRANTS: usize = 1024;
/// Objects that are told apart at once.
const OBJECTS: usize = 16 * 1024;

/// How long the end of the process waits for the writer.
const LAST: Duration = Duration::from_secs(2);

/// What has become of events; the values of the label `result`.
pub(crate) const RESULTS: [&str; 3] = ["written", "left_out", "lost"];

/// Of whose events the number is bounded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Those who have proven who they are, or were given something.
    Known,
    /// Those who have proven nothing.
    Strangers,
    /// Those who write objects.
    Authors,
}

/// The audit log of a control plane; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct AuditLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    trail: Trail,
    bounds: [Guarded<Bounds>; 3],
    began: Instant,
    events: IntCounterVec,
}

/// Leave to write one event.
#[derive(Debug)]
pub(crate) struct Leave {
    time: String,
    left_out: u64,
}

impl Leave {
    /// What is known of every event.
    pub(crate) fn event(&self, happening: Happening) -> Event<'_> {
        Event::new(&self.time, REPORTER, happening)
    }
}

impl AuditLog {
    /// Opens the file at `path`, or standard output. `events` counts by [`RESULTS`].
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started.
    pub(crate) fn open(path: Option<&Path>, events: IntCounterVec) -> io::Result<Self> {
        let trail = Trail::open(path, |error| tracing::warn!(%error, "a line of the audit log could not be written"))?;
        let bounds = [GRANTS, GRANTS, OBJECTS].map(|most| Guarded::new(Bounds::new(most)));
        Ok(Self(Arc::new(Shared { trail, bounds, began: Instant::now(), events })))
    }

    /// Leave to write an event of this kind, unless there are too many.
    pub(crate) fn leave(&self, of: Of, kind: impl Hash) -> Option<Leave> {
        let passed = self.0.began.elapsed();
        let left_out = self.0.bounds[of as usize].with(|bounds| bounds.take(kind, passed));
        if left_out.is_none() {
            self.count("left_out", 1);
        }
        left_out
            .map(|left_out| Leave { time: clock::rfc3339(i64::try_from(clock::unix()).unwrap_or(i64::MAX)), left_out })
    }

    /// Writes an event that there is leave for.
    pub(crate) fn write(&self, leave: &Leave, event: &Event<'_>) {
        if self.0.trail.record(event.line(leave.left_out)) {
            self.count("written", 1);
        }
        self.count("lost", self.0.trail.take_lost());
    }

    /// Waits until everything is written, or a moment has passed.
    pub(crate) async fn finish(&self) {
        let trail = self.0.trail.clone();
        // It fails when the runtime ends, and then nobody waits.
        if !tokio::task::spawn_blocking(move || trail.finish(LAST)).await.unwrap_or(true) {
            tracing::warn!("the last audit log lines are lost: nobody reads them");
        }
    }

    fn count(&self, result: &str, events: u64) {
        self.0.events.with_label_values(&[result]).inc_by(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    #[tokio::test(start_paused = true)]
    async fn who_has_proven_nothing_keeps_out_nothing_that_is_told_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let events = Telemetry::new().unwrap().audit_events;
        let log = AuditLog::open(Some(&path), events.clone()).unwrap();
        let strangers = (0..5000).filter_map(|address| log.leave(Of::Strangers, address)).count();
        assert!((GRANTS..GRANTS + 1000).contains(&strangers), "{strangers} of 5000");
        for of in [Of::Known, Of::Authors] {
            let leave = log.leave(of, "first").unwrap();
            log.write(&leave, &leave.event(Happening::TokenMade));
        }
        log.finish().await;
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        let counted = RESULTS.map(|result| events.with_label_values(&[result]).get());
        assert_eq!(counted, [2, 5000 - strangers as u64, 0]);
    }
}
