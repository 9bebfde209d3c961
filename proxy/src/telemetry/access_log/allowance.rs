//! A limit on lines that anybody can cause.

use std::cell::Cell;

use tokio::time::Instant;

/// Lines about refusals and errors each worker may write in a second, and in a burst. Somebody who is refused can
/// come back as often as they like; the log must not grow as fast.
const ERRORS_PER_SECOND: f64 = 50.0;
const ERRORS_BURST: f64 = 200.0;

/// Leave to write lines: so many a second, so many at once.
#[derive(Debug)]
pub(super) struct Allowance {
    left: Cell<f64>,
    since: Cell<Option<Instant>>,
    refused: Cell<u64>,
}

impl Allowance {
    pub(super) const fn new() -> Self {
        Self { left: Cell::new(ERRORS_BURST), since: Cell::new(None), refused: Cell::new(0) }
    }

    /// Leave for one line, with the number refused since the last; `None` when there is none.
    pub(super) fn take(&self) -> Option<u64> {
        let now = Instant::now();
        let passed = self.since.replace(Some(now)).map_or(0.0, |since| now.duration_since(since).as_secs_f64());
        let left = (self.left.get() + passed * ERRORS_PER_SECOND).min(ERRORS_BURST);
        if left < 1.0 {
            self.left.set(left);
            self.refused.set(self.refused.get() + 1);
            return None;
        }
        self.left.set(left - 1.0);
        Some(self.refused.take())
    }
}
